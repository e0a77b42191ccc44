"""What requests and answers of watches, alerts and comparisons look like."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field

from autosparse.daemon import watches
from autosparse.daemon.watches import Watch
from autosparse.jobs.alerts import Alert
from autosparse.report.moves import FrontMove
from autosparse.web.asking import Cron, Duration, JobTreated, Name, Text, Timezone, read_jitter_s
from autosparse.web.shapes import ScheduleShape, Shape, Time, clean, written


class WatchAsked(JobTreated):
    """An artifact to be checked again and again."""

    artifact: Text = Field(
        min_length=1,
        description="A file that jobs may read, named `ROOT/rest/of/path`.",
        examples=["results/resnet18.safetensors"],
    )
    latency_budget: Duration = Field(description="What its latency shall be at most.", examples=["5ms"])
    name: Name | None = Field(
        default=None, description="No other schedule's, and not a number; null makes one."
    )
    cron: Cron = Field(default=watches.CRON, description="When it is checked.", examples=["0 * * * *"])
    timezone: Timezone = Field(default="UTC", description="Whose clock it is about.")
    jitter: Duration | None = Field(
        default=None, description="By how much a check is put off at most; null is ten minutes."
    )
    threads: Annotated[int, Field(ge=1, le=2**16)] | None = Field(
        default=None, description="Worker threads; null is as many as it was measured with."
    )
    judged: Literal["worst", "best"] | None = Field(
        default=None, description="The state of the host that counts; null is the worst."
    )

    def jitter_s(self) -> float:
        """Gives by how much a check is put off at most.

        Raises:
            UsageError: no duration, or too long a one.
        """
        return watches.JITTER_S if self.jitter is None else read_jitter_s(self.jitter)


class WatchShape(Shape):
    """An artifact that is watched, and how it stands."""

    schedule: ScheduleShape = Field(description="By which it is checked; paused and resumed there.")
    artifact: str = Field(description="The file.")
    budget_ms: float = Field(description="What its latency shall be at most.")
    verdict: str = Field(description="met, missed or open; unknown before the first check.")
    since: Time | None = Field(description="When that verdict began.")
    job_id: int | None = Field(description="Number of the last check.")
    problem: str = Field(description="Why the last check says nothing; empty if it says something.")
    checked: dict[str, Any] | None = Field(description="What the last check found.")

    @classmethod
    def of(cls, watch: Watch) -> Self:
        """Makes it of a record."""
        return cls(
            schedule=ScheduleShape.of(watch.schedule),
            artifact=clean(watch.artifact),
            budget_ms=watch.budget_ms,
            verdict=watch.verdict,
            since=None if watch.since_s is None else written(watch.since_s),
            job_id=watch.job_id,
            problem=clean(watch.problem),
            checked=None if watch.checked is None else clean(watch.checked.to_json()),
        )


class WatchList(Shape):
    """All watches, the oldest first."""

    items: list[WatchShape]


class AlertShape(Shape):
    """Something that somebody ought to hear of."""

    id: int = Field(description="Its number.")
    kind: str = Field(description="What happened, such as `front.moved`.")
    title: str = Field(description="It in a few words.")
    body: dict[str, Any] = Field(description="All of it, as webhooks get it.")
    at: Time = Field(description="When.")
    job_id: int = Field(description="The job whose end it is about.")
    schedule_id: int | None = Field(description="The schedule that made the job.")

    @classmethod
    def of(cls, alert: Alert) -> Self:
        """Makes it of a record."""
        return cls(
            id=alert.id,
            kind=clean(alert.kind),
            title=clean(alert.title),
            body=clean(dict(alert.body)),
            at=written(alert.at_s),
            job_id=alert.job_id,
            schedule_id=alert.schedule_id,
        )


class AlertPage(Shape):
    """Alerts, newest first."""

    items: list[AlertShape]
    next: str | None = Field(description="Path of the next page; null at the end.")


class MoveShape(Shape):
    """What became of a front from one run to another."""

    older: str = Field(description="Name of the older run.")
    newer: str = Field(description="Name of the newer run.")
    comparable: bool = Field(description="Whether the two runs answer the same question.")
    moved: bool = Field(description="Whether something moved by more than chance.")
    sentence: str = Field(description="All of it for people.")
    why_not: list[str] = Field(description="Why the fronts cannot be compared.")
    move: dict[str, Any] = Field(description="Everything: configurations, dense runs, the budget.")

    @classmethod
    def of(cls, move: FrontMove) -> Self:
        """Makes it of a record."""
        return cls(
            older=move.older,
            newer=move.newer,
            comparable=move.is_comparable,
            moved=move.moved,
            sentence=clean(move.sentence),
            why_not=clean(move.why_not),
            move=clean(move.to_json()),
        )
