"""Our own contestants made ready: compiled from a plan, or loaded from an exported file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch.utils import _pytree as pytree

import autosparse
from autosparse.compare.peer import Running
from autosparse.compare.records import OURS, Memory, Own
from autosparse.compare.task import Task
from autosparse.engine import LayerReport, compile
from autosparse.errors import MissingDependency, UsageError

_HOW = "weights and activations, as the engine counts them"


class OwnModel(Protocol):
    """What a compiled model and a loaded one have in common."""

    @property
    def layers(self) -> tuple[LayerReport, ...]:
        """Every weight-bearing layer with its kernel."""

    @property
    def dtype(self) -> str:
        """Arithmetic type."""

    @property
    def engine(self) -> str:
        """What runs it."""

    @property
    def weight_bytes(self) -> int:
        """Weights as they are held."""

    @property
    def arena_bytes(self) -> int:
        """Activations."""

    def __call__(self, *inputs: Any) -> Any:
        """Runs once."""

    def run_times(self, repeats: int) -> NDArray[np.int64]:
        """Gives nanoseconds per run."""

    def measure_operators(self, repeats: int = 50) -> dict[str, float]:
        """Gives the median time of every operator within whole runs, microseconds."""

    def close(self) -> None:
        """Frees memory and threads."""


@dataclass(frozen=True, slots=True)
class OwnRunning:
    """A contestant on our engine.

    Attributes:
        running: how to run it.
        model: what runs.
        memory: weights and activations.
    """

    running: Running
    model: OwnModel
    memory: Memory


def open_own(
    own: Own, task: Task, database: str | None, *, compact_weights: bool = False
) -> OwnRunning:
    """Makes a contestant ready; `compact_weights` as in `compile`.

    Raises:
        AutosparseError: the plan, the file or the type cannot be had here, or the model would run
            through torch, whose figures are not ours.
    """
    model = _loaded(own, task) if own.artifact else _compiled(own, task, database, compact_weights)
    return OwnRunning(
        running=Running(
            run=model.run_times,
            outputs=lambda: _leaves(model(task.x())),
            close=model.close,
        ),
        model=model,
        memory=Memory(size_bytes=model.weight_bytes + model.arena_bytes, how=_HOW),
    )


def _compiled(own: Own, task: Task, database: str | None, compact_weights: bool) -> OwnModel:
    model = compile(
        task.module(),
        (task.tensor(),),
        dtype=own.dtype,
        threads=task.threads if task.device == "cpu" else None,
        plan=own.plan,
        database=database,
        compact_weights=compact_weights,
        use_zeros=own.zeros is not None,  # dense is dense, whatever was pruned before
        device=task.device,
    )
    if model.engine != OURS:
        raise UsageError(
            f"a contestant of ours must run natively as a whole, but {own.name} would run through "
            f"{model.engine}: {'; '.join(model.why)}"
        )
    return model


def _loaded(own: Own, task: Task) -> OwnModel:
    """Loads an exported file; it must hold the weights that the subject names."""
    load = getattr(autosparse, "load", None)
    if load is None:
        raise MissingDependency(
            f"an exported file needs autosparse.load, which this version lacks, but got {own.artifact}"
        )
    model: OwnModel = load(own.artifact, threads=task.threads)
    return model


def _leaves(result: Any) -> Sequence[NDArray[Any]]:
    return [np.asarray(leaf) for leaf in pytree.tree_leaves(result)]
