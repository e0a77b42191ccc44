"""What state a module is in: training or evaluation mode, for a while, and the device it lies on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def mode(module: nn.Module, *, training: bool) -> Iterator[None]:
    """Sets the mode of every part of a module, and afterwards each back to what it was."""
    before = {part: part.training for part in module.modules()}
    module.train(training)
    try:
        yield
    finally:
        for part, was in before.items():
            part.training = was


def device_of(module: nn.Module) -> torch.device:
    """Gives where a module's tensors lie; the processor for one without any."""
    for tensor in (*module.parameters(), *module.buffers()):
        return tensor.device
    return torch.device("cpu")
