"""A schedule, and what to do now about the times at which it fell due. Pure: nothing is stored here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from autosparse.jobs.records import JobRequest
from autosparse.records.rules import require
from autosparse.schedules import times
from autosparse.storage.serial import Record, short_hash

Outcome = Literal["fired", "missed", "overlapped"]

MOST_DUE = 1000
"""How many due times one decision accounts for; of more, after years without a daemon, the latest."""
_LONGEST_NAME = 200
_HASH_DIGITS = 13  # 52 bits, which a float holds exactly
_MOST_HASH = float(16**_HASH_DIGITS - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule(Record):
    """What job is to be made when. Times are seconds since the epoch.

    A paused schedule (`is_enabled` false) is never due, and what falls due meanwhile is not made up for
    when it is resumed: whoever pauses it does not want those runs. `begin` is where it goes on.

    Attributes:
        id: its number.
        name: by which people know it; one line, and not a number.
        cron: when it is due, five fields as `times.check_cron` gives them.
        timezone: whose clock `cron` is about.
        request: the job that is made each time.
        is_enabled: whether it is ever due.
        catch_up: what is made of due times that nobody acted on in time: ``once`` makes a single job
            for all of them, ``skip`` none.
        jitter_s: by how much a job's start is put off at most, a part of it for each due time.
        next_at_s: when it is due next; None while it is paused.
        created_at_s: when it was made.
    """

    id: int
    name: str
    cron: str
    timezone: str
    request: JobRequest
    is_enabled: bool = True
    catch_up: Literal["once", "skip"] = "once"
    jitter_s: float = 0.0
    next_at_s: float | None = None
    created_at_s: float = 0.0

    def __post_init__(self) -> None:
        times.check_cron(self.cron)
        times.check_timezone(self.timezone)
        named = 0 < len(self.name.strip()) and len(self.name) <= _LONGEST_NAME
        require(
            named and self.name.isprintable() and not self.name.strip().isdigit(),
            f"a schedule's name must be one line of 1 to {_LONGEST_NAME} characters and not a number",
            name=self.name,
        )
        require(
            self.catch_up in ("once", "skip"), "catch_up must be once or skip", catch_up=self.catch_up
        )
        require(
            math.isfinite(self.jitter_s) and self.jitter_s >= 0,
            "jitter must be a time of 0 s or longer",
            jitter_s=self.jitter_s,
        )
        require(
            self.request.options.not_before_s is None,
            "a scheduled job begins when its schedule says, so not_before_s must be empty",
            not_before_s=self.request.options.not_before_s,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Due(Record):
    """One due time and what became of it.

    Attributes:
        due_at_s: when it was.
        outcome: ``fired`` makes a job; ``missed`` makes none, as it was noticed too late or a later one
            stands for it; ``overlapped`` makes none, as the schedule's last job had not ended.
        not_before_s: when the job may begin, jitter included.
    """

    due_at_s: float
    outcome: Outcome
    not_before_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision(Record):
    """What to do now.

    Attributes:
        due: every due time since the last decision, ascending; at most one of them fires.
        last_due_s: what the next decision begins after.
        next_at_s: when the schedule is due next; None if never, as it is paused.
    """

    due: tuple[Due, ...]
    last_due_s: float
    next_at_s: float | None

    @property
    def fired(self) -> Due | None:
        """The due time that a job is to be made for."""
        return next((due for due in self.due if due.outcome == "fired"), None)


def decide(
    schedule: Schedule, now_s: float, last_due_s: float, is_running: bool, grace_s: float = 60.0
) -> Decision:
    """Decides about every due time after `last_due_s` up to now.

    The latest of them fires if it is at most `grace_s` old, or at any age if the schedule catches up
    ``once``. All earlier ones are missed: to fire two at once would be to overlap with itself.

    Args:
        schedule: whose times they are.
        now_s: the present.
        last_due_s: of the last decision. Only one decision may be acted on for each.
        is_running: whether the last job of this schedule has not ended; one that waits has not.
        grace_s: how late a due time may be noticed and still count as in time.
    """
    if not schedule.is_enabled:
        return Decision(due=(), last_due_s=last_due_s, next_at_s=None)
    passed = times.times_between(schedule.cron, schedule.timezone, last_due_s, now_s, MOST_DUE)
    outcomes = _outcomes(passed, schedule, now_s - grace_s, is_running)
    due = tuple(
        Due(due_at_s=at_s, outcome=outcome, not_before_s=at_s + _jitter_s(schedule, at_s))
        for at_s, outcome in zip(passed, outcomes, strict=True)
    )
    decided_s = passed[-1] if passed else last_due_s
    return Decision(
        due=due, last_due_s=decided_s, next_at_s=_next_at_s(schedule, max(now_s, last_due_s))
    )


def begin(schedule: Schedule, now_s: float, last_due_s: float = -math.inf) -> Decision:
    """Decides from where on a schedule is due that was made, changed or resumed now: only later.

    Args:
        schedule: as it is from now on.
        now_s: the present.
        last_due_s: of the last decision, if there was one. A clock that was put back repeats nothing.
    """
    since_s = max(now_s, last_due_s)
    next_at_s = _next_at_s(schedule, since_s) if schedule.is_enabled else None
    return Decision(due=(), last_due_s=since_s, next_at_s=next_at_s)


def _outcomes(
    passed: Sequence[float], schedule: Schedule, in_time_s: float, is_running: bool
) -> list[Outcome]:
    if not passed:
        return []
    is_wanted = passed[-1] >= in_time_s or schedule.catch_up == "once"
    earlier: list[Outcome] = ["missed"] * (len(passed) - 1)
    last: Outcome = "missed" if not is_wanted else "overlapped" if is_running else "fired"
    return [*earlier, last]


def _jitter_s(schedule: Schedule, due_at_s: float) -> float:
    """Gives a part of the jitter, by a hash of schedule and time: every daemon finds the same."""
    part = int(short_hash([schedule.id, due_at_s], _HASH_DIGITS), 16)
    return schedule.jitter_s * (part / _MOST_HASH)


def _next_at_s(schedule: Schedule, after_s: float) -> float | None:
    return next(iter(times.next_times(schedule.cron, schedule.timezone, after_s, 1)), None)
