from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo, available_timezones

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from autosparse.errors import ConfigError
from autosparse.schedules.times import (
    check_cron,
    check_timezone,
    describe,
    next_times,
    times_between,
)
from tests.schedules import reference
from tests.schedules.reference import ALL_HOURS, Meaning, at

MANY = 10**9
QUARTERS = {0, 15, 30, 45}
ZONES = sorted(available_timezones() - {"localtime", "Factory"})
# Shifts of an hour, of half an hour, of two hours, at midnight, for a month, none, of a day, by decree.
CHANGES = (
    ("Europe/Berlin", 2025),
    ("America/New_York", 2024),
    ("Australia/Sydney", 2025),
    ("Australia/Lord_Howe", 2025),
    ("Antarctica/Troll", 2024),
    ("America/Sao_Paulo", 2018),
    ("America/Havana", 2024),
    ("Africa/Casablanca", 2025),
    ("Asia/Kolkata", 2025),
    ("Pacific/Apia", 2011),
    ("Asia/Pyongyang", 2015),
    ("Pacific/Chatham", 2025),
)


def seconds(zone: str, *fields: int, fold: int = 0) -> float:
    return datetime(*fields, tzinfo=ZoneInfo(zone), fold=fold).timestamp()  # type: ignore[arg-type, misc]


def clock(zone: str, due: tuple[float, ...]) -> list[str]:
    return [f"{datetime.fromtimestamp(at_s, ZoneInfo(zone)):%d %H:%M%z}" for at_s in due]


def is_last(day: date) -> bool:
    return (day + timedelta(days=1)).day == 1


MEANINGS = (
    ("30 2 * * *", at({2}, {30})),
    ("*/15 * * * *", Meaning(frozenset(QUARTERS))),
    ("7,22,37,52 0-23 * * *", Meaning(frozenset({7, 22, 37, 52}))),
    ("0 3 * * sun", at({3}, {0}, lambda day: day.weekday() == 6)),
    ("0 0 * * *", at({0}, {0})),
    ("5 */2 * * *", at(set(range(0, 24, 2)), {5})),
    ("*/20 1-3 * * 7,1", at({1, 2, 3}, {0, 20, 40}, lambda day: day.weekday() in (6, 0))),
    ("0 2,3 * * *", at({2, 3}, {0})),
    ("45 23 L * *", at({23}, {45}, is_last)),
    ("0 12 13 * fri", at({12}, {0}, lambda day: day.day == 13 or day.weekday() == 4)),
    ("30 * * jan-mar,nov sat", Meaning(frozenset({30}), is_day=lambda day: (
        day.month in (1, 2, 3, 11) and day.weekday() == 5
    ))),
)  # fmt: skip


def turning_days(zone: str, year: int) -> list[datetime]:
    """The days, in UTC, in which the clock of a zone was changed."""
    days = [datetime(year, 1, 1) + timedelta(days=day) for day in range(366)]
    offsets = [day.replace(tzinfo=UTC).astimezone(ZoneInfo(zone)).utcoffset() for day in days]
    steps = zip(days, pairwise(offsets), strict=False)
    return [day for day, (before, after) in steps if before != after]


@pytest.mark.smoke
def test_half_past_two_comes_once_on_both_switch_days() -> None:
    spring = next_times("30 2 * * *", "Europe/Berlin", seconds("Europe/Berlin", 2025, 3, 29), 3)
    assert clock("Europe/Berlin", spring) == ["29 02:30+0100", "30 03:00+0200", "31 02:30+0200"]
    autumn = next_times("30 2 * * *", "Europe/Berlin", seconds("Europe/Berlin", 2025, 10, 25), 3)
    assert clock("Europe/Berlin", autumn) == ["25 02:30+0200", "26 02:30+0200", "27 02:30+0100"]


