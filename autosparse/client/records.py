"""What answers hold, as far as it is shown or decided by here; all of it is kept as it came.

A newer daemon may say more. What is missing or of another type is refused.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from autosparse.errors import UsageError, got
from autosparse.storage.serial import Record

OPEN = ("submitted", "waiting", "running")
"""States of a job whose end lies ahead."""
ENDED = ("done", "infeasible", "failed", "cancelled", "stopped")
"""States of a job that has ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Record):
    """Base of what a daemon answers.

    Attributes:
        raw: the answer as it came.
    """

    raw: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, values: Any) -> Self:
        """Reads an answer.

        Raises:
            UsageError: something is missing, or of another type.
        """
        if not isinstance(values, Mapping):
            raise UsageError(f"{cls.__name__} must be a mapping of fields, but got {got(values)}")
        names = {each.name for each in dataclasses.fields(cls)} - {"raw"}
        known = {name: value for name, value in values.items() if name in names}
        return cls.from_json({**known, "raw": values})


@dataclass(frozen=True, slots=True, kw_only=True)
class HowFar(Answer):
    """How far a running job is; see `autosparse.jobs.records.Snapshot`."""

    at: str = ""
    stage: str = ""
    step: str = ""
    done: float = 0.0
    total: float | None = None
    message: str = ""
    left_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteJob(Answer):
    """A job; see `autosparse.jobs.records.Job`. Times are ISO 8601."""

    id: int
    verb: str
    state: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    priority: int = 0
    label: str = ""
    submitted_at: str = ""
    changed_at: str = ""
    ready_at: str | None = None
    attempt: int = 0
    failures: int = 0
    owner: str = ""
    ran_s: float = 0.0
    cancelling: bool = False
    exit_code: int | None = None
    message: str = ""
    run: str = ""
    progress: Mapping[str, Any] | None = None

    @property
    def has_ended(self) -> bool:
        """Whether nothing more becomes of it by itself."""
        return self.state in ENDED

    @property
    def how_far(self) -> HowFar | None:
        """How far it is; None while it has said nothing."""
        return None if self.progress is None else HowFar.of(self.progress)


@dataclass(frozen=True, slots=True, kw_only=True)
class Change(Answer):
    """A change of a job's state."""

    at: str
    after: str
    before: str | None = None
    attempt: int = 0
    daemon: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteWatch(Answer):
    """A watch; see `autosparse.daemon.watches.Watch`. Times are ISO 8601."""

    schedule: Mapping[str, Any]
    artifact: str
    budget_ms: float
    verdict: str
    since: str | None = None
    job_id: int | None = None
    problem: str = ""
    checked: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteAlert(Answer):
    """Something that somebody ought to hear of. Times are ISO 8601."""

    id: int
    kind: str
    title: str
    at: str
    job_id: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteSchedule(Answer):
    """A schedule; see `autosparse.schedules.schedule.Schedule`. Times are ISO 8601."""

    id: int
    name: str
    cron: str
    timezone: str
    verb: str
    enabled: bool = True
    description: str = ""
    catch_up: str = ""
    jitter_s: float = 0.0
    settings: Mapping[str, Any] = field(default_factory=dict)
    next_at: str | None = None
    created_at: str = ""
