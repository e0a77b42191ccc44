"""Rows for a break-even map: per shape and N only what lies between losing and winning is timed."""

from __future__ import annotations

import time
from dataclasses import dataclass

from autosparse.break_even import Outcome, Timed, next_sparsity, outcome, timed
from autosparse.progress import Progress, Step
from autosparse.records import DENSE, HardwareProfile, LayerShape, Measurement, onexn
from autosparse.tuning.asker import Asker
from autosparse.tuning.autotune import with_limits
from autosparse.tuning.narrowing import Catalogue, Narrowing, steps
from autosparse.tuning.request import TuneRequest, distinct
from autosparse.tuning.roofline import Roofline
from autosparse.tuning.table import TuningDatabase
from autosparse.tuning.worker import Worker


@dataclass(frozen=True, slots=True, kw_only=True)
class Bisected:
    """What a bisection knows.

    Attributes:
        rows: the rows of every shape that it asked for.
        timed: rows measured now.
        reused: rows found in the database.
    """

    rows: tuple[Timed, ...]
    timed: int
    reused: int


def bisect(
    request: TuneRequest,
    hardware: HardwareProfile,
    database: TuningDatabase,
    *,
    progress: Progress | None = None,
    worker: Worker | None = None,
    catalogue: Catalogue | None = None,
) -> Bisected:
    """Finds, per distinct shape and N, where sparse begins to win; every row is stored at once.

    Dense is measured on every shape, sparse kernels on those that may be sparse, by the tuner's own
    ways: a race of all kernels at the first sparsity, of its finalists at the others.

    Args:
        request: layers, the N to try, and the grid of sparsities.
        hardware: this host; its limits are measured if they are not known.
        database: where rows come from and go to.
        progress: told of every N, and asked whether to stop.
        worker: the measuring process, None for a new one.
        catalogue: which kernels there are, None for the request's.

    Raises:
        UsageError: more threads than this process may use.
        DatabaseError: rows cannot be read or written.
        Stopped: a stop was requested; the same call goes on.
    """
    table = catalogue or request.catalogue()
    host = with_limits(request, hardware, progress)
    policy = request.effective_policy
    budget_us = request.time_budget_us
    measuring = worker or Worker()
    asker = Asker(
        request=request,
        hardware=host,
        database=database,
        catalogue=table,
        roofline=Roofline(host.cpu, request.threads, policy, request.dtype),
        worker=measuring,
        deadline=float("inf") if budget_us is None else time.monotonic() + budget_us / 1e6,
    )
    works = distinct(request)
    block_ns = sorted(set(request.block_ns))
    total = sum(1 + len(block_ns) * work.is_sparse for work in works)
    try:
        with (progress or Progress()).step("find break-even sparsities", total) as step:
            narrowing = Narrowing(asker, asker.roofline, table)
            for work in works:
                narrowing.dense(work.shape)
                step.advance()
                for block_n in block_ns if work.is_sparse else ():
                    _bisect_one(narrowing, table, request, work.shape, block_n, step)
    finally:
        if worker is None:
            measuring.close()
    rows = {**asker.reused, **asker.timed}
    return Bisected(rows=tuple(timed(rows.values())), timed=len(asker.timed), reused=len(asker.reused))


def _bisect_one(
    narrowing: Narrowing,
    catalogue: Catalogue,
    request: TuneRequest,
    shape: LayerShape,
    block_n: int,
    step: Step,
) -> None:
    dense = narrowing.rows[shape.key].best(DENSE.group_out, -1)
    # Of sparsities that keep equally many blocks the least stands for all.
    grid = sorted(
        each.sparsities[0] for each in steps(shape, request.sparsities) if each.kept < shape.in_channels
    )
    known: list[tuple[float, bool]] = []
    if dense is not None and catalogue.kernels(shape, onexn(block_n)):
        while (sparsity := next_sparsity(grid, known)) is not None:
            row = narrowing.at(shape, block_n, sparsity)
            if row is None:
                break  # no kernel worked, or the time budget is used up
            known.append((sparsity, _wins(row, dense)))
    step.advance()


def _wins(sparse: Measurement, dense: Measurement) -> bool:
    [one], [other] = timed([sparse]), timed([dense])
    return outcome(one, other) is Outcome.WINS
