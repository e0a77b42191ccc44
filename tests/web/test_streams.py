"""Streams of events: over a real socket, and with clients that come back, are slow, or are gone."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fastapi import FastAPI
from talking import TOKEN, await_true, running, served, service_of, speaking, submitted

from autosparse.daemon.access import Listening
from autosparse.daemon.service import Service
from autosparse.jobs.queue import Queue
from autosparse.jobs.records import Job, Snapshot, Transition
from autosparse.jobs.schema import TRANSITIONS
from autosparse.jobs.states import State
from autosparse.jobs.store import Store
from autosparse.web.app import make_app
from autosparse.web.changes import Changes
from autosparse.web.job_files import MOST_BYTES
from autosparse.web.streams import Streams


@dataclass
class Event:
    name: str
    data: str
    id: str

    @property
    def value(self) -> Any:
        return json.loads(self.data)


class Stream:
    """Reads server-sent events as a browser does."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._events = self._read(response.iter_lines())

    def _read(self, lines: Iterator[str]) -> Iterator[Event]:
        fields: dict[str, list[str]] = {}
        for line in lines:
            if line:
                name, _, value = line.partition(":")
                fields.setdefault(name, []).append(value.removeprefix(" "))
            elif fields:
                if "data" in fields:
                    yield Event(fields["event"][0], "\n".join(fields["data"]), fields["id"][0])
                fields = {}

    def next(self, *names: str) -> Event:
        """Gives the next event of a name; others on the way are passed over."""
        return next(event for event in self._events if not names or event.name in names)

    def rest(self) -> list[Event]:
        return list(self._events)


@contextlib.contextmanager
def following(address: str, path: str, last: str | None = None, **query: object) -> Iterator[Stream]:
    headers = {} if last is None else {"Last-Event-ID": last}
    with speaking(address) as client:
        request = client.stream("GET", f"/api/v1/{path}", headers=headers, params=query)  # type: ignore[arg-type]
        with request as response:
            assert response.status_code == 200, response.read()
            assert response.headers["content-type"].startswith("text/event-stream")
            assert response.headers["cache-control"] == "no-store"
            yield Stream(response)


@pytest.fixture
def job(service: Service) -> Job:
    job = running(service)
    service.folder(job.id).mkdir(parents=True)
    return job


def says(service: Service, job: Job, *lines: str, end: str = "\n") -> None:
    with (service.folder(job.id) / "stderr.log").open("a") as stream:
        stream.write("\n".join(lines) + end)


def advances(service: Service, job: Job, done: float, at_s: float = 1e10) -> None:
    event = {"at_s": at_s, "kind": "advance", "job": "search r1", "stage": "tune", "step": "layers"}
    with (service.folder(job.id) / "events.jsonl").open("a") as stream:
        stream.write(json.dumps({**event, "done": done, "total": 9}) + "\n")


def renew(service: Service, job: Job, done: float = 0.0, at_s: float = 1.0) -> None:
    noted = Snapshot(at_s=at_s, stage="noted", step="layers", done=done, total=9.0)
    service.queue.renew(job.owner, {job.id: (job.attempt, noted)})


