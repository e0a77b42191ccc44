from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from autosparse.jobs.records import JobRequest
from autosparse.schedules.schedule import Decision, Schedule, begin, decide
from tests.schedules import reference
from tests.schedules.reference import Meaning, at

GRACE_S = 60.0
TICK_S = 25.0
START, END = datetime(2025, 1, 1), datetime(2026, 1, 1)
START_S, END_S = (edge.replace(tzinfo=UTC).timestamp() for edge in (START, END))
SUNDAYS = 6
# In each zone both changes of the year fall on a Sunday or the midnight before.
ZONES = ("Europe/Berlin", "America/New_York", "Australia/Sydney", "America/Santiago")
EXPRESSIONS = (
    ("30 2 * * *", at({2}, {30})),
    ("15 0 * * *", at({0}, {15})),
    ("0 3 * * sun", at({3}, {0}, lambda day: day.weekday() == SUNDAYS)),
    ("0 */2 * * *", at(set(range(0, 24, 2)), {0})),
    (
        "*/15 * * * sun",
        Meaning(frozenset({0, 15, 30, 45}), is_day=lambda day: day.weekday() == SUNDAYS),
    ),
)


Row = tuple[float, str, float]  # when it was due, what became of it, when that was decided


@dataclass
class Store:
    """One row of a table: a decision counts if the row is as it was when it was made."""

    last_due_s: float
    next_at_s: float | None
    history: list[Row] = field(default_factory=list)

    def accept(self, basis_s: float, decision: Decision, now_s: float) -> bool:
        if self.last_due_s != basis_s:
            return False
        self.last_due_s, self.next_at_s = decision.last_due_s, decision.next_at_s
        self.history += [(due.due_at_s, due.outcome, now_s) for due in decision.due]
        return True


def off_times(draw: random.Random, zone: str) -> list[tuple[float, float]]:
    """Stretches without any daemon: seconds to days, two of them over the changes of the clock."""
    edges = sorted(draw.uniform(START_S, END_S - 10 * 86400) for _ in range(40))
    stretches = [(edge, edge + 10 ** draw.uniform(0.5, 5.5)) for edge in edges]
    noons = [START_S + 43200 + 86400 * day for day in range(364)]
    clock = ZoneInfo(zone)

    def offset(at_s: float) -> object:
        return datetime.fromtimestamp(at_s, clock).utcoffset()

    turning = [noon for noon in noons if offset(noon) != offset(noon + 86400)]
    assert len(turning) == 2
    # Of one change every daemon sees everything, the other one is slept through.
    kept, slept = draw.sample(turning, 2)
    stretches = [(a, b) for a, b in stretches if b < kept - 86400 or a > kept + 2 * 86400]
    return merged([*stretches, (slept + draw.uniform(0, 30000), slept + 86400 + draw.uniform(0, 9))])


def merged(stretches: list[tuple[float, float]]) -> list[tuple[float, float]]:
    apart: list[tuple[float, float]] = []
    for start_s, end_s in sorted(stretches):
        if apart and start_s <= apart[-1][1] + 2 * TICK_S:
            apart[-1] = (apart[-1][0], max(apart[-1][1], end_s))
        else:
            apart.append((start_s, end_s))
    return apart


def live(schedule: Schedule, off: list[tuple[float, float]], draw: random.Random) -> Store:
    """Two daemons tick in turn for a year, now and then both upon what the row was before either."""
    start = begin(schedule, START_S - 1)
    store = Store(start.last_due_s, start.next_at_s)
    offs, now_s = [*off, (END_S, END_S)], START_S
    while now_s < END_S:
        stop_s = offs[0][0]
        basis_s, later_s = store.last_due_s, min(now_s + draw.uniform(0, 5), stop_s)
        mine = decide(schedule, now_s, basis_s, False, GRACE_S)
        assert store.accept(basis_s, mine, now_s)
        if draw.random() < 0.3:
            other = decide(schedule, later_s, basis_s, False, GRACE_S)
            assert store.accept(basis_s, other, later_s) is (not mine.due)
        assert store.next_at_s is not None
        if now_s == stop_s:  # both daemons stop after this tick
            now_s = offs.pop(0)[1]
            continue
        # Of the ticks at which nothing is due, only some shortly before the next due time are played.
        idle_until_s = max(now_s, store.next_at_s - 2 * TICK_S)
        now_s = min(idle_until_s + draw.uniform(5, TICK_S), stop_s)
    return store


@pytest.mark.parametrize("zone", ZONES)
def test_a_year_with_outages_runs_every_time_exactly_once(zone: str) -> None:
    draw = random.Random(zone)
    off = off_times(draw, zone)
    for number, (cron, meaning) in enumerate(EXPRESSIONS):
        schedule = Schedule(
            id=number,
            name=f"of {zone}",
            cron=cron,
            timezone=zone,
            request=JobRequest(verb="search"),
            catch_up="once" if (number + ZONES.index(zone)) % 2 else "skip",
        )
        history = live(schedule, off, draw).history
        expected = reference.due(meaning, zone, START, END)
        assert [due_s for due_s, _, _ in history] == expected, cron
        awake = set(history)
        for stretch in off:
            slept = [row for row in history if stretch[0] < row[0] <= stretch[1]]
            check_outage(slept, stretch[1], schedule.catch_up)
            awake -= set(slept)
        assert len(awake) > len(expected) / 2
        for due_s, outcome, at_s in awake:
            assert outcome == "fired" and 0 <= at_s - due_s <= TICK_S, (cron, due_s)


def check_outage(slept: list[Row], woke_s: float, catch_up: str) -> None:
    """Of what fell due without a daemon, the last is made up for; or none, unless it is recent."""
    if not slept:
        return
    assert {outcome for _, outcome, _ in slept[:-1]} <= {"missed"}
    last_s, outcome, at_s = slept[-1]
    is_wanted = catch_up == "once" or woke_s - last_s <= GRACE_S
    assert outcome == ("fired" if is_wanted else "missed")
    assert woke_s <= at_s <= woke_s + 5
