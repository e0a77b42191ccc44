"""A compiled model: call it, ask what runs where and why, time it."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NoReturn, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils import _pytree as pytree

from autosparse.engine.runners import Runner
from autosparse.errors import UsageError
from autosparse.graph import Port
from autosparse.records import LayerShape, Record, WholeLatency
from autosparse.tuning.stopwatch import WHOLE
from autosparse.tuning.stopwatch import measure as measure_runner


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerReport(Record):
    """How one weight-bearing layer of a compiled model runs.

    Attributes:
        name: dotted path of its module.
        shape: its shape, None where the records cannot say it.
        pattern: ``dense``, ``1x16``, …
        sparsity: fraction of blocks pruned.
        kernel: name of the kernel that runs it; ``torch`` where the whole model runs through torch;
            ``builtin`` for operators outside the kernel table.
        why: how the choice came about.
    """

    name: str
    shape: LayerShape | None
    pattern: str
    sparsity: float
    kernel: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Border:
    """What a compiled model takes and gives.

    Attributes:
        inputs: in the order of the arguments.
        outputs: leaves of the result.
        out_spec: how the leaves make up the result.
        examples: values of the right kind to time with.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    out_spec: Any
    examples: tuple[torch.Tensor, ...]

    @property
    def batch_size(self) -> int:
        """Samples per call."""
        return self.inputs[0].dims[0]


