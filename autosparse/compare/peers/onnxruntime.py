"""ONNX Runtime on the CPU, with all graph optimisations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from autosparse.compare.peer import Peer, Running, Variant
from autosparse.compare.task import Task
from autosparse.tuning.stopwatch import python_runner


def session(task: Task) -> Running:
    """Opens a session with `threads` threads inside operators and one operator at a time."""
    import onnxruntime as ort  # type: ignore[import-not-found,import-untyped,unused-ignore]

    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = task.threads, 1
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    opened = ort.InferenceSession(str(task.onnx()), options, providers=["CPUExecutionProvider"])
    feed = {opened.get_inputs()[0].name: task.x()}

    def call() -> Sequence[NDArray[Any]]:
        return opened.run(None, feed)  # type: ignore[no-any-return]

    return Running(run=python_runner(call), outputs=call)


PEER = Peer(
    name="onnxruntime",
    needs={"onnxruntime": "onnxruntime", "onnx": "onnx"},
    variants=(Variant(name="onnxruntime", dtype="f32", open=session),),
    reads_file=True,
)
