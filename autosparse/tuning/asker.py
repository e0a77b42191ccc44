"""Rows for a narrowing: those that are known, and those that have to be measured."""

from __future__ import annotations

import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from autosparse.database.table import TuningDatabase
from autosparse.devices.device import Bounds, Device
from autosparse.measuring.conditions import is_busy_accepted
from autosparse.measuring.lock import measuring
from autosparse.measuring.states import UNMARKED, Prober, label_of
from autosparse.measuring.stopwatch import PATIENCE_S
from autosparse.progress import Progress
from autosparse.records import Measurement, MeasurementKey, Status
from autosparse.tuning.layer_job import LayerJob, Outcome
from autosparse.tuning.narrowing import Catalogue, Option
from autosparse.tuning.request import TuneRequest
from autosparse.version import __version__
from autosparse.workers.worker import Answer, Worker

log = logging.getLogger(__name__)

T = TypeVar("T")

# Making, packing and checking random weights, on a slow machine that does much else besides.
_BUILD_BYTES_PER_S = 20e6
# Measurements that are taken twice because something else ran on the host; after so many it is plain
# that the host is busy, and rows only say so. Both are for a host that is left alone: see
# `History.undisturbed_share`.
_BUSY = 30
# How long the host may be away from the wanted state before rows of the other one are taken.
_AWAY_S = 3.0
# For a neighbour who leaves the processors alone now and then; one who never does is not waited for.
_SLOW_S = 60.0
_ENDINGS = {"error": Status.ERROR, "crashed": Status.CRASHED, "timeout": Status.TIMEOUT}


class StateLeft(Exception):
    """The host has left the state that rows are wanted in, for long.

    Attributes:
        state: the one that it is in.
        is_new: whether the row that was taken in it instead was not known before.
    """

    def __init__(self, state: str, is_new: bool) -> None:
        super().__init__(state)
        self.state = state
        self.is_new = is_new


