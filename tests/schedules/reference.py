"""When expressions are due, found by looking at the clock in every minute: slow, and without cronsim.

`Meaning` says what an expression means, written down next to it by hand; no text is read here.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

ALL_HOURS = frozenset(range(24))
MINUTE = timedelta(minutes=1)


def any_day(_: date) -> bool:
    return True


@dataclass(frozen=True)
class Meaning:
    minutes: frozenset[int]
    hours: frozenset[int] = ALL_HOURS
    is_day: Callable[[date], bool] = any_day

    def holds(self, wall: datetime) -> bool:
        if wall.minute not in self.minutes or wall.hour not in self.hours:
            return False
        return self.is_day(wall.date())


def at(hours: set[int], minutes: set[int], is_day: Callable[[date], bool] = any_day) -> Meaning:
    return Meaning(frozenset(minutes), frozenset(hours), is_day)


@functools.lru_cache(maxsize=2)  # a year takes some 80 MB
def clock(zone: str, start: datetime, end: datetime) -> tuple[tuple[float, datetime], ...]:
    """What the clock on the wall shows in each minute from `start` on and before `end`, both UTC."""
    timezone, first_s = ZoneInfo(zone), start.replace(tzinfo=UTC).timestamp()
    minutes = int((end - start) / MINUTE)
    instants = [first_s + 60 * minute for minute in range(minutes)]
    walls = (datetime.fromtimestamp(at_s, timezone).replace(tzinfo=None) for at_s in instants)
    return tuple(zip(instants, walls, strict=True))


def due(meaning: Meaning, zone: str, start: datetime, end: datetime) -> list[float]:
    shown = clock(zone, start, end)
    if meaning.hours == ALL_HOURS:
        return [at_s for at_s, wall in shown if meaning.holds(wall)]
    return list(_reached(meaning, shown))


def _reached(meaning: Meaning, shown: tuple[tuple[float, datetime], ...]) -> Iterator[float]:
    """Each time of day counts in the minute in which the clock comes to it or passes over it."""
    latest = shown[0][1] - MINUTE
    for at_s, wall in shown:
        is_due = False
        while latest < wall:
            latest += MINUTE
            is_due = is_due or meaning.holds(latest)
        if is_due:
            yield at_s