class TestOneJob:
    def test_from_the_queue_to_its_end(self, address: str, service: Service) -> None:
        number = submitted(service).id
        with following(address, f"jobs/{number}/events") as stream:
            assert stream.next().value["state"] == "submitted"
            service.queue.admit("me")
            assert stream.next("state").value["state"] in ("waiting", "running")
            job = service.queue.claim("me", [])
            assert job is not None
            service.folder(number).mkdir(parents=True)
            await_state(stream, "running")
            says(service, job, "one", "two")
            assert [stream.next("log").data for _ in range(2)] == ["one", "two"]
            renew(service, job)
            advances(service, job, 3)
            shown = stream.next("progress").value
            while shown["done"] != 3.0:
                shown = stream.next("progress").value
            assert (shown["stage"], shown["step"], shown["total"]) == ("tune", "layers", 9.0)
            says(service, job, "the last word", end="")
            service.queue.end(job, State.DONE, exit_code=0, run="r1")
            rest = stream.rest()
        assert [event.data for event in rest if event.name == "log"] == ["the last word"]
        assert [event.name for event in rest][-1] == "end"
        assert (rest[-1].value["state"], rest[-1].value["run"]) == ("done", "r1")

    def test_one_that_has_ended_is_told_at_once(self, address: str, service: Service, job: Job) -> None:
        says(service, job, "one", "two")
        service.queue.end(job, State.FAILED, exit_code=1, message="boom")
        with following(address, f"jobs/{job.id}/events") as stream:
            events = stream.rest()
        assert [event.name for event in events] == ["state", "log", "log", "end"]
        assert events[-1].value["message"] == "boom"

    def test_a_request_to_cancel_is_told_though_the_state_stays(
        self, address: str, service: Service, job: Job
    ) -> None:
        with following(address, f"jobs/{job.id}/events") as stream:
            assert stream.next().value["cancelling"] is False
            service.cancel(job.id)
            assert stream.next("state").value["cancelling"] is True

    def test_a_job_that_is_deleted_ends_its_stream(
        self, address: str, service: Service, job: Job
    ) -> None:
        with following(address, f"jobs/{job.id}/events") as stream:
            stream.next("state")
            with service.queue.store.writing() as connection:
                connection.execute(sa.text("delete from jobs"))
            assert [event.name for event in stream.rest()] == []

    def test_lines_of_any_kind(self, address: str, service: Service, job: Job) -> None:
        (service.folder(job.id) / "stderr.log").write_bytes(
            b"data: x\r\n\n: no comment\n\xff\n  spaces  \na\rb\n" + b"w" * 200_000 + b"\n\x00\nlast\n"
        )
        service.queue.end(job, State.DONE)
        with following(address, f"jobs/{job.id}/events", log_offset=0) as stream:
            said = [event.data for event in stream.rest() if event.name == "log"]
        assert said == [
            *("data: x", "", ": no comment", "\ufffd", "  spaces  ", "a\nb"),
            *("w" * 200_000, "\x00", "last"),
        ]


def await_state(stream: Stream, state: str) -> None:
    while stream.next("state").value["state"] != state:
        pass


class TestComingBack:
    def test_no_line_is_lost_or_said_twice(self, address: str, service: Service, job: Job) -> None:
        path = f"jobs/{job.id}/events"
        said: list[str] = []
        last: str | None = None
        for batch in range(5):
            says(service, job, *(f"{batch}.{line}" for line in range(40)))
            with following(address, path, last) as stream:
                assert stream.next().name == "state"
                for _ in range(25 if batch < 4 else 100):  # hangs up in the middle
                    event = stream.next("log")
                    said.append(event.data)
                    last = event.id
        assert said == [f"{batch}.{line}" for batch in range(5) for line in range(40)]

    def test_one_that_slept_through_the_end_is_told(
        self, address: str, service: Service, job: Job
    ) -> None:
        says(service, job, "one")
        with following(address, f"jobs/{job.id}/events") as stream:
            last = stream.next("log").id
        says(service, job, "two")
        service.queue.end(job, State.DONE)
        with following(address, f"jobs/{job.id}/events", last) as stream:
            events = stream.rest()
        assert [event.name for event in events] == ["state", "log", "end"]
        assert events[1].data == "two"
        with following(address, f"jobs/{job.id}/events", events[-1].id) as stream:
            assert [event.name for event in stream.rest()] == ["state", "end"]

    def test_the_log_begins_where_it_is_asked_to(
        self, address: str, service: Service, job: Job
    ) -> None:
        says(service, job, *(f"line {number:06}" for number in range(50_000)))
        service.queue.end(job, State.DONE)
        assert (service.folder(job.id) / "stderr.log").stat().st_size > 2 * MOST_BYTES
        for query, first, count in (({"log_offset": 0}, 0, 50_000), ({"log_offset": 12}, 1, 49_999)):
            with following(address, f"jobs/{job.id}/events", **query) as stream:
                said = [event.data for event in stream.rest() if event.name == "log"]
            assert (said[0], len(said)) == (f"line {first:06}", count)
        with following(address, f"jobs/{job.id}/events") as stream:
            said = [event.data for event in stream.rest() if event.name == "log"]
        assert 1000 < len(said) < 2000 and said[-1] == "line 049999"

    @pytest.mark.parametrize("last", [str(10**12), "0"])
    def test_an_offset_of_another_log_is_no_harm(
        self, address: str, service: Service, job: Job, last: str
    ) -> None:
        says(service, job, "one")
        with following(address, f"jobs/{job.id}/events", last) as stream:
            stream.next("state")
            says(service, job, "two")
            while stream.next("log").data != "two":
                pass

    def test_what_is_no_id_is_refused(self, address: str, job: Job) -> None:
        with speaking(address) as client:
            for path in (f"jobs/{job.id}/events", "events"):
                for last in ("x", "-1", "1.5", str(2**53 + 1), ""):
                    response = client.get(f"/api/v1/{path}", headers={"Last-Event-ID": last})
                    assert response.status_code == 422

    def test_a_fast_log_reaches_a_slow_listener_whole(
        self, address: str, service: Service, job: Job
    ) -> None:
        with (
            following(address, f"jobs/{job.id}/events") as slow,
            following(address, f"jobs/{job.id}/events") as other,
        ):
            for stream in (slow, other):
                stream.next("state")
            said = [f"{number:07} {'x' * 90}" for number in range(20_000)]
            for begin in range(0, len(said), 1000):
                says(service, job, *said[begin : begin + 1000])
                time.sleep(0.05)
            service.queue.end(job, State.DONE)
            for stream in (other, slow):
                assert [event.data for event in stream.rest() if event.name == "log"] == said


