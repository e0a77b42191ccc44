"""The two things that can run a graph: the native executor, and torch where the executor cannot."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils import _pytree as pytree

from autosparse.engine.lower import Lowered
from autosparse.tuning.stopwatch import python_runner


class Runner(Protocol):
    """Runs the leaves of a model's inputs to the leaves of its result."""

    engine: str
    weight_bytes: int
    arena_bytes: int

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """Runs once; inputs are torch tensors or numpy arrays."""

    def time(self, inputs: Sequence[Any], repeats: int) -> NDArray[np.int64]:
        """Runs `repeats` times; gives one wall time per run, nanoseconds."""

    def time_operators(self, inputs: Sequence[Any], repeats: int) -> dict[str, NDArray[np.int64]]:
        """Runs `repeats` times; gives node name to its wall times, nanoseconds."""

    def close(self) -> None:
        """Gives memory and threads back."""


class NativeRunner:
    """Runs a native program."""

    engine = "autosparse"

    def __init__(self, lowered: Lowered) -> None:
        self._lowered = lowered
        self.weight_bytes = int(lowered.program.weight_bytes)
        self.arena_bytes = int(lowered.program.arena_bytes)

    def _arrays(self, inputs: Sequence[Any]) -> list[NDArray[np.float32]]:
        shapes = self._lowered.input_shapes
        return [_array(value).reshape(shape) for value, shape in zip(inputs, shapes, strict=True)]

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """Runs once; the results are fresh numpy arrays in four dimensions."""
        made = self._lowered.program.run(self._arrays(inputs))
        return [made[index] for index in self._lowered.outputs]

    def time(self, inputs: Sequence[Any], repeats: int) -> NDArray[np.int64]:
        """Times runs inside the executor, without Python in between."""
        run_ns, _ = self._lowered.program.time(self._arrays(inputs), repeats)
        return run_ns

    def time_operators(self, inputs: Sequence[Any], repeats: int) -> dict[str, NDArray[np.int64]]:
        """Times every operator of every run, at the cost of one clock read each."""
        _, op_ns = self._lowered.program.time(self._arrays(inputs), repeats, per_op=True)
        assert op_ns is not None, "asked for"
        return {name: op_ns[:, index] for index, name in enumerate(self._lowered.operators)}

    def close(self) -> None:
        """Frees the program and ends its threads."""
        self._lowered.program.close()


def _array(value: Any) -> NDArray[np.float32]:
    if isinstance(value, torch.Tensor):
        value = value.detach().numpy()
    return np.ascontiguousarray(value, dtype=np.float32)


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

    def close(self) -> None:
        """Lets the copy of the module go."""
        self._module = nn.Identity()


def _tensor(value: Any) -> torch.Tensor:
    # Cloned, so that a module that works in place leaves the caller's data alone.
    return torch.tensor(value) if isinstance(value, np.ndarray) else value.detach().clone()