@pytest.mark.parametrize(("zone", "year"), CHANGES)
def test_quarters_go_on_in_real_time_whatever_the_clock_does(zone: str, year: int) -> None:
    start = seconds("UTC", year, 1, 1)
    due = times_between("*/15 * * * *", zone, start, start + 366 * 86400, MANY)
    assert {after - before for before, after in pairwise(due)} == {900.0}


@pytest.mark.parametrize(("zone", "year"), CHANGES)
def test_days_around_each_change_agree_with_the_reference(zone: str, year: int) -> None:
    turning = turning_days(zone, year)
    assert turning or zone == "Asia/Kolkata"
    for day in turning or [datetime(year, 6, 1)]:
        start, end = day - timedelta(days=4), day + timedelta(days=5)
        # Half a minute before, as the reference begins with its first minute.
        after_s = start.replace(tzinfo=UTC).timestamp() - 30
        until_s = end.replace(tzinfo=UTC).timestamp() - 30
        for cron, meaning in MEANINGS:
            found = times_between(cron, zone, after_s, until_s, MANY)
            assert list(found) == reference.due(meaning, zone, start, end), cron


def test_a_whole_year_agrees_with_the_reference() -> None:
    zone, start, end = "Australia/Lord_Howe", datetime(2024, 1, 1), datetime(2025, 1, 1)
    after_s = start.replace(tzinfo=UTC).timestamp() - 30
    until_s = end.replace(tzinfo=UTC).timestamp() - 30
    for cron, meaning in MEANINGS:
        found = times_between(cron, zone, after_s, until_s, MANY)
        assert list(found) == reference.due(meaning, zone, start, end), cron


def test_every_date_of_every_zone_has_its_half_past_two() -> None:
    dates = [date(2024, 3, 1) + timedelta(days=day) for day in range(60)]
    for zone in ZONES:
        ends = seconds(zone, 2024, 3, 1), seconds(zone, 2024, 4, 30)
        due = times_between("30 2 * * *", zone, *ends, MANY)
        assert [datetime.fromtimestamp(at_s, ZoneInfo(zone)).date() for at_s in due] == dates, zone


def test_a_day_that_a_zone_left_out_is_due_once_as_the_next_begins() -> None:
    thursday = seconds("Pacific/Apia", 2011, 12, 29)
    noon = next_times("0 12 * * *", "Pacific/Apia", thursday, 3)
    assert clock("Pacific/Apia", noon) == ["29 12:00-1000", "31 00:00+1400", "31 12:00+1400"]
    on_the_30th = next_times("0 12 30 12 *", "Pacific/Apia", thursday, 1)
    assert clock("Pacific/Apia", on_the_30th) == ["31 00:00+1400"]
    hours = next_times("0 6,12,18 * * *", "Pacific/Apia", thursday, 5)
    assert clock("Pacific/Apia", hours)[3:] == ["31 00:00+1400", "31 06:00+1400"]


def test_midnight_that_does_not_exist_is_one_o_clock() -> None:
    eve = seconds("America/Sao_Paulo", 2018, 11, 3, 12)
    due = next_times("@daily", "America/Sao_Paulo", eve, 2)
    assert clock("America/Sao_Paulo", due) == ["04 01:00-0200", "05 00:00-0200"]


def test_the_second_pass_of_a_repeated_hour_belongs_to_steady_expressions_alone() -> None:
    second = seconds("Europe/Berlin", 2025, 10, 26, 2, 10, fold=1)
    assert clock("Europe/Berlin", next_times("30 * * * *", "Europe/Berlin", second, 1)) == [
        "26 02:30+0100"
    ]
    assert clock("Europe/Berlin", next_times("30 2 * * *", "Europe/Berlin", second, 1)) == [
        "27 02:30+0100"
    ]
    # From the first pass of a day that is over after the second one, and comes once a year.
    first = seconds("America/Sao_Paulo", 2018, 2, 17, 23, 30)
    due = next_times("30 * 17 2 *", "America/Sao_Paulo", first, 2)
    assert clock("America/Sao_Paulo", due) == ["17 23:30-0300", "17 00:30-0300"]


