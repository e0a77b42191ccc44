"""The queue: who may do what to a job when, in SQLite and in PostgreSQL."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from autosparse.errors import UsageError
from autosparse.jobs.forgetting import Leftover, forget_jobs
from autosparse.jobs.queue import Conflict, Lost, Queue
from autosparse.jobs.records import Job, JobOptions, JobRequest, Snapshot
from autosparse.jobs.rows import NoSuchJob
from autosparse.jobs.states import NEXT, OPEN, State
from autosparse.jobs.store import Store

HOUR_S = 3600.0


class FakeClock:
    def __init__(self) -> None:
        self.now_s = 1_000_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def queue(database_url: str, clock: FakeClock) -> Iterator[Queue]:
    with Store(database_url, clock=clock) as store:
        yield Queue(store, lease_s=30.0)


def asked(**options: object) -> JobRequest:
    return JobRequest(
        verb="tune",
        settings={"model": "resnet20", "include": ["a*"], "seed": 3},
        options=JobOptions(**options),  # type: ignore[arg-type]
    )


def running(queue: Queue, daemon: str = "a", **options: object) -> Job:
    queue.submit(asked(**options))
    queue.admit(daemon)
    job = queue.claim(daemon, ["hw"])
    assert job is not None
    return job


class TestSubmitting:
    def test_a_job_comes_back_as_it_was_asked(self, queue: Queue, clock: FakeClock) -> None:
        request = asked(priority=5, label="nightly", time_limit_s=60.0, hardware_id="hw")
        job, is_new = queue.submit(request)
        assert is_new and job == queue.get(job.id)
        assert job.request == request
        assert (job.state, job.submitted_at_s, job.attempt) == (State.SUBMITTED, clock.now_s, 0)

    def test_a_key_stands_for_one_job(self, queue: Queue) -> None:
        first, _ = queue.submit(asked(), key="k")
        again, is_new = queue.submit(asked(), key="k")
        assert not is_new and again.id == first.id
        with pytest.raises(Conflict, match=f"'k' is that of job {first.id}"):
            queue.submit(asked(priority=1), key="k")
        assert queue.submit(asked())[0].id != first.id

    def test_one_key_at_the_same_instant_makes_one_job(self, queue: Queue) -> None:
        gate = threading.Barrier(8)

        def submit(_: int) -> tuple[int, bool]:
            gate.wait()
            job, is_new = queue.submit(asked(), key="same")
            return job.id, is_new

        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(submit, range(8)))
        assert len({number for number, _ in found}) == 1
        assert sum(is_new for _, is_new in found) == 1

    @pytest.mark.parametrize(
        "wrong",
        [
            {"priority": 101},
            {"priority": -101},
            {"retries": -1},
            {"time_limit_s": 0.0},
            {"label": "a\nb"},
            {"label": "x" * 201},
        ],
    )
    def test_options_that_break_a_rule(self, wrong: dict[str, object]) -> None:
        with pytest.raises(UsageError, match=r"must be .*, but got"):
            asked(**wrong)

    def test_numbers_of_removed_jobs_are_not_given_again(self, queue: Queue, clock: FakeClock) -> None:
        job = running(queue)
        queue.end(job, State.DONE)
        clock.now_s += HOUR_S
        assert [each.job_id for each in forget(queue, clock.now_s)] == [job.id]
        with pytest.raises(NoSuchJob):
            queue.get(job.id)
        assert queue.submit(asked())[0].id > job.id


class TestClaiming:
    def test_higher_priorities_first_and_then_the_older(self, queue: Queue) -> None:
        numbers = [queue.submit(asked(priority=p))[0].id for p in (0, 5, 0, -1, 5)]
        queue.admit("a")
        claimed = [queue.claim("a", []) for _ in range(6)]
        order = [None if job is None else job.id for job in claimed]
        assert order == [numbers[1], numbers[4], numbers[0], numbers[2], numbers[3], None]

    def test_a_job_for_other_hardware_is_left(self, queue: Queue) -> None:
        queue.submit(asked(hardware_id="other"))
        queue.admit("a")
        assert not queue.has_work(["hw"]) and queue.claim("a", ["hw"]) is None
        assert queue.has_work(["other"]) and queue.claim("b", ["hw", "other"]) is not None

    def test_a_job_does_not_begin_before_its_time(self, queue: Queue, clock: FakeClock) -> None:
        queue.submit(asked(not_before_s=clock.now_s + HOUR_S))
        queue.admit("a")
        assert queue.claim("a", []) is None
        clock.now_s += HOUR_S
        assert queue.claim("a", []) is not None

    def test_many_at_once_never_get_the_same(self, queue: Queue) -> None:
        wanted = {queue.submit(asked())[0].id for _ in range(40)}
        queue.admit("a")
        counter = itertools.count()

        def claim_all(_: int) -> list[int]:
            me = f"daemon-{next(counter)}"
            return [job.id for job in iter(lambda: queue.claim(me, []), None)]

        with ThreadPoolExecutor(6) as pool:
            found = list(itertools.chain(*pool.map(claim_all, range(6))))
        # On a server a daemon that meets a row that another has locked may find nothing for once.
        found += [job.id for job in iter(lambda: queue.claim("last", []), None)]
        assert sorted(found) == sorted(wanted)


class TestLeases:
    def test_an_owner_that_gives_word_keeps_its_job(self, queue: Queue, clock: FakeClock) -> None:
        job = running(queue)
        for _ in range(5):
            clock.now_s += 20
            snapshot = Snapshot(at_s=clock.now_s, stage="tune", done=1.0)
            assert queue.renew("a", {job.id: (1, snapshot)}) == {job.id: False}
            assert queue.take_from([], "b") == []
        assert queue.get(job.id).snapshot == snapshot

    def test_a_silent_owner_loses_its_job_and_cannot_end_it(
        self, queue: Queue, clock: FakeClock
    ) -> None:
        job = running(queue)
        clock.now_s += 31
        assert queue.take_from([], "b") == [job.id]
        taken = queue.claim("b", [])
        assert taken is not None and (taken.id, taken.attempt, taken.owner) == (job.id, 2, "b")
        assert queue.renew("a", {job.id: (1, None)}) == {}
        for late in (
            lambda: queue.end(job, State.DONE),
            lambda: queue.put_back(job, reason="x", is_failure=True),
        ):
            with pytest.raises(Lost):
                late()
        assert queue.get(job.id) == taken
        assert queue.end(taken, State.DONE, exit_code=0).state == State.DONE

    def test_the_same_owner_cannot_end_an_earlier_attempt(self, queue: Queue) -> None:
        job = running(queue)
        queue.put_back(job, reason="killed", is_failure=True)
        again = queue.claim("a", [])
        assert again is not None
        with pytest.raises(Lost):
            queue.end(job, State.FAILED)
        queue.end(again, State.DONE)

    def test_a_job_of_a_daemon_that_is_gone_is_taken_at_once(self, queue: Queue) -> None:
        job = running(queue, "gone")
        other = running(queue, "alive")
        assert queue.take_from(["gone"], "b") == [job.id]
        assert queue.get(other.id).owner == "alive"

    def test_a_failure_counts_and_waits(self, queue: Queue, clock: FakeClock) -> None:
        job = running(queue)
        back = queue.put_back(job, reason="killed", wait_s=10, is_failure=True, ran_s=7.5)
        assert (back.failures, back.ran_s, back.message) == (1, 7.5, "killed")
        assert queue.claim("a", []) is None
        clock.now_s += 10
        again = queue.claim("a", [])
        assert again is not None and again.failures == 1 and again.message == ""


class TestCancelling:
    def test_one_that_waits_ends_at_once(self, queue: Queue) -> None:
        job, _ = queue.submit(asked())
        assert queue.cancel(job.id).state == State.CANCELLED
        queue.admit("a")
        assert queue.claim("a", []) is None

    def test_one_that_runs_is_heard_by_its_owner(self, queue: Queue) -> None:
        job = running(queue)
        assert queue.cancel(job.id).state == State.RUNNING
        assert queue.renew("a", {job.id: (1, None)}) == {job.id: True}
        assert queue.end(job, State.CANCELLED).is_cancelling is False

    def test_one_whose_daemon_dies_does_not_begin_again(self, queue: Queue, clock: FakeClock) -> None:
        job = running(queue)
        queue.cancel(job.id)
        clock.now_s += 31
        queue.take_from([], "b")
        assert queue.get(job.id).state == State.CANCELLED

    @pytest.mark.parametrize("state", [State.STOPPED, State.FAILED, State.CANCELLED])
    def test_what_was_stopped_goes_on_when_resumed(self, queue: Queue, state: State) -> None:
        job = running(queue)
        queue.end(job, state, exit_code=6, message="why", run="run", ran_s=5.0)
        with pytest.raises(Conflict, match=rf"job {job.id} is {state}"):
            queue.cancel(job.id)
        again = queue.resume(job.id)
        assert (again.state, again.message, again.exit_code, again.run, again.ran_s) == (
            State.WAITING,
            "",
            None,
            "run",
            0.0,
        )
        claimed = queue.claim("a", [])
        assert claimed is not None and claimed.attempt == 2

    @pytest.mark.parametrize("state", [State.DONE, State.INFEASIBLE])
    def test_what_has_its_result_is_not_resumed(self, queue: Queue, state: State) -> None:
        job = running(queue)
        queue.end(job, state, exit_code=0)
        with pytest.raises(Conflict, match=f"is {state}"):
            queue.resume(job.id)
        with pytest.raises(Conflict):
            queue.cancel(job.id)


class TestLooking:
    def test_a_list_goes_on_where_it_ended_while_jobs_are_added(self, queue: Queue) -> None:
        numbers = [queue.submit(asked())[0].id for _ in range(7)]
        found: list[int] = []
        before = None
        while page := queue.jobs(before_id=before, limit=3):
            found += [job.id for job in page]
            before = page[-1].id
            queue.submit(asked())
        assert found == numbers[::-1]

    def test_by_state(self, queue: Queue) -> None:
        job = running(queue)
        queue.submit(asked())
        assert [each.id for each in queue.jobs(states=[State.RUNNING])] == [job.id]
        depths = queue.depths()
        assert (depths[State.RUNNING], depths[State.SUBMITTED], depths[State.DONE]) == (1, 1, 0)
        assert set(depths) == set(State)

    def test_every_transition_is_a_row_with_its_time(self, queue: Queue, clock: FakeClock) -> None:
        job = running(queue)
        clock.now_s += 5
        queue.end(job, State.INFEASIBLE, exit_code=3, message="no", reason="no")
        rows = queue.transitions(job.id)
        assert [(row.before, row.after) for row in rows] == [
            (None, State.SUBMITTED),
            (State.SUBMITTED, State.WAITING),
            (State.WAITING, State.RUNNING),
            (State.RUNNING, State.INFEASIBLE),
        ]
        assert rows[-1].at_s == clock.now_s == rows[0].at_s + 5
        assert (rows[-1].attempt, rows[-1].daemon, rows[-1].reason) == (1, "a", "no")
        last = queue.last_transition()
        assert [row for _, row in queue.transitions_since(last - 2)] == rows[-2:]

    @pytest.mark.parametrize("look", ["get", "transitions", "cancel", "resume"])
    def test_a_number_of_no_job(self, queue: Queue, look: str) -> None:
        ask: Callable[[int], object] = getattr(queue, look)
        with pytest.raises(NoSuchJob, match="but got 99"):
            ask(99)


def test_every_state_leads_somewhere_or_is_the_end() -> None:
    assert set(NEXT) == set(State)
    reached = {State.SUBMITTED}
    while more := {after for state in reached for after in NEXT[state]} - reached:
        reached |= more
    assert reached == set(State)
    assert not any(NEXT[state] for state in (State.DONE, State.INFEASIBLE))
    assert all(NEXT[state] for state in OPEN)


def forget(queue: Queue, before_s: float) -> tuple[Leftover, ...]:
    return forget_jobs(queue.store, before_s, lambda leftover, in_use: False).found


def test_only_what_ended_long_ago_is_forgotten(queue: Queue, clock: FakeClock) -> None:
    old = running(queue)
    queue.end(old, State.DONE)
    queue.submit(asked())
    clock.now_s += HOUR_S
    new = running(queue)
    queue.end(new, State.FAILED)
    assert [each.job_id for each in forget(queue, clock.now_s - 1)] == [old.id]
    assert old.id not in [job.id for job in queue.jobs()] and len(queue.jobs()) == 2
    assert queue.transitions_since(0)[0][1].job_id != old.id
