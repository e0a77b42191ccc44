"""What runs a model's leaves: the native executor here, and whatever else offers the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from autosparse.kernels.binding import MovedLines, NativeProgram


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
        """Runs `repeats` times; gives operator name to its wall times, nanoseconds."""

    def moved_lines(self) -> dict[str, MovedLines]:
        """Gives operator name to the cache lines that move between workers for it in one run."""

    def close(self) -> None:
        """Gives memory and threads back."""


BORDERS = "(borders)"
"""What a timed run spends outside its operators."""


class NativeRunner:
    """Runs a native program.

    Args:
        program: finished; the runner closes it.
        operators: name of every operator of the program, in order.
        sources: for every output of the model the index of the program's output that it is.
    """

    engine = "autosparse"

    def __init__(
        self, program: NativeProgram, operators: Sequence[str], sources: Sequence[int]
    ) -> None:
        self.program = program
        self.operators = tuple(operators)
        self.sources = tuple(sources)
        self.weight_bytes = int(program.weight_bytes)
        self.arena_bytes = int(program.arena_bytes)

    def _arrays(self, inputs: Sequence[Any]) -> list[NDArray[np.float32]]:
        shapes = self.program.input_shapes()
        return [_array(value).reshape(shape) for value, shape in zip(inputs, shapes, strict=True)]

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """Runs once; the results are fresh numpy arrays in four dimensions."""
        made = self.program.run(self._arrays(inputs))
        return [made[index] for index in self.sources]

    def time(self, inputs: Sequence[Any], repeats: int) -> NDArray[np.int64]:
        """Times runs inside the executor, without Python in between."""
        run_ns, _ = self.program.time(self._arrays(inputs), repeats)
        return run_ns

    def time_operators(self, inputs: Sequence[Any], repeats: int) -> dict[str, NDArray[np.int64]]:
        """Times every operator of every run, at the cost of one clock read each.

        What remains of a run is `BORDERS`: waking the threads, and copying inputs and outputs.
        """
        run_ns, op_ns = self.program.time(self._arrays(inputs), repeats, per_op=True)
        assert op_ns is not None, "asked for"
        times = {name: op_ns[:, index] for index, name in enumerate(self.operators)}
        return times | {BORDERS: run_ns - op_ns.sum(axis=1)}

    def moved_lines(self) -> dict[str, MovedLines]:
        """Counts lines of activations; those of copying inputs and outputs are `BORDERS`'s."""
        return dict(zip((*self.operators, BORDERS), self.program.moved_lines(), strict=True))

    def close(self) -> None:
        """Frees the program and ends its threads."""
        self.program.close()


def _array(value: Any) -> NDArray[np.float32]:
    # torch is not imported here: its tensors are whatever is no array.
    found = value if isinstance(value, np.ndarray) else value.detach().numpy()
    return np.ascontiguousarray(found, dtype=np.float32)