def test_a_bound_within_a_repeated_hour_has_all_of_the_first_pass_behind_it() -> None:
    start, until = (seconds("Europe/Berlin", 2025, 10, 26, *time) for time in ((1, 50), (2, 10)))
    first = ["26 02:00+0200", "26 02:15+0200", "26 02:30+0200", "26 02:45+0200"]
    for cron, due in (
        ("*/15 * * * *", [*first, "26 02:00+0100"]),
        ("*/15 1-3 * * *", first),
        ("50 2 * * *", ["26 02:50+0200"]),
    ):
        assert (
            clock("Europe/Berlin", times_between(cron, "Europe/Berlin", start, until + 3600, 9)) == due
        )
        later = times_between(cron, "Europe/Berlin", until, until + 3600, 9)
        assert clock("Europe/Berlin", later) == [
            each for each in due if each > "26 02:10" or "+01" in each
        ]


def test_spelling_does_not_matter_where_the_clock_changes() -> None:
    start = seconds("UTC", 2025, 3, 25)
    for one, other in (
        ("*/30 * * * *", "0,30 0-23 * * *"),
        ("0 */2 * * *", "0 0,2,4,6,8,10,12,14,16,18,20,22 * * *"),
        ("*/10 2 * * *", "0,10,20,30,40,50 2 * * *"),
    ):
        for zone in ("Europe/Berlin", "Australia/Lord_Howe"):
            end = start + 14 * 86400  # Europe goes to summer time, Lord Howe from it
            due = times_between(one, zone, start, end, MANY)
            assert due == times_between(other, zone, start, end, MANY)


def test_the_limit_keeps_the_latest_and_years_without_a_daemon_cost_nothing() -> None:
    now = seconds("UTC", 2026, 1, 1)
    due = times_between("* * * * *", "Europe/Berlin", 0.0, now, 3)
    assert due == (now - 120, now - 60, now)
    assert times_between("* * * * *", "Europe/Berlin", now, now, 3) == ()
    assert times_between("* * * * *", "Europe/Berlin", now + 600, now, 3) == ()


def test_bounds_are_exclusive_below_and_inclusive_above_to_a_part_of_a_second() -> None:
    noon = seconds("UTC", 2025, 6, 1, 12)
    for after_s, until_s, expected in (
        (noon - 1, noon, (noon,)),
        (noon - 0.001, noon + 0.001, (noon,)),
        (noon, noon + 1, ()),
        (noon - 1, noon - 0.001, ()),
    ):
        assert times_between("0 12 * * *", "UTC", after_s, until_s, 9) == expected
    assert next_times("0 12 * * *", "UTC", noon - 0.25, 1) == (noon,)
    assert next_times("0 12 * * *", "UTC", noon, 1) == (noon + 86400,)


def test_times_end_with_the_calendar() -> None:
    due = next_times("@yearly", "Europe/Berlin", seconds("UTC", 9990, 6, 1), 50)
    assert [datetime.fromtimestamp(at_s, UTC).year for at_s in due] == list(range(9990, 9999))


def test_leap_days_on_a_sunday_are_found_across_a_century_without_one() -> None:
    due = next_times("0 0 29 2 */7", "UTC", seconds("UTC", 2080, 1, 1), 3)
    leap_days = [date(year, 2, 29) for year in range(2080, 2200, 4) if year != 2100]
    sundays = [day for day in leap_days if day.weekday() == 6]
    assert [datetime.fromtimestamp(at_s, UTC).date() for at_s in due] == sundays[:3]
    assert max(after.year - before.year for before, after in pairwise(sundays[:3])) == 40


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (" 0  3 * *\tSUN\n", "0 3 * * sun"),
        ("@daily", "0 0 * * *"),
        ("@Midnight", "0 0 * * *"),
        ("@hourly", "0 * * * *"),
        ("@weekly", "0 0 * * 0"),
        ("@monthly", "0 0 1 * *"),
        ("@yearly", "0 0 1 1 *"),
        ("@annually", "0 0 1 1 *"),
        ("*/60 */24 */31 */12 */7", "*/60 */24 */31 */12 */7"),
        ("0 0 LW Jan-Mar 5L", "0 0 lw jan-mar 5l"),
        ("0 0 29 2 *", "0 0 29 2 *"),
        ("0 0 30 2 mon", "0 0 30 2 mon"),  # Mondays of February
    ],
)
def test_expressions_are_normalised(written: str, read: str) -> None:
    assert check_cron(written) == check_cron(read) == read
    assert next_times(written, "UTC", 0.0, 3) == next_times(read, "UTC", 0.0, 3)