@dataclass(slots=True)
class Asker:
    """Answers a narrowing's questions: from the database, or else by measuring.

    Attributes:
        request: what is tuned.
        device: what is measured.
        database: where rows come from and go to.
        catalogue: which kernels there are.
        bounds: for the plausibility of figures.
        worker: measures.
        deadline: monotonic clock value after which nothing is measured, or dense kernels only.
        prober: what is known of the host's states; None where there is nothing to tell.
        state: state of the host that rows are wanted in.
        patience_s: how long to wait for it.
        slow_left_s: how long to wait, all in all, while somebody slows the processors.
        repeats_left: disturbed measurements that are taken once more.
        progress: asked whether to stop while a measurement is under way.
    """

    request: TuneRequest
    device: Device
    database: TuningDatabase
    catalogue: Catalogue
    bounds: Bounds
    worker: Worker
    deadline: float
    prober: Prober | None = None
    state: str = ""
    patience_s: float = _AWAY_S
    slow_left_s: float = _SLOW_S
    repeats_left: int = _BUSY
    progress: Progress = field(default_factory=Progress)
    known: dict[MeasurementKey, Measurement] = field(default_factory=dict)
    timed: dict[MeasurementKey, Measurement] = field(default_factory=dict)
    reused: dict[MeasurementKey, Measurement] = field(default_factory=dict)
    beaten: int = 0

    def __post_init__(self) -> None:
        rows = known_rows(self.request, self.device, self.database)
        split_ns = self.prober.history.split_ns if self.prober else None
        self.known = {row.key: row for row in map(functools.partial(in_state, split_ns), rows)}

    def __call__(self, option: Option, rival_us: float | None) -> Measurement | None:
        """Gives an option's row; None if it is not known and time is used up."""
        key = key_of(option, self.request, self.device, self.catalogue, self.state)
        if found := self.known.get(key):
            self.reused[key] = found
            return found
        exempt = option.pattern.is_dense and self.request.dense_anyway
        if time.monotonic() > self.deadline and not exempt:
            return None
        row = self._measure(option, key, rival_us)
        if row.status is Status.UNSTABLE or (row.disturbed and self.repeats_left > 0):
            self.repeats_left -= bool(row.disturbed)
            row = min(row, self._measure(option, key, rival_us), key=_doubt)
        # A row of a busy host, and one that failed and shall be tried again, gives way to the new one.
        self.database.put(row, replace=True)
        is_new = row.key not in self.known
        self.known[row.key] = self.timed[row.key] = row
        if row.key.state != self.state and row.status is Status.OK:
            raise StateLeft(row.key.state, is_new)
        return row

    def counts(self, row: Measurement) -> bool:
        """Whether a row may stand beside the others: failures do, figures of another state do not."""
        return row.status is not Status.OK or row.key.state == self.state

    def _measure(self, option: Option, key: MeasurementKey, rival_us: float | None) -> Measurement:
        job = LayerJob(
            shape=option.shape,
            pattern=option.pattern,
            sparsity=option.sparsity,
            kernel=option.kernel.name,
            config=option.config,
            device=self.device.kind,
            dtype=self.request.dtype,
            threads=self.request.threads,
            policy=self.request.effective_policy,
            rival_us=rival_us,
            floor_us=self.bounds.bound_us(option.shape, option.kept_inputs, option.kernel),
            cache_bytes=self.device.cache_bytes,
            state=self.state if self.prober else None,
            marks=self.prober.held_against() if self.prober else UNMARKED,
            patience_s=self.patience_s,
            slow_patience_s=min(PATIENCE_S, self.slow_left_s),
        )
        answer = self.worker.call(job.to_json(), timeout_s(job), self.progress)
        outcome = outcome_of(answer)
        self.beaten += outcome.beaten
        self.slow_left_s = max(0.0, self.slow_left_s - outcome.slowed_s)
        if self.prober is not None:
            self.prober.taken_ns.extend(outcome.probes_ns)
            self.prober.taken_paces.extend(outcome.paces)
        if outcome.status is not Status.OK:
            log.warning("%s on %s: %s %s", key.kernel, key.shape, outcome.status, outcome.message)
        ok = outcome.status is Status.OK
        return Measurement(
            key=dataclasses.replace(key, state=outcome.state.label) if ok else key,
            status=outcome.status,
            median_us=outcome.median_us,
            ci_low_us=outcome.ci_low_us,
            ci_high_us=outcome.ci_high_us,
            repeats=outcome.repeats,
            sparsity=option.sparsity,
            flops_kept=option.shape.kept_flops(option.kept_inputs),
            message=outcome.message,
            measured_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            version=__version__,
            handover_ns=outcome.state.handover_ns,
            disturbed=outcome.disturbed,
        )


class Reader:
    """Answers a narrowing's questions from the database alone.

    Args:
        request: what is tuned.
        device: whose rows are asked for; it need not be here.
        database: where they come from.
    """

    beaten = 0

    def __init__(self, request: TuneRequest, device: Device, database: TuningDatabase) -> None:
        self._request, self._device = request, device
        self.catalogue = request.catalogue(device)
        history = device.history(request.threads)
        self._state = history.usual
        rows = known_rows(request, device, database)
        self._known = {row.key: row for row in map(functools.partial(in_state, history.split_ns), rows)}
        self.timed: dict[MeasurementKey, Measurement] = {}
        self.reused: dict[MeasurementKey, Measurement] = {}

    def __call__(self, option: Option, rival_us: float | None) -> Measurement | None:
        """Gives an option's row; None if it is not known."""
        key = key_of(option, self._request, self._device, self.catalogue, self._state)
        if found := self._known.get(key):
            self.reused[key] = found
        return found

    def counts(self, row: Measurement) -> bool:
        """Whether a row may stand beside the others: all do."""
        return True


@contextmanager
def asking(
    request: TuneRequest,
    device: Device,
    database: TuningDatabase,
    *,
    worker: Worker | None,
    progress: Progress,
) -> Iterator[Asker]:
    """Gives who answers for one device of this host, which is measured meanwhile by nobody else.

    Args:
        request: what is tuned.
        device: with its limits.
        database: where rows come from and go to.
        worker: the measuring process, None for a new one.
        progress: told for whom we wait, and asked between measurements whether to stop.
    """
    begun, budget_us = time.monotonic(), request.time_budget_us
    with ExitStack() as stack:
        stack.enter_context(measuring(f"{request.dtype} kernels", progress, device=device.lock))
        if worker is None:
            worker = stack.enter_context(Worker(environment=device.environment))
        prober = device.prober(request.threads)
        stack.callback(device.keep, prober)
        alone = prober.history.undisturbed_share if prober else 1.0
        yield Asker(
            request=request,
            device=device,
            database=database,
            catalogue=request.catalogue(device),
            bounds=device.bounds(request.threads, request.effective_policy, request.dtype),
            worker=worker,
            deadline=float("inf") if budget_us is None else begun + budget_us / 1e6,
            prober=prober,
            state=prober.history.usual if prober else "",
            slow_left_s=0.0 if is_busy_accepted() else alone * _SLOW_S,
            repeats_left=round(alone * _BUSY),
            progress=progress,
        )