class TestOtherDaemons:
    def test_progress_comes_from_the_database(self, store: Store, tmp_path: Path) -> None:
        theirs = service_of(store, tmp_path / "theirs", "them")
        mine = service_of(store, tmp_path / "mine")
        job = running(theirs, "them")
        theirs.folder(job.id).mkdir(parents=True)
        with served(make_app(mine, Listening(), TOKEN)) as address:
            with following(address, f"jobs/{job.id}/events") as stream:
                assert stream.next().value["owner"] == "them"
                renew(theirs, job, done=4.0)
                shown = stream.next("progress").value
                assert (shown["stage"], shown["done"]) == ("noted", 4.0)
                theirs.queue.end(job, State.INFEASIBLE, exit_code=3)
                assert stream.next("end").value["exit_code"] == 3

    def test_events_of_an_earlier_attempt_here_are_not_believed(
        self, address: str, service: Service, job: Job
    ) -> None:
        renew(service, job, done=1.0, at_s=100.0)
        advances(service, job, 8.0, at_s=50.0)
        with following(address, f"jobs/{job.id}/events") as stream:
            assert stream.next("progress").value["done"] == 1.0
            advances(service, job, 2.0, at_s=101.0)
            assert stream.next("progress").value["done"] == 2.0


class TestAllJobs:
    def test_transitions_as_they_happen(self, address: str, service: Service, app: FastAPI) -> None:
        submitted(service)
        with following(address, "events") as stream:
            await_listener(app)
            number = submitted(service).id
            service.cancel(number)
            events = [stream.next("transition") for _ in range(2)]
        assert [event.value["after"] for event in events] == ["submitted", "cancelled"]
        assert {event.value["job_id"] for event in events} == {number}

    def test_one_that_comes_back_hears_what_it_missed(
        self, address: str, service: Service, app: FastAPI
    ) -> None:
        with following(address, "events") as stream:
            await_listener(app)
            submitted(service)
            last = stream.next("transition").id
        missed = [submitted(service).id for _ in range(700)]
        with following(address, "events", last) as stream:
            heard = [stream.next("transition").value["job_id"] for _ in missed]
            assert heard == missed
            number = submitted(service).id
            assert stream.next("transition").value["job_id"] == number

    def test_from_the_beginning(self, address: str, service: Service, app: FastAPI) -> None:
        numbers = [submitted(service).id for _ in range(3)]
        with following(address, "events", "0") as stream:
            assert [stream.next("transition").value["job_id"] for _ in numbers] == numbers

    def test_a_later_listener_begins_with_what_is_new_then(
        self, address: str, service: Service, app: FastAPI
    ) -> None:
        with following(address, "events") as first:
            await_listener(app)
            submitted(service)
            first.next("transition")
        submitted(service)
        with following(address, "events") as second:
            await_listener(app)
            number = submitted(service).id
            assert second.next("transition").value["job_id"] == number


def await_listener(app: FastAPI) -> None:
    """Waits until the first look was taken for somebody who listens to all jobs."""
    await_true(lambda: app.state.streams._newest.changes is not None)


