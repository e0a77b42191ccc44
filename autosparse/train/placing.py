"""Where is trained: the processor, or a GPU that torch can use."""

from __future__ import annotations

import re

import torch

from autosparse.errors import UsageError

_CUDA = re.compile(r"cuda(?::(\d+))?")


def train_devices(text: str) -> tuple[str, ...]:
    """Reads what ``--train-device`` says: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.

    Returns:
        Where trainings may go, at least one: ``cpu``, or GPUs with their index; ``cuda`` is all GPUs,
        and so is ``auto`` where there is one.

    Raises:
        UsageError: it says something else, or names a GPU that torch does not see.
    """
    seen = torch.cuda.device_count() if torch.cuda.is_available() else 0
    every = tuple(f"cuda:{index}" for index in range(seen))
    if text == "auto":
        return every or ("cpu",)
    if text == "cpu":
        return ("cpu",)
    match = _CUDA.fullmatch(text)
    if match is None:
        raise UsageError(
            f"a training device must be auto, cpu, cuda or cuda:INDEX, but got {text!r}; leave it out "
            "for auto"
        )
    if not every or int(match[1] or 0) >= seen:
        raise UsageError(
            f"a training device must be one that torch {torch.__version__} sees, but got {text} and it "
            f"sees {seen} GPUs; write cpu, or auto"
        )
    return every if match[1] is None else (f"cuda:{int(match[1])}",)