def in_one_state(asker: Asker, work: Callable[[], T], progress: Progress) -> T:
    """Has work done that asks for rows, again if the host leaves the state that they are wanted in.

    Rows of one state are not lost when the other one is wanted: work that is done again finds those of
    its state, and goes on from there. So nothing is gained by waiting for long, and the state whose
    rows are complete first is the one that counts. Only where a change brought nothing new does the
    host get twice as long to come back.
    """
    while True:
        try:
            return work()
        except StateLeft as left:
            progress.log(
                f"the host has left the state {asker.state!r} for over {asker.patience_s:g} s; "
                f"rows are taken in the state {left.state!r} from now on"
            )
            asker.state = left.state
            if not left.is_new:
                asker.patience_s *= 2


def _doubt(row: Measurement) -> tuple[bool, bool]:
    return row.status is not Status.OK, bool(row.disturbed)


def timeout_s(job: LayerJob) -> float:
    """Gives the time after which a job counts as hung: the policy's, and more for many weights."""
    waiting_s = job.slow_patience_s + (job.patience_s if job.state is not None else 0.0)
    return job.policy.timeout_s + waiting_s + 4 * job.shape.weights / _BUILD_BYTES_PER_S


def outcome_of(answer: Answer) -> Outcome:
    """Reads what the measuring process said, or how it ended."""
    if answer.outcome is None:
        return Outcome(status=_ENDINGS[answer.ending], message=answer.message)
    return Outcome.from_json(answer.outcome)


def key_of(
    option: Option,
    request: TuneRequest,
    device: Device,
    catalogue: Catalogue,
    state: str,
) -> MeasurementKey:
    """Gives the key of an option's row in a state of the host."""
    return MeasurementKey(
        hardware_id=device.id,
        kernel=option.kernel.name,
        kernel_hash=catalogue.source_hash(option.kernel),
        shape=option.shape.key,
        pattern=option.pattern.name,
        kept=option.kept,
        config=option.config,
        dtype=request.dtype,
        threads=request.threads,
        policy=request.effective_policy.id,
        state=state,
        facts=device.facts(option.kernel.name),
    )


def of_today(rows: Sequence[Measurement], device: Device) -> list[Measurement]:
    """Gives the rows that hold under a device's facts of today, under these facts.

    Rows that were taken under unknown ones are among them, unless there is one of today beside.
    """
    today = {row.key: dataclasses.replace(row.key, facts=device.facts(row.key.kernel)) for row in rows}
    own = {key for key, now in today.items() if key == now}
    found = []
    for row in rows:
        now = today[row.key]
        if row.key == now:
            found.append(row)
        elif row.key.holds_under(now.facts) and now not in own:
            found.append(dataclasses.replace(row, key=now))
    return found


def in_state(split_ns: float | None, row: Measurement) -> Measurement:
    """Gives a row with the state that it was taken in, where that was learnt only afterwards."""
    if row.key.state or not (label := label_of(row.handover_ns, split_ns)):
        return row
    return dataclasses.replace(row, key=dataclasses.replace(row.key, state=label))


def known_rows(request: TuneRequest, device: Device, database: TuningDatabase) -> list[Measurement]:
    """Reads the rows that a request can reuse: none of a host on which something else ran.

    Nor are those among them that were taken under other facts of the day.
    """
    rows = database.rows(
        hardware_id=device.id,
        dtype=request.dtype,
        threads=request.threads,
        policy=request.effective_policy.id,
    )
    usable = [
        row
        for row in rows
        if not row.disturbed and (row.status is Status.OK or not request.retry_failed)
    ]
    return of_today(usable, device)
