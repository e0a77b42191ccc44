"""When a cron expression is due in a time zone: pure functions of seconds since the epoch.

What a change of the clocks does depends on what the expression says, not on how it is spelled:

- One that names hours (``30 2 * * *``) is due once for each time that it names: when the clock reaches
  it. A skipped time is reached where the gap ends, a repeated one the first time round.
- One that holds in every hour (``*/15 * * * *``) is due whenever the clock shows such a minute. It goes
  on steadily: a second time through a repeated hour, and over a skipped one, which lasts no time.

cronsim reads expressions and walks a calendar whose clock never changes; the rest is here.
"""

from __future__ import annotations

import difflib
import functools
import heapq
import itertools
import math
import re
from bisect import bisect_left
from collections.abc import Iterator
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError

from autosparse.errors import ConfigError, got

_NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
# Name of each field, the longest step that means anything in it, and what it may hold.
_FIELDS = (
    ("minute", 60, "0 to 59"),
    ("hour", 24, "0 to 23"),
    ("day-of-month", 31, "1 to 31, L (the last) or LW (the last weekday), of its months"),
    ("month", 12, "1 to 12 or jan to dec"),
    ("day-of-week", 7, "0 to 7 or sun to sat, 5L (the last Friday) or mon#2 (the second Monday)"),
)
_FIELD = re.compile(r"[a-z0-9*,/#-]{1,240}")  # longer ones could hold numbers that Python does not read
_EXAMPLE = "write '0 3 * * sun' for Sundays at 03:00"
_EVERY_HOUR = set(range(24))
_ANY_DAY = datetime(2000, 1, 1)  # the calendar repeats within the 50 years that cronsim looks ahead
_SECOND = timedelta(seconds=1)


def check_cron(text: str) -> str:
    """Gives a cron expression as five fields in lower case with single spaces.

    As in Debian's cron, day-of-month and day-of-week must both hold if one of them begins with a star;
    otherwise either is enough.

    Args:
        text: minute, hour, day-of-month, month and day-of-week, or a nickname such as ``@daily``.

    Raises:
        ConfigError: it is no such expression, or there is no day on which it is due.
    """
    expression = _five_fields(text)
    if next(_simulation(expression, _ANY_DAY), None) is None:
        raise ConfigError(
            f"a cron expression must be due on some day, but got {got(text)}: day-of-month and "
            f"day-of-week never meet; {_EXAMPLE}"
        )
    return expression


def check_timezone(name: str) -> str:
    """Gives the name of a time zone, if it is one.

    Raises:
        ConfigError: it is none of the IANA database; names the nearest.
    """
    known = _timezones()
    if isinstance(name, str) and name in known:
        return name
    raise ConfigError(
        f"a time zone must be a name of the IANA database, but got {got(name)}; "
        f"write {_nearest(str(name)[:80], known) or 'Europe/Berlin or UTC'}"
    )


def next_times(cron: str, timezone: str, after_s: float, count: int) -> tuple[float, ...]:
    """Gives the first due times later than `after_s`, ascending.

    Fewer than `count` come back where the calendar ends, after the year 9999.

    Raises:
        ConfigError: the expression or the time zone is not one.
    """
    return tuple(itertools.islice(_due_times(cron, timezone, after_s), count))


def times_between(
    cron: str, timezone: str, after_s: float, until_s: float, limit: int
) -> tuple[float, ...]:
    """Gives the due times later than `after_s` and not later than `until_s`, ascending.

    Args:
        cron: the expression.
        timezone: whose clock it is about.
        after_s: seconds since the epoch, exclusive.
        until_s: seconds since the epoch, inclusive.
        limit: how many at most; the latest are kept.

    Raises:
        ConfigError: the expression or the time zone is not one.
    """
    backwards = _due_times(cron, timezone, until_s, reverse=True)
    within = itertools.takewhile(lambda due_s: due_s > after_s, backwards)
    return tuple(itertools.islice(within, limit))[::-1]


def describe(cron: str) -> str:
    """Says in English when an expression is due.

    Raises:
        ConfigError: it is not one.
    """
    return _simulation(_five_fields(cron), _ANY_DAY).explain()


def _five_fields(text: str) -> str:
    fields = text.lower().split() if isinstance(text, str) else []
    if len(fields) == 1:
        fields = _NICKNAMES.get(fields[0], "").split()
    if len(fields) != len(_FIELDS):
        raise ConfigError(
            f"a cron expression must be five fields ({', '.join(name for name, _, _ in _FIELDS)}) "
            f"or one of {', '.join(_NICKNAMES)}, but got {got(text)}; {_EXAMPLE}"
        )
    for field, (name, longest, _) in zip(fields, _FIELDS, strict=True):
        steps = re.findall(r"/(\d+)", field)
        if not _FIELD.fullmatch(field) or any(int(step) > longest for step in steps):
            raise _bad_field(name, " ".join(fields))
    return " ".join(fields)


