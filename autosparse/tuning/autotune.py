"""The tuner: rows for every distinct layer of a model, and the options that a search chooses from."""

from __future__ import annotations

import time

from autosparse import limits
from autosparse.errors import UsageError
from autosparse.progress import Progress
from autosparse.records import HardwareProfile, Status
from autosparse.tuning.asker import Asker
from autosparse.tuning.forecast import count
from autosparse.tuning.narrowing import Catalogue, Narrowing
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
from autosparse.tuning.roofline import Roofline
from autosparse.tuning.table import TuningDatabase
from autosparse.tuning.worker import Worker

__all__ = ["Skip", "TuneForecast", "TuneRequest", "TuneResult", "count", "tune"]


def tune(
    request: TuneRequest,
    hardware: HardwareProfile,
    database: TuningDatabase,
    *,
    progress: Progress | None = None,
    worker: Worker | None = None,
    catalogue: Catalogue | None = None,
) -> TuneResult:
    """Measures what is worth measuring and not known yet; every row is stored at once.

    Args:
        request: what to tune.
        hardware: this host; its limits are measured if they are not known.
        database: where rows come from and go to.
        progress: told of every option, and asked whether to stop.
        worker: the measuring process, None for a new one.
        catalogue: which kernels there are, None for the request's.

    Raises:
        UsageError: more threads than this process may use.
        DatabaseError: rows cannot be read or written.
        Stopped: a stop was requested; the same call goes on.
    """
    begun = time.monotonic()
    table = catalogue or request.catalogue()
    host = with_limits(request, hardware, progress)
    policy = request.effective_policy
    works = distinct(request)
    total = considered(request, works, table)
    budget_us = request.time_budget_us
    measuring = worker or Worker()
    asker = Asker(
        request=request,
        hardware=host,
        database=database,
        catalogue=table,
        roofline=Roofline(host.cpu, request.threads, policy, request.dtype),
        worker=measuring,
        deadline=float("inf") if budget_us is None else begun + budget_us / 1e6,
    )
    try:
        with (progress or Progress()).step(f"tune {request.dtype} kernels", total) as step:
            narrowing = Narrowing(asker, asker.roofline, table, step.advance)
            explore(narrowing, request, works)
    finally:
        if worker is None:
            measuring.close()
    return _result(request, works, narrowing, asker, total, time.monotonic() - begun)


def with_limits(
    request: TuneRequest, hardware: HardwareProfile, progress: Progress | None = None
) -> HardwareProfile:
    """Gives the host with measured limits, and refuses more threads than it has cores."""
    if request.threads > hardware.cpu.cores_usable:
        raise UsageError(
            f"threads must not exceed the {hardware.cpu.cores_usable} cores this process may use, "
            f"but got {request.threads}"
        )
    if hardware.cpu.f32_gflops_core and hardware.cpu.read_gbytes_per_s:
        return hardware
    return limits.profile(progress=progress)


def _result(
    request: TuneRequest,
    works: tuple[Work, ...],
    narrowing: Narrowing,
    asker: Asker,
    total: int,
    seconds: float,
) -> TuneResult:
    options = options_of(request, works, narrowing)
    rows = {**asker.reused, **asker.timed}
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
