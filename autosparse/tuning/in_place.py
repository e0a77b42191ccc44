"""Rows for the structures that one model really has, within a time budget."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from numpy.typing import NDArray

from autosparse.database.table import TuningDatabase
from autosparse.devices.device import Device, Kernel
from autosparse.patterns import family_of
from autosparse.progress import Progress
from autosparse.records import (
    DENSE,
    LayerShape,
    Measurement,
    Pattern,
    Status,
)
from autosparse.statistics import median_ci
from autosparse.tuning.asker import asking, in_one_state, key_of
from autosparse.tuning.narrowing import Narrowing, Option
from autosparse.tuning.request import TuneRequest
from autosparse.version import __version__
from autosparse.workers.worker import Worker


@dataclass(frozen=True, slots=True)
class Structure:
    """One way to store one layer: dense, or with a share of its blocks pruned."""

    shape: LayerShape
    pattern: Pattern = DENSE
    sparsity: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedInPlace:
    """What became of it.

    Attributes:
        timed: rows measured now.
        reused: rows found in the database.
        late: whether the time was used up before all was measured.
        state: state of the host that the rows are of.
        seconds: wall time.
    """

    timed: int
    reused: int
    late: bool
    state: str
    seconds: float


def tune_in_place(
    request: TuneRequest,
    structures: Iterable[Structure],
    device: Device,
    database: TuningDatabase,
    *,
    progress: Progress | None = None,
    worker: Worker | None = None,
) -> TunedInPlace:
    """Measures the kernels of given structures, costliest layers first; every row is stored at once.

    Args:
        request: threads, type, policy and the time budget; its grid of structures plays no part.
        structures: what to measure; equal ones are measured once.
        device: of this host; its limits are measured if they are not known.
        database: where rows come from and go to.
        progress: told of every structure, and asked whether to stop.
        worker: the measuring process, None for a new one.

    Raises:
        UsageError: more threads than the device has.
        DatabaseError: rows cannot be read or written.
        Stopped: a stop was requested; the same call goes on.
    """
    begun, progress = time.monotonic(), progress or Progress()
    todo = sorted(set(structures), key=lambda one: (-one.shape.flops, one.shape.key, one.pattern.name))
    device.check_threads(request.threads)
    device = device.with_limits(progress)
    with (
        asking(request, device, database, worker=worker, progress=progress) as asker,
        progress.step(f"tune {request.dtype} layers in place", len(todo)) as step,
    ):

        def measured() -> Narrowing:
            step.done = 0.0
            found = Narrowing(asker, asker.bounds, asker.catalogue)
            for one in todo:
                if one.pattern.is_dense:
                    found.dense(one.shape)
                else:
                    found.at(one.shape, one.pattern, one.sparsity)
                step.advance(1, one.shape.key)
            return found

        narrowing = in_one_state(asker, measured, progress)
    return TunedInPlace(
        timed=len(asker.timed),
        reused=len(asker.reused),
        late=bool(narrowing.out_of_time),
        state=asker.state,
        seconds=time.monotonic() - begun,
    )


def row_inside(
    structure: Structure,
    kernel: str,
    times_ns: NDArray[Any],
    request: TuneRequest,
    device: Device,
    state: str,
) -> Measurement:
    """Makes the row of a kernel from what it took inside a whole model.

    Args:
        structure: what it ran.
        kernel: its name.
        times_ns: one wall time per run.
        request: type, threads and policy of the row.
        device: what ran it.
        state: state that it was in.
    """
    shape, pattern = structure.shape, structure.pattern
    kept = family_of(pattern).kept(pattern, shape.weight_shape, structure.sparsity)
    option = Option(
        shape, pattern, kept, structure.sparsity, _named(kernel, structure, request, device)
    )
    median, low, high = (value / 1e3 for value in median_ci(times_ns))
    return Measurement(
        key=key_of(option, request, device, request.catalogue(device), state),
        status=Status.OK,
        median_us=median,
        ci_low_us=low,
        ci_high_us=high,
        repeats=int(times_ns.size),
        sparsity=structure.sparsity,
        flops_kept=shape.kept_flops(option.kept_inputs),
        message="timed inside a whole model",
        measured_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        version=__version__,
    )


def _named(kernel: str, structure: Structure, request: TuneRequest, device: Device) -> Kernel:
    able = device.kernels_for(structure.shape, structure.pattern, request.dtype)
    return next(each for each in able if each.name == kernel)
