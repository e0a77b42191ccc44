"""Rows held to the whole: whatever tuning chose, the dense model must not run slower by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from autosparse import models
from autosparse.database import TuningDatabase
from autosparse.engine import compile
from autosparse.engine.compiling import KNOWN
from autosparse.pipeline.subject.survey import Survey
from autosparse.progress import Progress
from autosparse.records import Measurement, Record
from autosparse.searching.cluster import HERE

RUNNER = "autosparse.pipeline.measured.held:run"
_HUNG_S = 1800.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldRequest(Record):
    """Which model is held to which rows; all as in `autosparse.compile`."""

    model: str
    classes: int
    batch_size: int
    input_shape: tuple[int, ...]
    dtypes: tuple[str, ...]
    threads: int
    database: str
    compact_weights: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Held(Record):
    """What came of it.

    Attributes:
        told: what was found, a sentence per type.
        rows: those that were replaced, as they are now.
    """

    told: tuple[str, ...]
    rows: tuple[Measurement, ...] = ()


def hold_to_the_whole(subject: Survey, progress: Progress) -> tuple[str, ...]:
    """Runs the dense model with its rows in turn with what the executor's rule picks, in every type.

    Rows that make it slower are replaced by what their kernels took inside the model; see
    `engine.contest`. It is done where the rows were taken.

    Returns:
        What was found, a sentence per type.

    Raises:
        AutosparseError: another host failed.
        Stopped: a stop was requested.
    """
    request = HoldRequest(
        model=subject.config.model,
        classes=subject.classes,
        batch_size=subject.config.batch_size,
        input_shape=subject.input_shape,
        dtypes=subject.dtypes,
        threads=subject.threads,
        database=subject.database,
        compact_weights=subject.config.compact_weights,
    )
    if subject.host.name == HERE:
        return _hold(request, progress)
    step = "start to hold rows to the whole"
    found = Held.from_json(
        subject.host.time_whole(
            RUNNER, request.to_json(), step=step, limit_s=_HUNG_S, progress=progress
        )
    )
    with TuningDatabase(subject.database) as database:
        database.put_all(found.rows, replace=True)
    return found.told


def run(values: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Does it in a process of its own on another host, with a database of that process's own."""
    request = HoldRequest.from_json(values)
    with TuningDatabase(request.database) as database:
        before = {row.key: row for row in database.rows()}
        told = _hold(request, progress)
        rows = tuple(row for row in database.rows() if before.get(row.key) != row)
    return Held(told=told, rows=rows).to_json()


def _hold(request: HoldRequest, progress: Progress) -> tuple[str, ...]:
    module = models.resolve(request.model, classes=request.classes).module
    sample = torch.zeros(request.batch_size, *request.input_shape)
    told = []
    for dtype in request.dtypes:
        with compile(
            module,
            (sample,),
            dtype=dtype,
            threads=request.threads,
            database=request.database,
            compact_weights=request.compact_weights,
            use_zeros=False,
            tune=KNOWN,
            progress=progress,
        ) as compiled:
            told.append(f"dense in {dtype}: {compiled.tuning}")
    return tuple(told)
