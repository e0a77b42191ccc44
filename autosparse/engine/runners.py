"""What runs a model that the native executor cannot: torch."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils import _pytree as pytree

from autosparse.kernels.binding import MovedLines
from autosparse.measuring.stopwatch import python_runner


class TorchRunner:
    """Runs a private copy of the module through torch, for models with operators the executor lacks."""

    engine = "torch"
    arena_bytes = 0

    def __init__(self, module: nn.Module, threads: int) -> None:
        self._module = copy.deepcopy(module).eval()
        self._threads = threads
        tensors = [*self._module.parameters(), *self._module.buffers()]
        self.weight_bytes = sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """Runs once with the given number of threads; torch's own setting is restored."""
        tensors = [_tensor(value) for value in inputs]
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            with torch.inference_mode():
                return list(pytree.tree_leaves(self._module(*tensors)))
        finally:
            torch.set_num_threads(before)

    def time(self, inputs: Sequence[Any], repeats: int) -> NDArray[np.int64]:
        """Times calls of the module."""
        return python_runner(lambda: self.run(inputs))(repeats)

    def time_operators(self, inputs: Sequence[Any], repeats: int) -> dict[str, NDArray[np.int64]]:
        """Knows nothing of single operators."""
        return {}

    def moved_lines(self) -> dict[str, MovedLines]:
        """Knows nothing of what torch's threads say to each other."""
        return {}

    def close(self) -> None:
        """Lets the copy of the module go."""
        self._module = nn.Identity()


def _tensor(value: Any) -> torch.Tensor:
    # Cloned, so that a module that works in place leaves the caller's data alone.
    return torch.tensor(value) if isinstance(value, np.ndarray) else value.detach().clone()
