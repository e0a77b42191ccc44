"""ONNX Runtime on the CPU, with all graph optimisations, in fp32 and in int8."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from autosparse.compare import int8
from autosparse.compare.peer import Peer, Running, Variant
from autosparse.compare.task import Task
from autosparse.measuring.stopwatch import python_runner


def f32(task: Task) -> Running:
    """Computes in float32."""
    return _session(task, task.onnx())


def quantised(task: Task) -> Running:
    """Computes what it can in int8."""
    return _session(task, int8.qdq_file(task), note=int8.note(task))


def _session(task: Task, file: Path, note: str = "") -> Running:
    """Opens a session with `threads` threads inside operators and one operator at a time."""
    import onnxruntime as ort  # type: ignore[import-not-found,import-untyped,unused-ignore]

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = task.threads, 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    opened = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    feed = {opened.get_inputs()[0].name: task.x()}

    def call() -> Sequence[NDArray[Any]]:
        return opened.run(None, feed)  # type: ignore[no-any-return]

    return Running(run=python_runner(call), outputs=call, note=note)


PEER = Peer(
    name="onnxruntime",
    needs={"onnxruntime": "onnxruntime", "onnx": "onnx"},
    variants=(
        Variant(name="onnxruntime", dtype="f32", open=f32),
        Variant(name="onnxruntime int8", dtype="int8", open=quantised),
    ),
    reads_file=True,
)
