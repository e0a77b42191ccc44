from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autosparse.errors import UsageError
from autosparse.jobs.records import JobOptions, JobRequest
from autosparse.schedules.schedule import MOST_DUE, Decision, Schedule, begin, decide
from autosparse.schedules.times import next_times

CatchUp = Literal["once", "skip"]
NOON = datetime(2025, 6, 1, 12, tzinfo=UTC).timestamp()
HOUR = 3600.0
REQUEST = JobRequest(verb="search", settings={"model": "resnet18"}, options=JobOptions(priority=5))
HOURLY = Schedule(id=1, name="nightly", cron="0 * * * *", timezone="UTC", request=REQUEST)


def hourly(**changes: Any) -> Schedule:
    return dataclasses.replace(HOURLY, **changes)


def outcomes(decision: Decision) -> list[tuple[float, str]]:
    """Hours from noon and what became of them."""
    return [((due.due_at_s - NOON) / HOUR, due.outcome) for due in decision.due]


@pytest.mark.smoke
def test_a_due_time_fires_once_and_the_next_one_is_known() -> None:
    first = decide(HOURLY, NOON + 5, NOON - HOUR, False)
    assert outcomes(first) == [(0, "fired")]
    assert first.fired is not None and first.fired.not_before_s == NOON
    assert (first.last_due_s, first.next_at_s) == (NOON, NOON + HOUR)
    again = decide(HOURLY, NOON + 25, first.last_due_s, False)
    assert again == Decision(due=(), last_due_s=NOON, next_at_s=NOON + HOUR)
    assert again.fired is None


def test_before_it_is_due_nothing_happens() -> None:
    early = decide(HOURLY, NOON - 0.001, NOON - HOUR, False)
    assert early == Decision(due=(), last_due_s=NOON - HOUR, next_at_s=NOON)


@pytest.mark.parametrize(
    ("catch_up", "late_s", "expected"),
    [
        ("once", 60, "fired"),
        ("skip", 60, "fired"),
        ("once", 61, "fired"),
        ("skip", 61, "missed"),
    ],
)
def test_grace_is_what_separates_late_from_missed(
    catch_up: CatchUp, late_s: float, expected: str
) -> None:
    late = decide(hourly(catch_up=catch_up), NOON + late_s, NOON - HOUR, False)
    assert outcomes(late) == [(0, expected)]
    wider = decide(hourly(catch_up=catch_up), NOON + late_s, NOON - HOUR, False, grace_s=300)
    assert outcomes(wider) == [(0, "fired")]


@pytest.mark.parametrize(
    ("catch_up", "late_s", "last"),
    [("once", 900, "fired"), ("skip", 900, "missed"), ("once", 9, "fired"), ("skip", 9, "fired")],
)
def test_of_several_missed_at_most_the_latest_is_caught_up(
    catch_up: CatchUp, late_s: float, last: str
) -> None:
    decision = decide(hourly(catch_up=catch_up), NOON + 2 * HOUR + late_s, NOON - HOUR, False)
    assert outcomes(decision) == [(0, "missed"), (1, "missed"), (2, last)]
    assert decision.next_at_s == NOON + 3 * HOUR


def test_two_within_grace_do_not_run_beside_each_other() -> None:
    minutely = hourly(cron="* * * * *", catch_up="skip")
    decision = decide(minutely, NOON + 60, NOON - 60, False)
    assert [due.outcome for due in decision.due] == ["missed", "fired"]
    assert decision.fired is not None and decision.fired.due_at_s == NOON + 60


@pytest.mark.parametrize("catch_up", ["once", "skip"])
def test_while_its_last_job_runs_what_would_fire_is_an_overlap(catch_up: CatchUp) -> None:
    schedule = hourly(catch_up=catch_up)
    assert outcomes(decide(schedule, NOON + 1, NOON - HOUR, True)) == [(0, "overlapped")]
    late = outcomes(decide(schedule, NOON + HOUR + 900, NOON - HOUR, True))
    # What would not have fired anyway was missed, not prevented.
    assert late == [(0, "missed"), (1, "overlapped" if catch_up == "once" else "missed")]


def test_an_overlap_is_not_made_up_for() -> None:
    during = decide(HOURLY, NOON + 1, NOON - HOUR, True)
    after = decide(HOURLY, NOON + 600, during.last_due_s, False)
    assert after.due == () and after.next_at_s == NOON + HOUR


def test_a_paused_schedule_decides_nothing_and_makes_up_for_nothing() -> None:
    paused = hourly(is_enabled=False)
    idle = decide(paused, NOON + 5 * HOUR, NOON - HOUR, False)
    assert idle == Decision(due=(), last_due_s=NOON - HOUR, next_at_s=None)
    assert begin(paused, NOON, NOON - HOUR).next_at_s is None
    resumed = begin(HOURLY, NOON + 5 * HOUR, NOON - HOUR)
    assert resumed == Decision(due=(), last_due_s=NOON + 5 * HOUR, next_at_s=NOON + 6 * HOUR)
    later = decide(HOURLY, NOON + 6 * HOUR + 1, resumed.last_due_s, False)
    assert outcomes(later) == [(6, "fired")]