def _bad_field(name: str, expression: str) -> ConfigError:
    longest, rule = next((longest, rule) for field, longest, rule in _FIELDS if field == name)
    return ConfigError(
        f"{name} of a cron expression must be {rule}; or *, lists (1,2), ascending ranges (1-5) and "
        f"steps up to {longest} (*/2), but got {got(expression)}; {_EXAMPLE}"
    )


def _simulation(expression: str, start: datetime, *, reverse: bool = False) -> CronSim:
    """Walks the times of day that an expression names; without a time zone cronsim changes no clock."""
    try:
        return CronSim(expression, start, reverse)
    except CronSimError as error:
        raise _bad_field(str(error).removeprefix("Bad "), expression) from None


@functools.cache
def _timezones() -> frozenset[str]:
    # Two are in the folder that are no zones of their own: this host's, and the lack of one.
    return frozenset(available_timezones() - {"localtime", "Factory"})


def _nearest(name: str, known: frozenset[str]) -> str:
    """Gives the zone that was probably meant: ``berlin`` is Europe/Berlin."""
    wanted = "_".join(name.lower().split())
    exact = {zone.lower(): zone for zone in sorted(known)}
    # Abbreviations resemble each other and mean something else, so that only whole names are near.
    places = {zone.lower(): zone for zone in sorted(known) if "/" in zone}
    cities = {zone.rpartition("/")[2]: places[zone] for zone in places}
    near = (difflib.get_close_matches(wanted, names, n=1, cutoff=0.8) for names in (places, cities))
    found = next((names[0] for names in near if names), "")
    return exact.get(wanted) or places.get(found) or cities.get(found, "")


def _due_times(cron: str, timezone: str, start_s: float, *, reverse: bool = False) -> Iterator[float]:
    """Gives due times from `start_s` on: later ones, or in reverse those not later."""
    zone = ZoneInfo(check_timezone(timezone))
    start = datetime.fromtimestamp(math.floor(start_s), zone).replace(tzinfo=None)
    # Where the clock repeats itself it may have shown more already, or show less later.
    repeated = max(timedelta(0), _offset(start, zone, 0) - _offset(start, zone, 1))
    first = start + repeated + _SECOND if reverse else start - repeated
    simulation = _simulation(_five_fields(cron), first, reverse=reverse)
    walls = _until_the_calendar_ends(simulation)
    if simulation.hours == _EVERY_HOUR:
        early, late = itertools.tee(wall for wall in walls if not _is_skipped(wall, zone))
        due = heapq.merge(
            (_epoch_s(wall, zone, 0) for wall in early),
            (_epoch_s(wall, zone, 1) for wall in late),
            reverse=reverse,
        )
    else:
        due = (_reached_s(wall, zone) for wall in walls)
    for due_s, _ in itertools.groupby(due):
        if (due_s > start_s) is not reverse:
            yield due_s


def _until_the_calendar_ends(walls: Iterator[datetime]) -> Iterator[datetime]:
    try:
        yield from walls
    except OverflowError:  # Python's datetime goes from year 1 to 9999
        return


def _offset(wall: datetime, zone: ZoneInfo, fold: int) -> timedelta:
    """Gives local time less UTC; before (fold 0) or after the change that skips or repeats `wall`."""
    offset = wall.replace(tzinfo=zone, fold=fold).utcoffset()
    assert offset is not None
    return offset


def _is_skipped(wall: datetime, zone: ZoneInfo) -> bool:
    return _offset(wall, zone, 0) < _offset(wall, zone, 1)


def _epoch_s(wall: datetime, zone: ZoneInfo, fold: int) -> float:
    return wall.replace(tzinfo=zone, fold=fold).timestamp()


def _reached_s(wall: datetime, zone: ZoneInfo) -> float:
    """Gives when the clock first shows `wall` or more."""
    if not _is_skipped(wall, zone):
        return _epoch_s(wall, zone, 0)

    def is_reached(at_s: int) -> bool:
        return datetime.fromtimestamp(at_s, zone).replace(tzinfo=None) >= wall

    # The clock is put forward between what the new offset and what the old one take `wall` for.
    span = range(int(_epoch_s(wall, zone, 1)), int(_epoch_s(wall, zone, 0)) + 1)
    return float(span[bisect_left(span, True, key=is_reached)])
