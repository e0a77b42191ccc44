"""Our own contestants made ready: compiled from a plan, or loaded from an exported file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils import _pytree as pytree

import autosparse
from autosparse.compare.peer import Running
from autosparse.compare.records import OURS, Memory, Own
from autosparse.compare.task import Task
from autosparse.engine import CompiledModel, compile
from autosparse.errors import MissingDependency

_HOW = "weights and activations, as the engine counts them"


@dataclass(frozen=True, slots=True)
class OwnRunning:
    """A contestant on our engine.

    Attributes:
        running: how to run it.
        dtype: arithmetic type.
        memory: weights and activations.
        weight_bytes: weights as they are held; None where an exported file does not tell.
        compiled: the compiled model; None for an exported file.
        note: what a reader must know, such as that it runs through torch.
    """

    running: Running
    dtype: str
    memory: Memory
    weight_bytes: int | None
    compiled: CompiledModel | None = None
    note: str = ""


def open_own(own: Own, task: Task, database: str | None) -> OwnRunning:
    """Makes a contestant ready.

    Raises:
        AutosparseError: the plan, the file or the type cannot be had here.
    """
    return _exported(own, task) if own.artifact else _compiled(own, task, database)


def _compiled(own: Own, task: Task, database: str | None) -> OwnRunning:
    model = compile(
        task.module(),
        (task.tensor(),),
        dtype=own.dtype,
        threads=task.threads,
        plan=own.plan,
        database=database,
    )
    through_torch = model.engine != OURS
    return OwnRunning(
        running=Running(
            run=model.run_times,
            outputs=lambda: _leaves(model(task.x())),
            close=model.close,
        ),
        dtype=own.dtype,
        memory=Memory(size_bytes=model.weight_bytes + model.arena_bytes, how=_HOW)
        if not through_torch
        else Memory(size_bytes=None, how="it runs through torch, which does not tell"),
        weight_bytes=model.weight_bytes,
        compiled=model,
        note=f"runs through torch: {'; '.join(model.why)}" if through_torch else "",
    )


def _exported(own: Own, task: Task) -> OwnRunning:
    """Loads an exported file; it must hold the weights that the subject names."""
    load = getattr(autosparse, "load", None)
    if load is None:
        raise MissingDependency(
            f"an exported file needs autosparse.load, which this version lacks, but got {own.artifact}"
        )
    model = load(own.artifact, threads=task.threads)
    weight_bytes: int | None = getattr(model, "weight_bytes", None)
    arena_bytes: int | None = getattr(model, "arena_bytes", None)
    return OwnRunning(
        running=Running(
            run=model.run_times,
            outputs=lambda: _leaves(model(task.x())),
            close=getattr(model, "close", lambda: None),
        ),
        dtype=getattr(model, "dtype", own.dtype),
        memory=_memory(weight_bytes, arena_bytes),
        weight_bytes=weight_bytes,
    )


def _memory(weight_bytes: int | None, arena_bytes: int | None) -> Memory:
    if weight_bytes is None or arena_bytes is None:
        return Memory(size_bytes=None, how="the loaded file does not tell")
    return Memory(size_bytes=weight_bytes + arena_bytes, how=_HOW)


def _leaves(result: Any) -> Sequence[NDArray[Any]]:
    return [np.asarray(leaf) for leaf in pytree.tree_leaves(result)]
