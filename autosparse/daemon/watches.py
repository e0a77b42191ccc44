"""Watches: schedules that check a deployed artifact again and again, and how it stands with each.

A watch is a schedule of the verb `check` and nothing else; how it stands is told by its last job.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from autosparse.errors import UsageError
from autosparse.jobs.alerts import last_ended
from autosparse.jobs.records import Job
from autosparse.jobs.states import State
from autosparse.jobs.store import Store
from autosparse.pipeline.results.checked import Against, Verdict
from autosparse.schedules.schedule import Schedule
from autosparse.storage.serial import Record
from autosparse.units import parse_duration_us

VERB = "check"
CRON = "0 * * * *"
JITTER_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked(Record):
    """What is kept of a check as the outcome of its job. Latencies are milliseconds.

    What a check that failed could not find out is that of the one before it.

    Attributes:
        verdict: of this check; ``unknown`` if it failed.
        since_s: when that verdict began, seconds since the epoch.
        decided: ``met`` or ``missed``, whichever was the verdict last; empty before the first.
        budget_ms: what the latency shall be at most.
        model: the artifact's model; may be empty.
        hardware_id: host of the measurement.
        measured_at_s: when it was measured; None if it never was.
        median_ms: as measured then.
        interval_ms: its 95 % interval.
        against: how it stands against when the artifact was made.
        disturbed: what else ran on the host; empty if nothing did.
        sentence: the verdict in one sentence.
    """

    verdict: Verdict | Literal["unknown"] = "unknown"
    since_s: float = 0.0
    decided: Literal["met", "missed", ""] = ""
    budget_ms: float | None = None
    model: str = ""
    hardware_id: str = ""
    measured_at_s: float | None = None
    median_ms: float | None = None
    interval_ms: tuple[float, float] | None = None
    against: Against = "unknown"
    disturbed: str = ""
    sentence: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch(Record):
    """An artifact that is watched, and how it stands.

    Attributes:
        schedule: that checks it.
        artifact: the file.
        budget_ms: what its latency shall be at most.
        checked: what the last check found; None before the first has ended.
        job_id: of the last check; None before the first.
        problem: why the last check says nothing; empty if it says something.
    """

    schedule: Schedule
    artifact: str
    budget_ms: float
    checked: Checked | None = None
    job_id: int | None = None
    problem: str = ""

    @property
    def verdict(self) -> str:
        """``met``, ``missed``, ``open``; ``unknown`` before the first check and after a failed one."""
        return "unknown" if self.checked is None else self.checked.verdict

    @property
    def since_s(self) -> float | None:
        """When that verdict began, seconds since the epoch; None before the first check."""
        return None if self.checked is None else self.checked.since_s


def checked_of(job: Job) -> Checked | None:
    """Gives what is kept of a check; None if nothing is."""
    try:
        return None if job.outcome is None else Checked.from_json(job.outcome)
    except UsageError:  # of another version
        return None


def watches_of(store: Store, schedules: list[Schedule]) -> list[Watch]:
    """Gives the watches among schedules, and how they stand.

    Raises:
        DatabaseError: the database cannot be read.
    """
    found = [schedule for schedule in schedules if schedule.request.verb == VERB]
    last = last_ended(store, [schedule.id for schedule in found])
    return [_watch(schedule, last.get(schedule.id)) for schedule in found]


def _watch(schedule: Schedule, last: Job | None) -> Watch:
    settings = schedule.request.settings
    budget_us = parse_duration_us(str(settings["latency_budget"]), what="latency_budget")
    failed = last is not None and last.state == State.FAILED
    return Watch(
        schedule=schedule,
        artifact=str(settings["artifact"]),
        budget_ms=budget_us / 1e3,
        checked=None if last is None else checked_of(last),
        job_id=None if last is None else last.id,
        problem=last.message if last is not None and failed else "",
    )
