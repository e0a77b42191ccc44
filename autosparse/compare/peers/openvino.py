"""OpenVINO on the CPU, set for latency, in fp32, in int8 and, where the CPU has it, bf16."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autosparse.compare import int8
from autosparse.compare.peer import Peer, Running, Unsupported, Variant
from autosparse.compare.task import Task
from autosparse.measuring.stopwatch import python_runner


def f32(task: Task) -> Running:
    """Computes in float32."""
    return _request(task, task.onnx(), "f32")


def bf16(task: Task) -> Running:
    """Computes in bfloat16 wherever OpenVINO holds that to be safe."""
    return _request(task, task.onnx(), "bf16")


def quantised(task: Task) -> Running:
    """Computes what it can in int8, and the rest in float32."""
    return _request(task, int8.qdq_file(task), "f32", note=int8.note(task))


@functools.cache
def _core() -> Any:
    """One for this process and for as long as it lives.

    The plugin for CPUs sets the stack that signals are handled on, for AMX, and frees it with the core:
    after two cores have gone, the next signal that Python handles, as Ctrl-C, is a segmentation fault.
    """
    import openvino  # type: ignore[import-not-found,import-untyped,unused-ignore]

    return openvino.Core()


def _request(task: Task, file: Path, precision: str, note: str = "") -> Running:
    import openvino  # type: ignore[import-not-found,import-untyped,unused-ignore]

    core = _core()
    if precision.upper() not in {"F32", *core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")}:
        raise Unsupported(f"OpenVINO does not compute in {precision} on this CPU")
    settings = {
        "INFERENCE_NUM_THREADS": task.threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": precision,
    }
    model = core.compile_model(core.read_model(file), "CPU", settings)
    request = model.create_infer_request()
    request.set_input_tensor(openvino.Tensor(task.x()))

    def outputs() -> list[NDArray[Any]]:
        request.infer()
        count = len(model.outputs)
        return [np.array(request.get_output_tensor(index).data) for index in range(count)]

    return Running(run=python_runner(request.infer), outputs=outputs, note=note)


PEER = Peer(
    name="openvino",
    needs={"openvino": "openvino", "onnx": "onnx"},
    variants=(
        Variant(name="openvino", dtype="f32", open=f32),
        Variant(name="openvino bf16", dtype="bf16", open=bf16),
        Variant(name="openvino int8", dtype="int8", open=quantised),
    ),
    reads_file=True,
)
