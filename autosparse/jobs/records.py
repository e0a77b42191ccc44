"""What is asked, what became of it, and who works on it. Times are seconds since the epoch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autosparse.errors import UsageError, got
from autosparse.jobs.states import OPEN, State
from autosparse.storage.serial import Record

LOWEST, HIGHEST = -100, 100
MOST_RETRIES = 100
_LONGEST_LABEL = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions(Record):
    """How a job is treated; what it does is in its settings.

    Attributes:
        priority: -100 to 100; of two that wait, the higher one runs first, of equals the older one.
        time_limit_s: time that its process may take, all attempts together; None is no limit. It is
            then stopped, and goes on when it is resumed.
        retries: how often it is begun again, after a while, when its process dies by no fault of its
            own: killed, or its host lost.
        label: a few words of the submitter's own.
        hardware_id: the only kind of host that it may run on; empty is any.
        not_before_s: when it may begin; None is at once.
    """

    priority: int = 0
    time_limit_s: float | None = None
    retries: int = 3
    label: str = ""
    hardware_id: str = ""
    not_before_s: float | None = None

    def __post_init__(self) -> None:
        _require(LOWEST <= self.priority <= HIGHEST, "priority", "-100 to 100", self.priority)
        _require(0 <= self.retries <= MOST_RETRIES, "retries", f"0 to {MOST_RETRIES}", self.retries)
        limit = self.time_limit_s
        _require(limit is None or limit > 0, "time limit", "longer than no time", limit)
        _require(
            len(self.label) <= _LONGEST_LABEL and self.label.isprintable(),
            "label",
            f"one line of at most {_LONGEST_LABEL} characters",
            self.label,
        )


def _require(holds: bool, what: str, rule: str, value: object) -> None:
    if not holds:
        raise UsageError(f"{what} must be {rule}, but got {got(value)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobRequest(Record):
    """What is asked for.

    Attributes:
        verb: of the command line, one of `verbs.VERBS`.
        settings: its flags by their keys, plain values.
        options: how it is treated.
    """

    verb: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    options: JobOptions = field(default_factory=JobOptions)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot(Record):
    """How far a running job is.

    Attributes:
        at_s: when it was.
        stage: of the job.
        step: of the stage.
        done: units of the step that are finished.
        total: units in all, None while unknown.
        message: its last word.
        left_s: how long the whole job will take from then on; None while unknown.
        left_as: what did the same earlier and tells so, a run or a job; empty while unknown.
        step_left_s: how long the step will take from then on by its own speed; None while unknown.
    """

    at_s: float
    stage: str = ""
    step: str = ""
    done: float = 0.0
    total: float | None = None
    message: str = ""
    left_s: float | None = None
    left_as: str = ""
    step_left_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job(Record):
    """A job and what became of it so far.

    Attributes:
        id: its number.
        request: what was asked.
        state: where it stands.
        submitted_at_s: when it was asked for.
        changed_at_s: of the last transition.
        ready_at_s: when it may begin, once it waits.
        attempt: how often a process was begun for it.
        failures: how many of them died by no fault of their own.
        owner: id of the daemon that works on it, or did last; empty before.
        lease_until_s: until when the owner counts as alive without a word of it.
        ran_s: time that its processes took.
        is_cancelling: its cancellation was asked for while it ran.
        exit_code: of its process, None before it has ended.
        message: why it is where it is.
        run: name of its run's folder; empty before it has one.
        snapshot: how far it is.
        outcome: what of its result others ask for, such as whether a budget was met; None without.
        schedule_id: of the schedule that made it; None for one that was submitted.
        due_at_s: when the schedule said.
    """

    id: int
    request: JobRequest
    state: State
    submitted_at_s: float
    changed_at_s: float
    ready_at_s: float = 0.0
    attempt: int = 0
    failures: int = 0
    owner: str = ""
    lease_until_s: float | None = None
    ran_s: float = 0.0
    is_cancelling: bool = False
    exit_code: int | None = None
    message: str = ""
    run: str = ""
    snapshot: Snapshot | None = None
    outcome: Mapping[str, Any] | None = None
    schedule_id: int | None = None
    due_at_s: float | None = None

    @property
    def is_open(self) -> bool:
        """Whether its end lies ahead."""
        return self.state in OPEN


@dataclass(frozen=True, slots=True, kw_only=True)
class Transition(Record):
    """One change of a job's state.

    Attributes:
        job_id: the job.
        at_s: when.
        before: the state it left; None where it was made.
        after: the state it came into.
        attempt: the number of its process, 0 before the first.
        daemon: id of the daemon that did it; empty if a request did.
        reason: why.
    """

    job_id: int
    at_s: float
    before: State | None
    after: State
    attempt: int = 0
    daemon: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Daemon(Record):
    """A process that works on jobs.

    Attributes:
        id: its own, made when it starts.
        host: name of its machine.
        boot_id: which start of that machine; two daemons of one boot can see whether the other lives.
        pid: its process.
        pid_started_s: when that process began, as numbers are used again.
        hardware_id: what is measured there.
        started_at_s: when it began.
        seen_at_s: when it last gave word.
    """

    id: str
    host: str
    boot_id: str
    pid: int
    pid_started_s: float
    hardware_id: str
    started_at_s: float = 0.0
    seen_at_s: float = 0.0