def test_a_new_schedule_is_due_from_now_on() -> None:
    made = begin(HOURLY, NOON + 0.5)
    assert made == Decision(due=(), last_due_s=NOON + 0.5, next_at_s=NOON + HOUR)


@pytest.mark.parametrize("back_s", [1.0, HOUR, 400 * 86400.0])
def test_a_clock_put_back_repeats_nothing(back_s: float) -> None:
    decided = decide(HOURLY, NOON + 1, NOON - HOUR, False)
    back = decide(HOURLY, NOON + 1 - back_s, decided.last_due_s, False)
    assert back == Decision(due=(), last_due_s=NOON, next_at_s=NOON + HOUR)
    resumed = begin(HOURLY, NOON + 1 - back_s, decided.last_due_s)
    assert resumed.last_due_s >= NOON and resumed.next_at_s == NOON + HOUR


def test_years_without_a_daemon_leave_the_latest_on_record() -> None:
    decision = decide(hourly(cron="* * * * *"), NOON + 30, NOON - 5 * 365 * 86400, False)
    assert len(decision.due) == MOST_DUE
    assert [due.outcome for due in decision.due] == ["missed"] * (MOST_DUE - 1) + ["fired"]
    assert decision.due[-1].due_at_s == decision.last_due_s == NOON


@settings(deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 1e5))
def test_jitter_is_within_bounds_and_the_same_for_every_daemon(number: int, jitter_s: float) -> None:
    one, other = (hourly(id=number, jitter_s=jitter_s) for _ in range(2))
    first, second = (decide(each, NOON + 3 * HOUR, NOON - HOUR, False) for each in (one, other))
    assert first == second
    assert all(due.due_at_s <= due.not_before_s <= due.due_at_s + jitter_s for due in first.due)


def test_jitter_spreads_schedules_and_times_over_its_whole_range() -> None:
    by_schedule = [
        decide(hourly(id=number, jitter_s=600), NOON, NOON - 1, False).due[0] for number in range(500)
    ]
    year = decide(hourly(jitter_s=600), NOON, NOON - 500 * HOUR, False).due
    for due in (by_schedule, year):
        late = sorted(each.not_before_s - each.due_at_s for each in due)
        assert len(set(late)) == len(late) == 500
        # Of 500 even draws a quarter holds 125, give or take 10; six of those are out of the question.
        quarters = [sum(low <= each < low + 150 for each in late) for low in (0, 150, 300, 450)]
        assert all(65 < count < 185 for count in quarters)


@settings(deadline=None)
@given(st.floats(0, 2 * 86400), st.integers(1, 6), st.sampled_from(["once", "skip"]), st.booleans())
def test_any_pauses_between_decisions_account_for_each_time_once(
    pause_s: float, pauses: int, catch_up: CatchUp, is_running: bool
) -> None:
    schedule, now_s, last_due_s = hourly(catch_up=catch_up, cron="*/20 * * * *"), NOON, NOON
    seen: list[float] = []
    for _ in range(pauses):
        now_s += pause_s
        decision = decide(schedule, now_s, last_due_s, is_running)
        assert sum(due.outcome != "missed" for due in decision.due) <= 1
        assert all(last_due_s < due.due_at_s <= now_s for due in decision.due)
        assert decision.next_at_s is not None and decision.next_at_s > now_s
        seen += [due.due_at_s for due in decision.due]
        last_due_s = decision.last_due_s
    expected = next_times(schedule.cron, "UTC", NOON, len(seen) + 1)
    assert tuple(seen) == expected[:-1] and expected[-1] > now_s


def test_records_survive_json() -> None:
    schedule = hourly(catch_up="skip", jitter_s=60.0, next_at_s=NOON, created_at_s=1.5)
    assert Schedule.from_json(schedule.to_json()) == schedule
    decision = decide(schedule, NOON + HOUR, NOON - HOUR, False)
    assert Decision.from_json(decision.to_json()) == decision


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"cron": "0 25 * * *"}, "hour of a cron expression"),
        ({"cron": "0 0 30 2 *"}, "day-of-month"),
        ({"cron": None}, "five fields"),
        ({"timezone": "Europe/Berlim"}, "Europe/Berlin"),
        ({"timezone": ""}, "IANA"),
        ({"name": ""}, "one line"),
        ({"name": " \t"}, "one line"),
        ({"name": "a\nb"}, "one line"),
        ({"name": "a\x1b[31m"}, "one line"),
        ({"name": "x" * 201}, "200 characters"),
        ({"name": "17"}, "not a number"),
        ({"name": " 17 "}, "not a number"),
        ({"catch_up": "twice"}, "once or skip"),
        ({"catch_up": None}, "once or skip"),
        ({"jitter_s": -1.0}, "jitter"),
        ({"jitter_s": float("nan")}, "jitter"),
        ({"jitter_s": float("inf")}, "jitter"),
        ({"request": JobRequest(verb="search", options=JobOptions(not_before_s=1.0))}, "not_before_s"),
    ],
)
def test_bad_schedules_are_refused(changes: Mapping[str, Any], rule: str) -> None:
    with pytest.raises(UsageError, match=rf"(?s){rule}.*|.*but got.*{rule}"):
        hourly(**changes)