BAD = {
    "five fields": " ;@;@reboot;@sunday;0 3 * *;0 0 3 * * sun;0 3 * * sun 2026",
    "minute": "60 * * * *;-1 * * * *;*/0 * * * *;*/90 * * * *;a * * * *;1.5 * * * *;1,,2 * * * *;"
    f"5-1 * * * *;1/2/3 * * * *;** * * * *;{'1' * 9999} * * * *",
    "hour": "0 24 * * *;0 3h * * *;0 */25 * * *;0 l * * *",
    "day-of-month": "0 0 0 * *;0 0 32 * *;0 0 30 2 *;0 0 31 4,6,9,11 *;0 0 31 2 */2;0 0 3l * *",
    "month": "0 0 * 13 *;0 0 * 0 *;0 0 * january *;0 0 * */13 *",
    "day-of-week": "0 0 * * 8;0 0 * * sunday;0 0 * * fri-mon;0 0 * * mon#6;0 0 * * l;0 0 * * \u0661",
    "due on some day": "0 0 */31 * mon#2;0 0 */31 * wed#2,fri#3",
}


@pytest.mark.parametrize(
    ("field", "bad"), [(rule, text) for rule in BAD for text in BAD[rule].split(";")]
)
def test_bad_expressions_are_refused_with_field_value_and_remedy(field: str, bad: str) -> None:
    for text in (bad, bad.upper()):
        with pytest.raises(ConfigError, match=rf"{field}.* but got .*write '0 3 \* \* sun'"):
            check_cron(text)


@pytest.mark.parametrize("value", [None, 5, 5.0, True, b"0 3 * * *", ["0 3 * * *"], {"minute": 0}])
def test_what_is_no_text_is_neither_expression_nor_zone(value: object) -> None:
    for read in (check_cron, describe, check_timezone):
        with pytest.raises(ConfigError, match=r"must be .* but got"):
            read(value)  # type: ignore[arg-type]


def test_what_was_not_checked_before_is_refused_where_it_is_used() -> None:
    for cron, zone in (("0 3 * *", "UTC"), ("0 25 * * *", "UTC"), ("0 3 * * *", "Mars/Olympus")):
        with pytest.raises(ConfigError):
            next_times(cron, zone, 0.0, 1)
        with pytest.raises(ConfigError):
            times_between(cron, zone, 0.0, 1.0, 1)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("Europe/Berlim", "Europe/Berlin"),
        ("europe/berlin", "Europe/Berlin"),
        ("berlin", "Europe/Berlin"),
        ("New York", "America/New_York"),
        ("utc", "UTC"),
        ("calcutta", "Asia/Calcutta"),
        ("CEST", "Europe/Berlin or UTC"),  # an abbreviation resembles EST, which is another thing
        ("localtime", "Europe/Berlin or UTC"),
        ("", "Europe/Berlin or UTC"),
        ("../../etc/passwd", "Europe/Berlin or UTC"),
        ("\0", "Europe/Berlin or UTC"),
        ("x" * 100_000, "Europe/Berlin or UTC"),
    ],
)
def test_unknown_zones_are_refused_with_the_nearest(written: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=rf"IANA database, but got .*; write {meant}$"):
        check_timezone(written)


def test_zones_keep_their_names() -> None:
    assert [check_timezone(zone) for zone in ZONES] == ZONES


