"""A module as ONNX, zeros in place, for engines that are not ours."""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn

from autosparse.errors import MissingDependency, ModelError, WrongResult
from autosparse.storage.files import write_bytes

# Largest difference from torch over the largest value of the output: both sum in float32, each in its
# own order.
TOLERANCE = 1e-4


def check_onnx_is_here() -> None:
    """Refuses before any work where the exporter's libraries are absent.

    Raises:
        MissingDependency: names them and the extra that has them.
    """
    absent = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if absent:
        raise MissingDependency(
            f"an ONNX file needs {' and '.join(absent)}, which {'are' if absent[1:] else 'is'} not "
            "installed; run: pip install 'autosparse[onnx]'"
        )


def write_onnx(path: Path, module: nn.Module, sample: torch.Tensor) -> str:
    """Writes a module as ONNX and compares it with the module, where ONNX Runtime is installed.

    Args:
        path: the file.
        module: in evaluation mode.
        sample: an input; its shape is final.

    Returns:
        How the file was checked, for a person.

    Raises:
        MissingDependency: ``onnx`` or ``onnxscript`` is not installed.
        ModelError: torch cannot export the module.
        WrongResult: the file computes something else; nothing was written.
        RunError: the file cannot be written.
    """
    check_onnx_is_here()
    with _quiet():
        try:
            program = torch.onnx.export(module, (sample,), dynamo=True, verbose=False)
        except torch.onnx.errors.OnnxExporterError as error:
            raise ModelError(
                f"torch must be able to export the model as ONNX, but: {_first_line(error)}"
            ) from error
    assert program is not None, "no file was named"
    content: bytes = program.model_proto.SerializeToString()
    said = _checked(content, module, sample)
    write_bytes(path, content)
    return said


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps the exporter's remarks on libraries that this module does not use from the user."""
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(before)


def _checked(content: bytes, module: nn.Module, sample: torch.Tensor) -> str:
    if importlib.util.find_spec("onnxruntime") is None:
        return "not compared with the model: onnxruntime is not installed"
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    got = session.run(None, {session.get_inputs()[0].name: sample.numpy()})
    with torch.inference_mode():
        wanted = torch.utils._pytree.tree_leaves(module(sample))
    worst = 0.0
    for ours, theirs in zip(wanted, got, strict=True):
        scale = max(float(ours.abs().max()), 1e-30)
        worst = max(worst, float(np.abs(ours.numpy() - theirs).max()) / scale)
    if not worst <= TOLERANCE:
        raise WrongResult(
            f"an ONNX file must compute what its model does, to {TOLERANCE:g} of the largest output, "
            f"but ONNX Runtime {onnxruntime.__version__} differs by {worst:.3g}; nothing was written"
        )
    return f"agrees with the model in ONNX Runtime {onnxruntime.__version__} to {worst:.1g}"
