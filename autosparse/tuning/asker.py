"""Rows for a narrowing: those that are known, and those that have to be measured."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime

import autosparse
from autosparse.records import HardwareProfile, Measurement, MeasurementKey, Status
from autosparse.tuning.layer_job import LayerJob, Outcome
from autosparse.tuning.narrowing import Catalogue, Option
from autosparse.tuning.request import TuneRequest
from autosparse.tuning.roofline import Roofline, kept_flops
from autosparse.tuning.table import TuningDatabase
from autosparse.tuning.worker import Answer, Worker

log = logging.getLogger(__name__)

# Making, packing and checking random weights, on a slow machine that does much else besides.
_BUILD_BYTES_PER_S = 20e6
_ENDINGS = {"error": Status.ERROR, "crashed": Status.CRASHED, "timeout": Status.TIMEOUT}


@dataclass(slots=True)
class Asker:
    """Answers a narrowing's questions: from the database, or else by measuring.

    Attributes:
        request: what is tuned.
        hardware: the host.
        database: where rows come from and go to.
        catalogue: which kernels there are.
        roofline: bounds, for the plausibility of figures.
        worker: measures.
        deadline: monotonic clock value after which only dense kernels are measured.
    """

    request: TuneRequest
    hardware: HardwareProfile
    database: TuningDatabase
    catalogue: Catalogue
    roofline: Roofline
    worker: Worker
    deadline: float
    known: dict[MeasurementKey, Measurement] = field(default_factory=dict)
    timed: dict[MeasurementKey, Measurement] = field(default_factory=dict)
    reused: dict[MeasurementKey, Measurement] = field(default_factory=dict)
    beaten: int = 0

    def __post_init__(self) -> None:
        self.known = known_rows(self.request, self.hardware, self.database)

    def __call__(self, option: Option, rival_us: float | None) -> Measurement | None:
        """Gives an option's row; None if it is not known and time is used up."""
        key = key_of(option, self.request, self.hardware, self.catalogue)
        if found := self.known.get(key):
            self.reused[key] = found
            return found
        if time.monotonic() > self.deadline and not option.pattern.is_dense:
            return None
        row = self._measure(option, key, rival_us)
        if row.status is Status.UNSTABLE:
            row = self._measure(option, key, rival_us)
        self.database.put(row, replace=self.request.retry_failed)
        self.known[key] = self.timed[key] = row
        return row

    def _measure(self, option: Option, key: MeasurementKey, rival_us: float | None) -> Measurement:
        job = LayerJob(
            shape=option.shape,
            pattern=option.pattern,
            sparsity=option.sparsity,
            kernel=option.kernel.name,
            dtype=self.request.dtype,
            threads=self.request.threads,
            policy=self.roofline.policy,
            rival_us=rival_us,
            floor_us=self.roofline.bound_us(option.shape, option.kept),
            l3_bytes=self.hardware.cpu.l3_bytes,
        )
        answer = self.worker.call(job.to_json(), timeout_s(job))
        outcome = outcome_of(answer)
        self.beaten += outcome.beaten
        if outcome.status is not Status.OK:
            log.warning("%s on %s: %s %s", key.kernel, key.shape, outcome.status, outcome.message)
        return Measurement(
            key=key,
            status=outcome.status,
            median_us=outcome.median_us,
            ci_low_us=outcome.ci_low_us,
            ci_high_us=outcome.ci_high_us,
            repeats=outcome.repeats,
            sparsity=option.sparsity,
            flops_kept=kept_flops(option.shape, option.kept),
            message=outcome.message,
            measured_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
            version=autosparse.__version__,
        )


def timeout_s(job: LayerJob) -> float:
    """Gives the time after which a job counts as hung: the policy's, and more for many weights."""
    return job.policy.timeout_s + 4 * job.shape.weights / _BUILD_BYTES_PER_S


def outcome_of(answer: Answer) -> Outcome:
    """Reads what the measuring process said, or how it ended."""
    if answer.outcome is None:
        return Outcome(status=_ENDINGS[answer.ending], message=answer.message)
    return Outcome.from_json(answer.outcome)


def key_of(
    option: Option, request: TuneRequest, hardware: HardwareProfile, catalogue: Catalogue
) -> MeasurementKey:
    """Gives the key of an option's row."""
    return MeasurementKey(
        hardware_id=hardware.hardware_id,
        kernel=option.kernel.name,
        kernel_hash=catalogue.source_hash(option.kernel),
        shape=option.shape.key,
        pattern=option.pattern.name,
        kept=option.kept,
        config="",
        dtype=request.dtype,
        threads=request.threads,
        policy=request.effective_policy.id,
    )


def known_rows(
    request: TuneRequest, hardware: HardwareProfile, database: TuningDatabase
) -> dict[MeasurementKey, Measurement]:
    """Reads the rows that a request can reuse."""
    rows = database.rows(
        hardware_id=hardware.hardware_id,
        dtype=request.dtype,
        threads=request.threads,
        policy=request.effective_policy.id,
    )
    return {row.key: row for row in rows if row.status is Status.OK or not request.retry_failed}
