"""Due times become jobs, each once, whichever daemon comes first and whenever it dies."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest
import sqlalchemy as sa

from autosparse.errors import UsageError
from autosparse.jobs.queue import Conflict, Queue
from autosparse.jobs.records import JobOptions, JobRequest
from autosparse.jobs.schema import SCHEDULES
from autosparse.jobs.states import State
from autosparse.jobs.store import Store
from autosparse.schedules.schedule import Schedule
from autosparse.schedules.store import NoSuchSchedule, Schedules

MINUTE_S, HOUR_S, DAY_S = 60.0, 3600.0, 86400.0
ASKED = JobRequest(verb="tune", settings={"model": "resnet20"}, options=JobOptions(priority=3))


class FakeClock:
    def __init__(self, now: datetime) -> None:
        self.now_s = now.timestamp()

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC))


@pytest.fixture
def schedules(database_url: str, clock: FakeClock) -> Iterator[Schedules]:
    with Store(database_url, clock=clock) as store:
        yield Schedules(Queue(store))


def queue_of(schedules: Schedules) -> Queue:
    return schedules._queue


def hourly(schedules: Schedules, **how: object) -> Schedule:
    values = {"name": "hourly", "cron": "0 * * * *", "timezone": "UTC", **how}
    return schedules.add(ASKED, **values)  # type: ignore[arg-type]


def finish(queue: Queue) -> None:
    queue.admit("a")
    while job := queue.claim("a", []):
        queue.end(job, State.DONE)


def test_it_comes_back_as_it_was_made(schedules: Schedules, clock: FakeClock) -> None:
    made = hourly(schedules, catch_up="skip", jitter_s=30.0)
    assert schedules.get(made.id) == schedules.get("hourly") == made == schedules.all()[0]
    assert made.request == ASKED and made.next_at_s == clock.now_s - 30 + HOUR_S


def test_it_is_due_once(schedules: Schedules, clock: FakeClock) -> None:
    made = hourly(schedules)
    assert schedules.make_due_jobs() == []
    clock.now_s += HOUR_S
    jobs = schedules.make_due_jobs()
    assert len(jobs) == 1 and schedules.make_due_jobs() == []
    job = queue_of(schedules).get(jobs[0])
    assert (job.schedule_id, job.due_at_s) == (made.id, clock.now_s - 30)
    assert (job.request.verb, job.request.settings, job.request.options.priority) == (
        "tune",
        {"model": "resnet20"},
        3,
    )
    [fired] = schedules.occurrences(made.id)
    assert (fired.outcome, fired.job_id, fired.due_at_s) == ("fired", job.id, job.due_at_s)


def test_a_job_of_it_may_begin_only_after_its_jitter(schedules: Schedules, clock: FakeClock) -> None:
    hourly(schedules, jitter_s=600.0)
    begins = []
    for _ in range(5):
        clock.now_s += HOUR_S
        [number] = schedules.make_due_jobs()
        job = queue_of(schedules).get(number)
        assert job.due_at_s is not None
        begins.append(job.ready_at_s - job.due_at_s)
        queue_of(schedules).cancel(number)
    assert all(0 <= each <= 600 for each in begins) and len(set(begins)) == 5


@pytest.mark.parametrize(("catch_up", "fired"), [("once", 1), ("skip", 0)])
def test_what_was_missed_is_caught_up_once_or_skipped(
    schedules: Schedules, clock: FakeClock, catch_up: str, fired: int
) -> None:
    made = hourly(schedules, catch_up=catch_up)
    clock.now_s += 5 * HOUR_S + 10 * MINUTE_S
    assert len(schedules.make_due_jobs()) == fired
    outcomes = Counter(each.outcome for each in schedules.occurrences(made.id))
    assert outcomes == Counter({"fired": fired, "missed": 5 - fired}) + Counter()
    assert schedules.get(made.id).next_at_s == clock.now_s - 10 * MINUTE_S - 30 + HOUR_S


def test_it_does_not_overlap_with_itself(schedules: Schedules, clock: FakeClock) -> None:
    made = hourly(schedules)
    other = hourly(schedules, name="other")
    clock.now_s += HOUR_S
    first = schedules.make_due_jobs()
    assert len(first) == 2
    queue_of(schedules).cancel(first[1])  # the other's has ended
    clock.now_s += HOUR_S
    [again] = schedules.make_due_jobs()
    assert queue_of(schedules).get(again).schedule_id == other.id
    assert schedules.occurrences(made.id)[0].outcome == "overlapped"
    finish(queue_of(schedules))
    clock.now_s += HOUR_S
    assert len(schedules.make_due_jobs()) == 2


def test_paused_it_is_never_due_and_resumed_it_catches_nothing_up(
    schedules: Schedules, clock: FakeClock
) -> None:
    made = hourly(schedules)
    paused = schedules.pause("hourly")
    assert (paused.is_enabled, paused.next_at_s) == (False, None) and schedules.pause(made.id) == paused
    clock.now_s += 3 * HOUR_S
    assert schedules.make_due_jobs() == []
    assert schedules.resume(made.id).next_at_s == clock.now_s - 30 + HOUR_S
    assert schedules.make_due_jobs() == [] and schedules.occurrences(made.id) == []
    clock.now_s += HOUR_S
    assert len(schedules.make_due_jobs()) == 1


def test_removed_it_is_gone_and_its_jobs_stay(schedules: Schedules, clock: FakeClock) -> None:
    made = hourly(schedules)
    clock.now_s += HOUR_S
    [number] = schedules.make_due_jobs()
    schedules.remove("hourly")
    clock.now_s += HOUR_S
    assert schedules.make_due_jobs() == [] and schedules.all() == []
    for ask in (schedules.get, schedules.pause, schedules.resume, schedules.remove):
        with pytest.raises(NoSuchSchedule, match="'hourly'"):
            ask("hourly")
    assert queue_of(schedules).get(number).schedule_id == made.id
    assert hourly(schedules).id > made.id  # the name is free again


def test_names_are_their_own(schedules: Schedules) -> None:
    hourly(schedules)
    with pytest.raises(Conflict, match="'hourly'"):
        hourly(schedules)
    with pytest.raises(UsageError):
        hourly(schedules, name="7")


@pytest.mark.parametrize("wanted", ["", "x", "0", "99", "9" * 30, "²", "-1", 99])
def test_one_that_is_not_there(schedules: Schedules, wanted: int | str) -> None:
    with pytest.raises(NoSuchSchedule):
        schedules.get(wanted)


def test_two_daemons_at_once_make_one_job(database_url: str, clock: FakeClock) -> None:
    with Store(database_url, clock=clock) as store:
        schedules = Schedules(Queue(store))
        numbers = [hourly(schedules, name=f"s-{n}").id for n in range(5)]
        clock.now_s += HOUR_S
        gate = threading.Barrier(6)

        def tick(_: int) -> list[int]:
            gate.wait()
            return Schedules(Queue(Store(database_url, clock=clock))).make_due_jobs()

        with ThreadPoolExecutor(6) as pool:
            made = [number for found in pool.map(tick, range(6)) for number in found]
        made += schedules.make_due_jobs()
        assert len(made) == 5
        assert {schedules._queue.get(number).schedule_id for number in made} == set(numbers)


def test_a_daemon_that_dies_between_decisions_repeats_and_forgets_none(
    schedules: Schedules, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = hourly(schedules)
    clock.now_s += HOUR_S
    with monkeypatch.context() as patch:

        def die(*args: object, **more: object) -> None:
            raise KeyboardInterrupt

        patch.setattr(schedules, "_go_on", die)  # after the job was stored, before it is committed
        with pytest.raises(KeyboardInterrupt):
            schedules.make_due_jobs()
    assert queue_of(schedules).jobs() == [] and schedules.occurrences(made.id) == []
    assert len(schedules.make_due_jobs()) == 1


@pytest.mark.long
def test_a_year_in_a_store(clock: FakeClock, tmp_path: object) -> None:
    """Both switch days of three zones, looked at every four hours: every due time is stored once."""
    with Store(f"sqlite:///{tmp_path}/year.db", clock=clock) as store:
        schedules = Schedules(Queue(store))
        zones = ("Europe/Berlin", "America/New_York", "Australia/Sydney")
        mine = [schedules.add(ASKED, name=zone, cron="30 2 * * *", timezone=zone) for zone in zones]
        days = 365
        for _ in range(days * 6):
            clock.now_s += 4 * HOUR_S
            schedules.make_due_jobs()
            finish(queue_of(schedules))
        for each in mine:
            found = schedules.occurrences(each.id, limit=1000)
            assert len(found) == days and {one.outcome for one in found} == {"fired"}
            gaps = {
                round((later.due_at_s - earlier.due_at_s) / HOUR_S, 2)
                for later, earlier in itertools.pairwise(found)
            }
            assert gaps <= {23.0, 23.5, 24.0, 24.5, 25.0} and len(gaps) >= 3


def test_one_that_this_host_cannot_read_does_not_stop_the_others(
    schedules: Schedules, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    bad = hourly(schedules, name="of another host")
    hourly(schedules)
    with queue_of(schedules).store.writing() as connection:
        connection.execute(
            sa.update(SCHEDULES).where(SCHEDULES.c.id == bad.id).values(timezone="Mars/Olympus")
        )
    clock.now_s += HOUR_S
    schedules.look_again()
    assert len(schedules.make_due_jobs()) == 1
    assert "of another host is not due" in caplog.text


def test_rules_of_time_zones_that_changed_move_what_is_due_next(
    schedules: Schedules, clock: FakeClock
) -> None:
    made = hourly(schedules)
    assert made.next_at_s is not None
    with queue_of(schedules).store.writing() as connection:
        connection.execute(sa.update(SCHEDULES).values(next_at_s=made.next_at_s + 1800))
    schedules.look_again()
    assert schedules.get(made.id).next_at_s == made.next_at_s
