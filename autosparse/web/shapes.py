"""What answers look like, made from the records. Times are ISO 8601 in UTC, durations seconds."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from autosparse.daemon.service import Service
from autosparse.jobs.records import Job, Snapshot, Transition
from autosparse.jobs.states import State
from autosparse.run_folders.state import RunSummary
from autosparse.schedules import times
from autosparse.schedules.schedule import Schedule
from autosparse.schedules.store import Occurrence

_FIRST_S, _LAST_S = 0.0, 253402300799.0  # of the calendar that the answers are written in: year 9999

Time = Annotated[
    str, Field(json_schema_extra={"format": "date-time"}, examples=["2026-01-31T03:00:00Z"])
]


def written(at_s: float) -> str:
    """Writes seconds since the epoch; what the calendar does not hold becomes its nearest time."""
    within_s = min(max(at_s, _FIRST_S), _LAST_S) if not math.isnan(at_s) else _FIRST_S
    at = datetime.fromtimestamp(within_s, UTC)
    digits = "milliseconds" if at.microsecond >= 1000 else "seconds"
    return at.isoformat(timespec=digits).removesuffix("+00:00") + "Z"


def _maybe(at_s: float | None) -> str | None:
    return None if at_s is None else written(at_s)


def _finite(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else value


def clean(value: Any) -> Any:
    """Gives plain values without characters that UTF-8 does not have: files may hold such."""
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, dict):
        return {clean(key): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return _finite(value) if isinstance(value, float) else value


class Shape(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ProgressShape(Shape):
    """How far a running job is."""

    at: Time = Field(description="When it was.")
    stage: str = Field(description="Stage of the job.")
    step: str = Field(description="Step of the stage.")
    done: float = Field(description="Units of the step that are finished.")
    total: float | None = Field(description="Units in all; null while unknown.")
    message: str = Field(description="The last word of the job.")
    left_s: float | None = Field(description="Seconds that the whole job takes from then on, if known.")
    left_as: str = Field(
        description="Run or job that did the same earlier, which `left_s` rests on; empty without."
    )
    step_left_s: float | None = Field(
        description="Seconds that the step takes from then on by its own speed, if known."
    )

    @classmethod
    def of(cls, snapshot: Snapshot) -> Self:
        """Makes it of a record."""
        return cls(
            at=written(snapshot.at_s),
            stage=clean(snapshot.stage),
            step=clean(snapshot.step),
            done=_finite(snapshot.done) or 0.0,
            total=_finite(snapshot.total),
            message=clean(snapshot.message),
            left_s=_finite(snapshot.left_s),
            left_as=clean(snapshot.left_as),
            step_left_s=_finite(snapshot.step_left_s),
        )


class JobShape(Shape):
    """A job and what became of it so far."""

    id: int = Field(description="Its number.")
    verb: str = Field(description="Of the command line.")
    settings: dict[str, Any] = Field(description="Flags of the verb by their keys, as checked.")
    state: State = Field(description="Where it stands.")
    priority: int = Field(description="Of two that wait, the higher one runs first.")
    label: str = Field(description="Words of the submitter's own.")
    time_limit_s: float | None = Field(description="Time that its process may take; null is no limit.")
    retries: int = Field(description="How often it is begun again when its process is killed.")
    hardware_id: str = Field(description="The only kind of host that it may run on; empty is any.")
    submitted_at: Time = Field(description="When it was asked for.")
    changed_at: Time = Field(description="Time of its last transition.")
    ready_at: Time | None = Field(description="When it may begin, if it waits for that; else null.")
    attempt: int = Field(description="How often a process was begun for it.")
    failures: int = Field(description="How many of them died by no fault of their own.")
    owner: str = Field(description="The daemon that works on it, or did last; empty before.")
    ran_s: float = Field(description="Seconds that its ended processes took.")
    cancelling: bool = Field(description="Its cancellation was asked for while it ran.")
    exit_code: int | None = Field(description="Of its process; null before it has ended.")
    message: str = Field(description="Why it is where it is.")
    run: str = Field(description="Name of its run; empty before it has one.")
    schedule_id: int | None = Field(description="Number of the schedule that made it; else null.")
    due_at: Time | None = Field(description="When that schedule said.")
    progress: ProgressShape | None = Field(description="How far it is; null before it has said so.")

    @classmethod
    def of(cls, job: Job) -> Self:
        """Makes it of a record."""
        options = job.request.options
        waits = job.state in (State.SUBMITTED, State.WAITING) and job.ready_at_s > 0
        return cls(
            id=job.id,
            verb=job.request.verb,
            settings=clean(dict(job.request.settings)),
            state=job.state,
            priority=options.priority,
            label=options.label,
            time_limit_s=options.time_limit_s,
            retries=options.retries,
            hardware_id=options.hardware_id,
            submitted_at=written(job.submitted_at_s),
            changed_at=written(job.changed_at_s),
            ready_at=written(job.ready_at_s) if waits else None,
            attempt=job.attempt,
            failures=job.failures,
            owner=job.owner,
            ran_s=job.ran_s,
            cancelling=job.is_cancelling,
            exit_code=job.exit_code,
            message=clean(job.message),
            run=clean(job.run),
            schedule_id=job.schedule_id,
            due_at=_maybe(job.due_at_s),
            progress=None if job.snapshot is None else ProgressShape.of(job.snapshot),
        )


class JobPage(Shape):
    """Jobs, newest first."""

    items: list[JobShape]
    next: str | None = Field(description="Path of the next page; null at the end.")


class TransitionShape(Shape):
    """One change of a job's state."""

    at: Time = Field(description="When.")
    before: State | None = Field(description="The state it left; null where it was made.")
    after: State = Field(description="The state it came into.")
    attempt: int = Field(description="Number of its process, 0 before the first.")
    daemon: str = Field(description="The daemon that did it; empty if a request did.")
    reason: str = Field(description="Why.")

    @classmethod
    def of(cls, transition: Transition) -> Self:
        """Makes it of a record."""
        return cls(
            at=written(transition.at_s),
            before=transition.before,
            after=transition.after,
            attempt=transition.attempt,
            daemon=transition.daemon,
            reason=clean(transition.reason),
        )