class CompiledModel:
    """A model for inputs of fixed shapes, made by `compile`.

    Safe to call from several threads; calls run one after another. It holds native memory and threads:
    use it as a context manager, or `close` it. It cannot be pickled; compile again from the module.

    Attributes:
        layers: every weight-bearing layer with its kernel and why.
        threads: worker threads.
        dtype: arithmetic type.
        why: what made the model run through torch; empty where the native executor runs it.
    """

    def __init__(
        self,
        runner: Runner,
        border: Border,
        layers: tuple[LayerReport, ...],
        *,
        threads: int,
        names: dict[str, str],
        dtype: str = "f32",
        why: tuple[str, ...] = (),
    ) -> None:
        self.layers = layers
        self.threads = threads
        self.dtype = dtype
        self.why = why
        self._runner: Runner | None = runner
        self._engine = runner.engine
        self._border = border
        self._names = names
        self._lock = threading.Lock()

    @property
    def engine(self) -> str:
        """What runs it: ``autosparse`` or ``torch``."""
        return self._engine

    @property
    def batch_size(self) -> int:
        """Samples per call, as in the example."""
        return self._border.batch_size

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights in memory: packed weights and index lists."""
        return self._open().weight_bytes

    @property
    def arena_bytes(self) -> int:
        """Bytes of all activations; 0 through torch."""
        return self._open().arena_bytes

    def __call__(self, *inputs: Any) -> Any:
        """Runs once; inputs are neither written nor kept.

        Args:
            inputs: float32 torch tensors on the CPU, or numpy arrays, of the example's shapes.

        Returns:
            What the module returns, made of fresh tensors of the inputs' kind, without gradients.

        Raises:
            UsageError: another number, kind, shape or type of inputs, or the model is closed.
        """
        as_arrays = self._check(inputs)
        with self._lock:
            leaves = self._open().run(inputs)
        found = [
            _to_kind(leaf, port, as_arrays)
            for leaf, port in zip(leaves, self._ports(leaves), strict=True)
        ]
        spec = self._border.out_spec
        return found[0] if spec is None else pytree.tree_unflatten(found, spec)

    def _ports(self, leaves: Sequence[Any]) -> Sequence[Port | None]:
        # torch's own result may hold leaves that are no tensors; they pass as they are.
        return self._border.outputs if self._engine == "autosparse" else [None] * len(leaves)

    def _check(self, inputs: Sequence[Any]) -> bool:
        """Refuses inputs that do not fit; tells whether they are numpy arrays."""
        expected = self._border.inputs
        if len(inputs) != len(expected):
            raise UsageError(f"this model takes {len(expected)} inputs, but got {len(inputs)}")
        kinds = {_kind(value) for value in inputs}
        if len(kinds) > 1 or None in kinds:
            found = ", ".join(type(value).__name__ for value in inputs)
            raise UsageError(f"inputs must be all torch tensors or all numpy arrays, but got {found}")
        for index, (value, port) in enumerate(zip(inputs, expected, strict=True)):
            _check_one(index, value, port)
        return kinds == {"array"}

    # -------------------------------------------------------------------------------- measuring

    def run_times(self, repeats: int) -> NDArray[np.int64]:
        """Runs `repeats` times on random inputs; gives one wall time per run, nanoseconds.

        Raises:
            UsageError: fewer than one repeat, or the model is closed.
        """
        if repeats < 1:
            raise UsageError(f"repeats must be at least 1, but got {repeats}")
        with self._lock:
            return self._open().time(self._border.examples, repeats)

    def measure(self, repeats: int | None = None) -> WholeLatency:
        """Measures the latency of one call, Python aside, until its median is known to 1 %.

        Args:
            repeats: exactly this many runs after the warm-up instead; at least 6.

        Raises:
            UsageError: too few repeats, or the model is closed.
        """
        policy = WHOLE
        if repeats is not None:
            policy = dataclasses.replace(WHOLE, min_repeats=repeats, max_repeats=repeats)
        return measure_runner(self.run_times, policy).whole_latency(
            threads=self.threads, batch_size=self.batch_size, dtype=self.dtype, engine=self._engine
        )

    def measure_operators(self, repeats: int = 50) -> dict[str, float]:
        """Gives the median time of every operator within whole runs, microseconds.

        Layers go by their name, other operators by the name torch gave them. Empty through torch.
        """
        if repeats < 1:
            raise UsageError(f"repeats must be at least 1, but got {repeats}")
        with self._lock:
            runner = self._open()
            runner.time(self._border.examples, max(2, repeats // 10))
            taken = runner.time_operators(self._border.examples, repeats)
        return {self._names.get(name, name): float(np.median(ns)) / 1e3 for name, ns in taken.items()}

    def measure_layers(self, repeats: int = 50) -> dict[str, float]:
        """Gives the median time of every weight-bearing layer within whole runs, microseconds."""
        known = {layer.name for layer in self.layers}
        return {name: us for name, us in self.measure_operators(repeats).items() if name in known}

    # -------------------------------------------------------------------------------- life cycle

    def _open(self) -> Runner:
        if self._runner is None:
            raise UsageError("this compiled model is closed; compile the module again")
        return self._runner

    def close(self) -> None:
        """Frees memory and threads; further calls raise. Closing twice does nothing."""
        with self._lock:
            if self._runner is not None:
                self._runner.close()
            self._runner = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a CompiledModel holds native memory and threads and cannot be pickled or copied; "
            "send the module and the plan, and compile there"
        )

    def __repr__(self) -> str:
        shapes = ", ".join("x".join(map(str, port.dims)) for port in self._border.inputs)
        sparse = sum(layer.pattern != "dense" for layer in self.layers)
        return (
            f"CompiledModel({shapes}; {sparse} of {len(self.layers)} layers sparse; "
            f"{self._engine}, {self.dtype}, {self.threads} threads)"
        )


def _kind(value: Any) -> str | None:
    if isinstance(value, torch.Tensor):
        return "tensor"
    return "array" if isinstance(value, np.ndarray) else None


def _check_one(index: int, value: Any, port: Port) -> None:
    if tuple(value.shape) != port.dims:
        raise UsageError(
            f"input {index} must have the example's shape {list(port.dims)}, but got "
            f"{list(value.shape)}; compile again for another shape"
        )
    dtype = str(value.dtype).removeprefix("torch.")
    if dtype != port.dtype:
        raise UsageError(f"input {index} must be {port.dtype}, but got {dtype}; convert it first")
    if isinstance(value, torch.Tensor) and value.device.type != "cpu":
        raise UsageError(f"input {index} must be on the CPU, but got {value.device}; call .cpu() first")


def _to_kind(leaf: Any, port: Port | None, as_array: bool) -> Any:
    """Gives a result's leaf as the kind of the inputs, in torch's dimensions."""
    if isinstance(leaf, np.ndarray):
        shaped = leaf if port is None else leaf.reshape(port.dims)
        return shaped if as_array else torch.from_numpy(shaped)
    if isinstance(leaf, torch.Tensor):
        # A tensor made in inference mode could not be used in training code later.
        return leaf.numpy() if as_array else leaf.clone()
    return leaf
