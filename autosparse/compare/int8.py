"""The model as dense int8: what is to be had on a CPU by post-training quantisation, without any zeros.

One ONNX file serves every engine that reads it: quantised statically by ONNX Runtime's own tool,
weights per output channel and symmetric, activations per tensor with an offset, batch-norm folded
first, as quantise and dequantise nodes (QDQ) which engines fold into their int8 kernels.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autosparse.compare.peer import Unsupported
from autosparse.compare.task import Task
from autosparse.errors import DataError

_SAMPLES = 32
_SUFFIX = "-int8.onnx"


def qdq_file(task: Task) -> Path:
    """Gives the quantised file of a task, made when it is first asked for.

    Raises:
        Unsupported: ONNX Runtime, whose tool quantises, is not installed.
        DataError: the calibration data cannot be read, or do not fit the input.
        Exception: whatever the quantiser raises about a model.
    """
    if find_spec("onnxruntime") is None:
        raise Unsupported("the quantiser is ONNX Runtime's; run: pip install onnxruntime")
    source = task.onnx()
    path = source.with_name(source.stem + _SUFFIX)
    if not path.exists():
        unfinished = path.with_suffix(f".{os.getpid()}")
        with _quiet():
            _quantise(task, source, unfinished)
        unfinished.replace(path)
    return path


def note(task: Task) -> str:
    """Says what the ranges of the activations rest on."""
    data = task.subject.calibration
    if data is None:
        return (
            f"int8 ranges from {_SAMPLES} random inputs: its latency counts, its accuracy does not; "
            "--calibration names data"
        )
    return f"int8 ranges from {_SAMPLES} training samples of {data}"


def samples(task: Task) -> Iterator[NDArray[np.float32]]:
    """Gives the inputs that decide the ranges: of the calibration data, or standard normal ones."""
    batch, *shape = task.shape
    batches = -(-_SAMPLES // batch)
    if task.subject.calibration is None:
        # Not the input that is timed: seeds of the same pair would give the same numbers.
        generator = np.random.default_rng((task.subject.seed, 1))
        for _ in range(batches):
            yield generator.standard_normal(task.shape, dtype=np.float32)
        return
    from autosparse.data import resolve

    channels, height, width = shape
    if height != width:
        raise DataError(
            f"calibration images are square, but the input is {height}x{width}; leave --calibration out"
        )
    data = resolve(task.subject.calibration, resolution=height, channels=channels)
    for images, _ in data.train.batches(batch, shuffle_seed=task.subject.seed, drop_last=True):
        yield images.numpy()
        batches -= 1
        if batches == 0:
            return


def _quantise(task: Task, source: Path, target: Path) -> None:
    from onnxruntime import quantization  # type: ignore[import-not-found,import-untyped,unused-ignore]
    from onnxruntime.quantization import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
        shape_inference,
    )

    prepared = target.with_suffix(".prepared")
    try:
        shape_inference.quant_pre_process(str(source), str(prepared))
        quantization.quantize_static(
            str(prepared),
            str(target),
            _reader(task, prepared),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )
    finally:
        prepared.unlink(missing_ok=True)


def _reader(task: Task, prepared: Path) -> Any:
    import onnx  # type: ignore[import-not-found,import-untyped,unused-ignore]
    from onnxruntime import quantization  # type: ignore[import-not-found,import-untyped,unused-ignore]

    name = onnx.load(str(prepared), load_external_data=False).graph.input[0].name
    remaining = samples(task)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc,unused-ignore]
        def get_next(self) -> dict[str, NDArray[np.float32]] | None:
            values = next(remaining, None)
            return None if values is None else {name: values}

    return Reader()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the quantiser's advice, given at every call, from the user."""
    before = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.root.setLevel(before)