class JobTransitionShape(TransitionShape):
    """One change of some job's state."""

    job_id: int = Field(description="Number of the job.")

    @classmethod
    def of(cls, transition: Transition) -> Self:
        """Makes it of a record."""
        plain = TransitionShape.of(transition).model_dump()
        return cls(job_id=transition.job_id, **plain)


class TransitionList(Shape):
    """All that happened to a job, oldest first."""

    items: list[TransitionShape]


class ScheduleShape(Shape):
    """What job is made when."""

    id: int = Field(description="Its number.")
    name: str = Field(description="By which people know it.")
    cron: str = Field(description="Minute, hour, day of the month, month, day of the week.")
    description: str = Field(description="The same in English.")
    timezone: str = Field(description="Whose clock it is about.")
    enabled: bool = Field(description="False while it is paused.")
    catch_up: Literal["once", "skip"] = Field(description="What becomes of due times that were missed.")
    jitter_s: float = Field(description="By how much a job's start is put off at most.")
    verb: str = Field(description="Of the jobs that it makes.")
    settings: dict[str, Any] = Field(description="Of the jobs that it makes.")
    priority: int = Field(description="Of the jobs that it makes.")
    label: str = Field(description="Of the jobs that it makes.")
    time_limit_s: float | None = Field(description="Of the jobs that it makes.")
    retries: int = Field(description="Of the jobs that it makes.")
    hardware_id: str = Field(description="Of the jobs that it makes.")
    next_at: Time | None = Field(description="When it is due next; null while it is paused.")
    created_at: Time = Field(description="When it was made.")

    @classmethod
    def of(cls, schedule: Schedule) -> Self:
        """Makes it of a record."""
        options = schedule.request.options
        return cls(
            id=schedule.id,
            name=schedule.name,
            cron=schedule.cron,
            description=times.describe(schedule.cron),
            timezone=schedule.timezone,
            enabled=schedule.is_enabled,
            catch_up=schedule.catch_up,
            jitter_s=schedule.jitter_s,
            verb=schedule.request.verb,
            settings=clean(dict(schedule.request.settings)),
            priority=options.priority,
            label=options.label,
            time_limit_s=options.time_limit_s,
            retries=options.retries,
            hardware_id=options.hardware_id,
            next_at=_maybe(schedule.next_at_s),
            created_at=written(schedule.created_at_s),
        )


