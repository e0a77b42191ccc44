"""Rows for a break-even map: only what lies between losing and winning is timed."""

from __future__ import annotations

from dataclasses import dataclass

from autosparse.database.table import TuningDatabase
from autosparse.devices.device import Device
from autosparse.plans.break_even import Outcome, Timed, next_sparsity, outcome, timed
from autosparse.progress import Progress, Step
from autosparse.records import LayerShape, Measurement, Pattern
from autosparse.tuning.asker import asking, in_one_state
from autosparse.tuning.narrowing import Catalogue, Narrowing, steps
from autosparse.tuning.request import TuneRequest, distinct
from autosparse.workers.worker import Worker


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
    device: Device,
    database: TuningDatabase,
    *,
    progress: Progress | None = None,
    worker: Worker | None = None,
) -> Bisected:
    """Finds, per distinct shape and pattern, where sparse begins to win; every row is stored at once.

    Dense is measured on every shape, sparse kernels on those that may be sparse, by the tuner's own
    ways: a race of all kernels at the first sparsity, of its finalists at the others.

    Args:
        request: layers, the patterns to try, and the grid of sparsities.
        device: of this host; its limits are measured if they are not known.
        database: where rows come from and go to.
        progress: told of every pattern, and asked whether to stop.
        worker: the measuring process, None for a new one.

    Raises:
        UsageError: more threads than the device has.
        DatabaseError: rows cannot be read or written.
        Stopped: a stop was requested; the same call goes on.
    """
    progress = progress or Progress()
    device.check_threads(request.threads)
    device = device.with_limits(progress)
    works = distinct(request)
    total = sum(1 + len(work.patterns) for work in works)
    with (
        asking(request, device, database, worker=worker, progress=progress) as asker,
        progress.step("find break-even sparsities", total) as step,
    ):

        def bisected() -> None:
            step.done = 0.0
            narrowing = Narrowing(asker, asker.bounds, asker.catalogue)
            for work in works:
                narrowing.dense(work.shape)
                step.advance()
                for pattern in work.patterns:
                    _bisect_one(narrowing, asker.catalogue, request, work.shape, pattern, step)

        in_one_state(asker, bisected, progress)
    rows = {key: row for key, row in {**asker.reused, **asker.timed}.items() if asker.counts(row)}
    return Bisected(rows=tuple(timed(rows.values())), timed=len(asker.timed), reused=len(asker.reused))


def _bisect_one(
    narrowing: Narrowing,
    catalogue: Catalogue,
    request: TuneRequest,
    shape: LayerShape,
    pattern: Pattern,
    step: Step,
) -> None:
    dense = narrowing.rows[shape.key].dense
    # Of sparsities that keep as much the least stands for all.
    grid = sorted(
        each.sparsities[0] for each in steps(shape, pattern, request.sparsities) if each.prunes
    )
    known: list[tuple[float, bool]] = []
    if dense is not None and catalogue.kernels(shape, pattern):
        while (sparsity := next_sparsity(grid, known)) is not None:
            row = narrowing.at(shape, pattern, sparsity)
            if row is None:
                break  # no kernel worked, or the time budget is used up
            known.append((sparsity, _wins(row, dense)))
    step.advance()


def _wins(sparse: Measurement, dense: Measurement) -> bool:
    [one], [other] = timed([sparse]), timed([dense])
    return outcome(one, other) is Outcome.WINS