def test_expressions_are_told_in_english() -> None:
    assert describe("0 3 * * sun") == "At 03:00 on Sunday"
    assert describe("@hourly") == describe("0 * * * *")


@given(st.text(alphabet="0123456789*/,-#lw @sunjan", max_size=24))
def test_text_is_an_expression_with_times_or_refused(text: str) -> None:
    try:
        cron = check_cron(text)
    except ConfigError:
        return
    assert check_cron(cron) == cron
    assert describe(cron)
    assert next_times(cron, "Europe/Berlin", 0.0, 1)


@st.composite
def expressions(draw: st.DrawFn) -> tuple[str, Meaning]:
    """An expression and what it means."""
    texts: list[str] = []
    values: list[frozenset[int]] = []
    for low, high in ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6)):
        some = draw(st.none() | st.frozensets(st.integers(low, high), min_size=1, max_size=6))
        texts.append("*" if some is None else ",".join(map(str, sorted(some))))
        values.append(frozenset(range(low, high + 1)) if some is None else some)
    minutes, hours, days, months, weekdays = values
    both = "*" in (texts[2], texts[4])

    def is_day(day: date) -> bool:
        of_month, of_week = day.day in days, day.isoweekday() % 7 in weekdays
        return day.month in months and (of_month and of_week if both else of_month or of_week)

    return " ".join(texts), Meaning(minutes, hours, is_day)


@st.composite
def moments(draw: st.DrawFn) -> tuple[str, float]:
    """A zone and a time there, preferably close to a change of its clock."""
    zone, year = draw(st.sampled_from(ZONES)), draw(st.integers(1971, 2036))
    turning = turning_days(zone, year)
    day = draw(st.sampled_from(turning)) if turning else datetime(year, 5, 1)
    return zone, day.replace(tzinfo=UTC).timestamp() + draw(st.floats(-86400, 2 * 86400))


@settings(deadline=None)
@given(expressions(), moments(), st.integers(1, 40), st.data())
def test_times_ascend_and_agree_forwards_and_backwards(
    expression: tuple[str, Meaning], moment: tuple[str, float], count: int, data: st.DataObject
) -> None:
    (cron, _), (zone, after_s) = expression, moment
    try:
        check_cron(cron)
    except ConfigError:
        assume(False)
    due = next_times(cron, zone, after_s, count)
    assert len(due) == count
    assert all(before < after for before, after in pairwise((after_s, *due)))
    assert times_between(cron, zone, after_s, due[-1], MANY) == due
    assert times_between(cron, zone, after_s, due[-1], count // 2) == due[count - count // 2 :]
    split_s = data.draw(st.floats(after_s, due[-1]) | st.sampled_from(due))
    lower = times_between(cron, zone, after_s, split_s, MANY)
    upper = times_between(cron, zone, split_s, due[-1], MANY)
    assert lower + upper == due
    assert next_times(cron, zone, split_s, len(upper)) == upper


@settings(deadline=None, max_examples=60)
@given(expressions(), moments())
def test_any_expression_agrees_with_the_reference(
    expression: tuple[str, Meaning], moment: tuple[str, float]
) -> None:
    (cron, meaning), (zone, at_s) = expression, moment
    start = datetime.fromtimestamp(at_s // 86400 * 86400 - 86400, UTC).replace(tzinfo=None)
    end = start + timedelta(days=3)
    # Clocks that were not on whole minutes of UTC show whole minutes between those the reference sees.
    assume(all(wall.second == 0 for _, wall in reference.clock(zone, start, end)))
    try:
        check_cron(cron)
    except ConfigError:
        assume(False)
    after_s, until_s = (edge.replace(tzinfo=UTC).timestamp() - 30 for edge in (start, end))
    found = times_between(cron, zone, after_s, until_s, MANY)
    assert list(found) == reference.due(meaning, zone, start, end)
    assert meaning.hours != ALL_HOURS or len(found) <= 3 * 24 * len(meaning.minutes)