class ScheduleList(Shape):
    """All schedules, the oldest first."""

    items: list[ScheduleShape]


class TimeList(Shape):
    """Times, ascending."""

    items: list[Time]


class OccurrenceShape(Shape):
    """What became of one due time."""

    due_at: Time = Field(description="When it was.")
    outcome: Literal["fired", "missed", "overlapped"] = Field(
        description="`fired` made a job; `missed` was noticed too late, or a later one stands for it; "
        "`overlapped` made none, as the schedule's last job had not ended."
    )
    job_id: int | None = Field(description="Number of the job that was made.")
    at: Time = Field(description="When it was decided.")

    @classmethod
    def of(cls, occurrence: Occurrence) -> Self:
        """Makes it of a record."""
        return cls(
            due_at=written(occurrence.due_at_s),
            outcome=occurrence.outcome,
            job_id=occurrence.job_id,
            at=written(occurrence.at_s),
        )


class OccurrenceList(Shape):
    """What became of a schedule's due times, the latest first."""

    items: list[OccurrenceShape]


class RunShape(Shape):
    """One run, as in a list."""

    name: str = Field(description="Name of its folder.")
    path: str = Field(description="Its folder, on the daemon's machine.")
    model: str = Field(description="As it was named.")
    created_at: str = Field(description="ISO 8601 in UTC; empty where its state is damaged.")
    state: str = Field(description="Such as running, interrupted, stopped, done or damaged.")
    stage: str = Field(description="The stage at work, or the last one.")
    budget_ms: float | None = Field(description="Latency budget in milliseconds, null without.")
    verdict: str = Field(description="The result in one sentence, or why there is none yet.")

    @classmethod
    def of(cls, summary: RunSummary) -> Self:
        """Makes it of a record."""
        return cls(**clean(summary.to_json()))


class RunPage(Shape):
    """Runs, newest first."""

    items: list[RunShape]
    next: str | None = Field(description="Path of the next page; null at the end.")


class RunDetail(RunShape):
    """All that is known of a run."""

    status: dict[str, Any] = Field(description="Its state.json.")
    files: dict[str, int] = Field(description="Size in bytes by name.")
    pareto: Any = Field(description="Its pareto.json, or null before there is one.")


class ServerShape(Shape):
    """The daemon that answers."""

    version: str = Field(description="Of autosparse.")
    daemon_id: str = Field(description="Its own, new at each start.")
    roots: dict[str, str] = Field(description="Folders that jobs may read, by name.")
    allow_code: bool = Field(description="Whether jobs may name factories, which are run.")
    verbs: list[str] = Field(description="What jobs can be of.")
    address: str | None = Field(description="Ray cluster that jobs join; null for none.")
    now: Time = Field(description="Its clock.")

    @classmethod
    def of(cls, service: Service, version: str, verbs: list[str], now_s: float) -> Self:
        """Makes it of the daemon's service."""
        roots = service.place.roots
        return cls(
            version=version,
            daemon_id=service.daemon_id,
            roots={name: clean(str(folder)) for name, folder in roots.folders.items()},
            allow_code=roots.allow_code,
            verbs=verbs,
            address=service.place.address,
            now=written(now_s),
        )


class Health(Shape):
    """The daemon lives."""

    status: Literal["ok"] = "ok"
