"""The tuner: rows for every distinct layer of a model, and the options that a search chooses from."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter

from autosparse.database.table import TuningDatabase
from autosparse.devices.device import Device
from autosparse.progress import Progress
from autosparse.records import Status
from autosparse.tuning.asker import Asker, Reader, asking, in_one_state
from autosparse.tuning.forecast import count
from autosparse.tuning.narrowing import NO_TIME, UNKNOWN, Narrowing
from autosparse.tuning.options import options_of, why_unmeasured
from autosparse.tuning.request import (
    Skip,
    TuneForecast,
    TuneRequest,
    TuneResult,
    Work,
    considered,
    distinct,
    explore,
)
from autosparse.workers.worker import Worker

__all__ = ["Skip", "TuneForecast", "TuneRequest", "TuneResult", "count", "known", "tune"]


def tune(
    request: TuneRequest,
    device: Device,
    database: TuningDatabase,
    *,
    progress: Progress | None = None,
    worker: Worker | None = None,
) -> TuneResult:
    """Measures what is worth measuring and not known yet; every row is stored at once.

    Args:
        request: what to tune.
        device: of this host; its limits are measured if they are not known.
        database: where rows come from and go to.
        progress: told of every option, and asked whether to stop.
        worker: the measuring process, None for a new one.

    Raises:
        UsageError: more threads than the device has.
        DatabaseError: rows cannot be read or written.
        Stopped: a stop was requested; the same call goes on.
    """
    begun, progress = time.monotonic(), progress or Progress()
    device.check_threads(request.threads)
    device = device.with_limits(progress)
    works = distinct(request)
    total = considered(request, works, request.catalogue(device))
    with (
        asking(request, device, database, worker=worker, progress=progress) as asker,
        progress.step(f"tune {request.dtype} kernels", total) as step,
    ):

        def explored() -> Narrowing:
            step.done = 0.0
            found = Narrowing(asker, asker.bounds, asker.catalogue, step.advance)
            explore(found, request, works)
            return found

        narrowing = in_one_state(asker, explored, progress)
    return _result(request, works, narrowing, asker, total, time.monotonic() - begun)


def known(request: TuneRequest, device: Device, database: TuningDatabase) -> TuneResult:
    """Gives what is known already of a device that need not be here; measures nothing.

    What is not known is left out as if there had been no time for it, dense kernels too.

    Raises:
        DatabaseError: rows cannot be read.
    """
    begun, works = time.monotonic(), distinct(request)
    reader = Reader(request, device, database)
    bounds = None  # with those that it was measured by, the same rows are asked for
    if device.has_limits:
        bounds = device.bounds(request.threads, request.effective_policy, request.dtype)
    narrowing = Narrowing(reader, bounds, reader.catalogue)
    explore(narrowing, request, works)
    total = considered(request, works, reader.catalogue)
    found = _result(request, works, narrowing, reader, total, time.monotonic() - begun)
    left = Counter({skip.reason: skip.count for skip in found.skipped})
    left[UNKNOWN] += left.pop(NO_TIME, 0)
    skipped = tuple(
        Skip(reason=reason, count=number) for reason, number in left.most_common() if number
    )
    return dataclasses.replace(found, skipped=skipped, unfinished=())


def _result(
    request: TuneRequest,
    works: tuple[Work, ...],
    narrowing: Narrowing,
    asker: Asker | Reader,
    total: int,
    seconds: float,
) -> TuneResult:
    options = options_of(request, works, narrowing)
    rows = {key: row for key, row in {**asker.reused, **asker.timed}.items() if asker.counts(row)}
    late = {name for work in works if work.shape.key in narrowing.out_of_time for name in work.layers}
    return TuneResult(
        options=options,
        considered=total,
        timed=len(asker.timed),
        reused=len(asker.reused),
        beaten=asker.beaten,
        skipped=tuple(
            Skip(reason=reason, count=number) for reason, number in narrowing.skipped.most_common()
        ),
        failed=tuple(row for row in rows.values() if row.status is not Status.OK),
        rows=tuple(rows.values()),
        unmeasured={
            layer.name: why_unmeasured(layer, rows.values())
            for layer in request.layers
            if layer.name not in options
        },
        unfinished=tuple(layer.name for layer in request.layers if layer.name in late),
        seconds=seconds,
    )