class TestChanges:
    def put(self, store: Store, number: int) -> None:
        with store.writing() as connection:
            values = {"id": number, "job_id": number, "at_s": 0.0, "after": "submitted"}
            more = {"attempt": 0, "daemon": "", "reason": ""}
            connection.execute(sa.insert(TRANSITIONS).values({**values, **more}))

    def numbers(self, found: list[tuple[int, Transition]]) -> list[int]:
        return [number for number, _ in found]

    def test_a_lower_number_that_is_committed_later_is_given_too(self, store: Store) -> None:
        changes = Changes(Queue(store), 0)
        for number in (1, 3, 4):
            self.put(store, number)
        assert self.numbers(changes.new()) == [1, 3, 4] and changes.settled == 1
        assert changes.new() == []
        self.put(store, 2)
        assert self.numbers(changes.new()) == [2] and changes.settled == 4

    def test_a_number_that_never_comes_is_given_up(self, store: Store) -> None:
        now_s = 0.0
        changes = Changes(Queue(store), 0, monotonic=lambda: now_s)
        self.put(store, 2)
        assert self.numbers(changes.new()) == [2] and changes.settled == 0
        now_s = 29.0
        assert changes.new() == [] and changes.settled == 0
        now_s = 31.0
        assert changes.new() == [] and changes.settled == 2

    def test_more_than_fits_at_once(self, store: Store) -> None:
        changes = Changes(Queue(store), 0)
        with store.writing() as connection:
            values = {"job_id": 1, "at_s": 0.0, "after": "submitted"}
            more = {"attempt": 0, "daemon": "", "reason": ""}
            rows = [{"id": number, **values, **more} for number in range(2, 2502)]
            connection.execute(sa.insert(TRANSITIONS), rows)
        found: list[int] = []
        while fresh := changes.new():
            found += self.numbers(fresh)
        assert found == list(range(2, 2502))


class TestCost:
    def test_listeners_share_one_look(
        self,
        address: str,
        service: Service,
        app: FastAPI,
        job: Job,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        looks: list[int] = []
        asked: list[int] = []
        look, many = Streams._look, Queue.many
        monkeypatch.setattr(Streams, "_look", lambda *given: (looks.append(1), look(*given))[1])
        monkeypatch.setattr(Queue, "many", lambda *given: (asked.append(1), many(*given))[1])
        with contextlib.ExitStack() as stack:
            streams = [
                stack.enter_context(following(address, f"jobs/{job.id}/events")) for _ in range(8)
            ]
            for stream in streams:
                stream.next("state")
            says(service, job, "one")
            for stream in streams:
                assert stream.next("log").data == "one"
            assert len(app.state.streams._feeds) == 1
        await_true(lambda: not app.state.streams._feeds)
        assert len(asked) == len(looks)

    def test_those_that_are_gone_leave_nothing(
        self, address: str, service: Service, app: FastAPI, job: Job
    ) -> None:
        streams = app.state.streams
        for _ in range(3):
            with (
                following(address, f"jobs/{job.id}/events") as one,
                following(address, "events"),
            ):
                one.next("state")
        says(service, job, "one")
        await_true(lambda: not streams._feeds and not streams._newest.listeners)
        await_true(lambda: streams._looking is None or streams._looking.done())

    def test_nobody_listens_and_nobody_looks(
        self, address: str, job: Job, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[int] = []
        monkeypatch.setattr(Queue, "many", lambda *_: asked.append(1))
        monkeypatch.setattr(Queue, "transitions_since", lambda *_: asked.append(1))
        with speaking(address) as client:
            client.get(f"/api/v1/jobs/{job.id}")
        time.sleep(1.2)
        assert asked == []


class TestTrouble:
    @pytest.mark.parametrize("path", ["jobs/1/events", "events"])
    def test_a_silent_stream_says_that_it_lives(
        self, address: str, job: Job, path: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from autosparse.web import streams

        monkeypatch.setattr(streams, "WORD_S", 0.05)
        with following(address, path) as stream:
            lines = stream.response.iter_lines()
            words = [line for line in itertools.islice(lines, 40) if line == ": ping"]
        assert job.id == 1 and len(words) > 5

    def test_the_database_is_away_for_a_while(
        self, address: str, service: Service, job: Job, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from autosparse.errors import DatabaseError
        from autosparse.web import streams

        monkeypatch.setattr(streams, "_AWAY_S", 0.2)
        is_away = threading.Event()
        many = Queue.many

        def sometimes(queue: Queue, numbers: object) -> dict[int, Job]:
            if is_away.is_set():
                raise DatabaseError("the database is away")
            return many(queue, numbers)  # type: ignore[arg-type]

        monkeypatch.setattr(Queue, "many", sometimes)
        with following(address, f"jobs/{job.id}/events") as stream:
            stream.next("state")
            is_away.set()
            time.sleep(1.0)
            is_away.clear()
            service.queue.end(job, State.DONE)
            assert stream.next("end").value["state"] == "done"

    def test_open_streams_do_not_hold_up_the_end(
        self, app: FastAPI, service: Service, job: Job
    ) -> None:
        with served(app) as address:
            stack = contextlib.ExitStack()
            one = stack.enter_context(following(address, f"jobs/{job.id}/events"))
            every = stack.enter_context(following(address, "events"))
            one.next("state")
            began_s = time.monotonic()
        assert time.monotonic() - began_s < 4.5, "the server would give up after 5 s"
        with stack:
            assert one.rest() == [] and every.rest() == []
