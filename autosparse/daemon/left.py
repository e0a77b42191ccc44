"""How long a job still takes: by what its own steps take, and what an earlier one like it took. Pure.

A step that counts units tells by its own speed when it ends. What comes after it, nobody can tell but
an earlier job that did the same; without one, the step's end is all that is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

# Before a step has been seen to move for so long, and by such a part, its speed is chance.
_SEEN_S = 3.0
_SEEN_PART = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSpent:
    """Where the time of a step went.

    Attributes:
        seconds: all times together.
        units: likewise.
        times: how often it was done in its stage.
    """

    seconds: float = 0.0
    units: float = 0.0
    times: int = 0

    def and_again(self, seconds: float, units: float) -> StepSpent:
        """Gives it with another time."""
        return StepSpent(seconds=self.seconds + seconds, units=self.units + units, times=self.times + 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """Where the time of a job went.

    Attributes:
        name: by which people know it.
        stages: seconds of each stage, in the order in which they began.
        steps: what was spent, by stage and step.
    """

    name: str
    stages: Mapping[str, float]
    steps: Mapping[tuple[str, str], StepSpent] = field(default_factory=dict)

    def after(self, stage: str, begun: Iterable[str]) -> float:
        """Gives the seconds of all stages after one; of one that it had not, of those not yet begun."""
        names = list(self.stages)
        later = names[names.index(stage) + 1 :] if stage in self.stages else names
        known = set(begun) if stage not in self.stages else set()
        return sum(self.stages[name] for name in later if name not in known)


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """How long a job still takes from its last event on.

    Attributes:
        job_s: the whole job; None while nothing like it is known.
        step_s: its step by its own speed; None before that is known.
        rests_on: name of what `job_s` rests on; empty without.
    """

    job_s: float | None = None
    step_s: float | None = None
    rests_on: str = ""


@dataclass(slots=True)
class _Step:
    """A step that is under way."""

    began_s: float
    first: tuple[float, float] | None = None
    last: tuple[float, float] = (0.0, 0.0)
    total: float | None = None

    def move(self, at_s: float, done: float, total: float | None) -> None:
        if self.first is None or done < self.last[1]:  # a step that begins anew has a new speed
            self.first = (at_s, done)
        self.last, self.total = (at_s, done), total

    def left_s(self) -> float | None:
        """Gives what is left at the speed seen; what was there at first was not done in that time."""
        if self.first is None or not self.total:
            return None
        took_s, moved = self.last[0] - self.first[0], self.last[1] - self.first[1]
        if took_s < _SEEN_S or moved < _SEEN_PART * self.total:
            return None
        return max(0.0, self.total - self.last[1]) * took_s / moved

    def judged_s(self, own_s: float, earlier: StepSpent) -> float:
        """Gives what is left by its own speed; the less of it is done, the more by an earlier one."""
        if not earlier.units or not self.total:
            return own_s
        part = min(1.0, self.last[1] / self.total)
        then_s = max(0.0, self.total - self.last[1]) * earlier.seconds / earlier.units
        return part * own_s + (1 - part) * then_s


class Clock:
    """Follows the events of a job and keeps where its time goes.

    Work that was stopped and went on tells its first stage again; the time between does not count.
    """

    def __init__(self) -> None:
        self._stages: dict[str, float] = {}
        self._steps: dict[tuple[str, str], StepSpent] = {}
        self._open: dict[str, _Step] = {}
        self._stage = ""
        self._at_s: float | None = None

    def take(self, event: Mapping[str, Any]) -> None:
        """Takes one event, a line of an event log.

        Raises:
            KeyError, TypeError, ValueError: it is of another version; nothing was taken.
        """
        at_s, kind = float(event["at_s"]), str(event["kind"])
        step, stage = str(event.get("step", "")), str(event.get("stage", "")) or self._stage
        done = float(event["done"]) if step else 0.0
        total = event.get("total")
        total = None if total is None else float(total)
        self._pass_to(stage, at_s)
        if not step:
            return
        if kind == "end":
            self._close(step, at_s)
            return
        if kind == "start" or step not in self._open:
            self._open[step] = _Step(began_s=at_s, total=total)
        if kind == "advance":
            self._open[step].move(at_s, done, total)

    def spent(self, name: str) -> Spent:
        """Gives where the time went so far."""
        return Spent(name=name, stages=dict(self._stages), steps=dict(self._steps))

    def left(self, earlier: Spent | None = None) -> Left:
        """Gives how long the job still takes.

        Args:
            earlier: a job that did the same; None if there is none.
        """
        known = {name: step.left_s() for name, step in self._open.items()}
        # Of steps within others, and of those side by side, the one that ends last is waited for.
        by_time = sorted((left_s, name) for name, left_s in known.items() if left_s is not None)
        step_s, step = by_time[-1] if by_time else (None, "")
        if earlier is None or self._at_s is None:
            return Left(step_s=step_s)
        stage_s = self._stage_left_s(earlier, step_s, step)
        if stage_s is None:
            return Left(step_s=step_s)
        later_s = earlier.after(self._stage, self._stages)
        return Left(job_s=stage_s + later_s, step_s=step_s, rests_on=earlier.name)

    def _stage_left_s(self, earlier: Spent, step_s: float | None, step: str) -> float | None:
        whole_s = earlier.stages.get(self._stage)
        passed_s = self._stages.get(self._stage, 0.0)
        if whole_s is None:
            return step_s
        if step_s is None:
            return max(0.0, whole_s - passed_s)
        # What is beside the step takes as long as then; the step itself tells better.
        then, now = earlier.steps.get((self._stage, step), StepSpent()), self._open[step]
        beside_s = whole_s - then.seconds / max(1, then.times)
        in_step_s = (self._at_s or 0.0) - now.began_s
        return now.judged_s(step_s, then) + max(0.0, beside_s - (passed_s - in_step_s))

    def _pass_to(self, stage: str, at_s: float) -> None:
        if self._at_s is not None:
            is_anew = stage != self._stage and stage == next(iter(self._stages), stage)
            if not is_anew:
                self._stages[self._stage] += max(0.0, at_s - self._at_s)
        if stage != self._stage:
            self._open.clear()
        self._stages.setdefault(stage, 0.0)
        self._stage, self._at_s = stage, at_s

    def _close(self, step: str, at_s: float) -> None:
        ended = self._open.pop(step, None)
        if ended is not None:
            key = (self._stage, step)
            before = self._steps.get(key, StepSpent())
            self._steps[key] = before.and_again(at_s - ended.began_s, ended.last[1])


def spent(name: str, events: Iterable[Mapping[str, Any]]) -> Spent:
    """Gives where the time of a job went, by all of its events.

    Args:
        name: by which people know it.
        events: of one verb, in order; those of other versions are passed over.
    """
    clock = Clock()
    for event in events:
        try:
            clock.take(event)
        except (KeyError, TypeError, ValueError):
            continue
    return clock.spent(name)
