"""A job followed: events in order, connections that end, daemons that die and come back."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from standin import LOST, Reply, StandIn, events, job, problem

from autosparse.client import daemon as daemon_module
from autosparse.client.daemon import Daemon
from autosparse.client.following import follow
from autosparse.client.problems import NoDaemon, NotFound, Unreachable
from autosparse.client.records import HowFar, RemoteJob
from autosparse.errors import UsageError

AT = "2026-01-31T03:00:05Z"
FAR = {
    "at": AT,
    "stage": "tune",
    "step": "layers",
    "done": 3,
    "total": 12.0,
    "message": "conv1",
    "left_s": None,
}


class Notes:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, object]] = []

    def job(self, job: RemoteJob) -> None:
        self.told.append(("job", job.state))

    def how_far(self, progress: HowFar) -> None:
        self.told.append(("far", progress.done))

    def line(self, text: str) -> None:
        self.told.append(("line", text))

    def gap(self, why: str) -> None:
        self.told.append(("gap", bool(why)))


class Clock:
    """A clock that only waiting moves."""

    def __init__(self, during: Callable[[float], None] = lambda at_s: None) -> None:
        self.at_s = 0.0
        self.waits: list[float] = []
        self._during = during

    def now(self) -> float:
        return self.at_s

    def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.at_s += seconds
        assert len(self.waits) < 1000, "this goes on for ever"
        self._during(self.at_s)


def followed(daemon: Daemon, clock: Clock | None = None, **more: float) -> tuple[RemoteJob, Notes]:
    notes, clock = Notes(), clock or Clock()
    ended = follow(daemon, 7, notes, clock=clock.now, sleep=clock.sleep, **more)
    return ended, notes


def test_a_job_is_followed_to_its_end(server: StandIn, daemon: Daemon) -> None:
    server.on(
        "GET",
        "/jobs/7/events",
        events(
            ("state", job("waiting")),
            b": still here\n\n",
            ("state", job("running")),
            ("progress", FAR),
            ("log", '"a line"'),
            b"event: log\ndata: a bare line\n\n",
            ("something new", {"of": "a newer daemon"}),
            ("end", job("done", exit_code=0)),
        ),
    )
    ended, notes = followed(daemon)
    assert ended.state == "done"
    assert notes.told == [
        *(("job", "waiting"), ("job", "running"), ("far", 3)),
        *(("line", '"a line"'), ("line", "a bare line"), ("job", "done")),
    ]
    assert "Last-Event-ID" not in server.seen[0].headers


def test_a_stream_that_ends_too_early_goes_on_after_the_last_event(
    server: StandIn, daemon: Daemon
) -> None:
    server.gives("/jobs/7", job("running"))
    server.on(
        "GET",
        "/jobs/7/events",
        events(("state", job("running")), ("log", "one"), b"id: 3\nevent: log\ndata: to", cut=True),
        events(b"id: 3\nevent: log\ndata: torn\n\n", ("end", job("infeasible"))),
    )
    ended, notes = followed(daemon)
    assert ended.state == "infeasible"
    assert [text for kind, text in notes.told if kind == "line"] == ["one", "torn"]
    streams = server.asked("GET", "/jobs/7/events")
    assert [each.headers.get("Last-Event-ID") for each in streams] == [None, "2"]


def test_an_end_that_no_event_told_is_found(server: StandIn, daemon: Daemon) -> None:
    server.gives("/jobs/7", job("failed", exit_code=1))
    server.on("GET", "/jobs/7/events", events(("state", job("running"))))
    ended, notes = followed(daemon)
    assert ended.state == "failed"
    assert notes.told[-1] == ("job", "failed")


def test_a_daemon_that_dies_and_comes_back_is_waited_for(server: StandIn, daemon: Daemon) -> None:
    def events_of_the_first() -> Iterator[bytes]:
        yield b"id: 1\nevent: log\ndata: one\n\n"
        server.stop()

    first = Reply(kind="text/event-stream", parts=events_of_the_first, cut=True)
    server.on("GET", "/jobs/7/events", first, events(("end", job("done"))))

    def back(at_s: float) -> None:
        if at_s > 60 and server._server is None:
            server.start()

    clock = Clock(back)
    ended, notes = followed(daemon, clock)
    assert ended.state == "done"
    assert notes.told == [("line", "one"), ("gap", True), ("gap", False), ("job", "done")]
    assert max(clock.waits) <= 10


def test_a_daemon_that_does_not_come_back_is_given_up(server: StandIn, daemon: Daemon) -> None:
    server.stop()
    clock = Clock()
    with pytest.raises(Unreachable):
        followed(daemon, clock, patience_s=100.0)
    assert 100 < clock.at_s < 120


def test_a_job_that_was_quiet_for_long_is_not_given_up_at_once(server: StandIn, daemon: Daemon) -> None:
    clock = Clock()

    def quiet() -> Iterator[bytes]:
        yield b": still here\n\n"
        clock.at_s += 100_000.0

    server.on(
        "GET",
        "/jobs/7/events",
        Reply(kind="text/event-stream", parts=quiet, cut=True),
        LOST,
        events(("end", job("done"))),
    )
    assert followed(daemon, clock)[0].state == "done"


@pytest.mark.parametrize("reply", [LOST, Reply(502, b"", "text/html"), problem(503, "database away")])
def test_what_may_pass_is_waited_for(server: StandIn, daemon: Daemon, reply: Reply) -> None:
    server.on("GET", "/jobs/7/events", reply, reply, reply, events(("end", job("done"))))
    ended, notes = followed(daemon)
    assert ended.state == "done"
    assert notes.told == [("gap", True), ("gap", False), ("job", "done")]


def test_streams_that_end_at_once_are_not_asked_for_all_the_time(
    server: StandIn, daemon: Daemon
) -> None:
    server.gives("/jobs/7", job("running"))
    server.on("GET", "/jobs/7/events", *[events()] * 10, events(("end", job("done"))))
    clock = Clock()
    followed(daemon, clock)
    assert clock.waits == sorted(clock.waits)
    assert clock.waits[-1] > 10 * clock.waits[0]


def test_a_stream_that_falls_silent_is_asked_for_anew(
    server: StandIn, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    monkeypatch.setattr(daemon_module, "_SILENT_S", 0.1)
    left = threading.Event()

    def silent() -> Iterator[bytes]:
        yield b"id: 1\nevent: log\ndata: one\n\n"
        left.wait(30)

    server.gives("/jobs/7", job("running"))
    server.on(
        "GET",
        "/jobs/7/events",
        Reply(kind="text/event-stream", parts=silent),
        events(("end", job("done"))),
    )
    ended, notes = followed(daemon)
    left.set()
    assert ended.state == "done"
    assert ("line", "one") in notes.told


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (problem(404, "no job has number 7", 2), NotFound),
        (problem(401, "token"), UsageError),
        (Reply(200, b"<html>", "text/html"), NoDaemon),
        (Reply(200, b"{}", "application/json"), NoDaemon),
        (Reply(200, b"", "text/event-stream", {"Content-Encoding": "gzip"}), NoDaemon),
        (events(b"event: state\ndata: {\n\n"), NoDaemon),
        (events(("state", {"id": "seven"})), NoDaemon),
        (events(("progress", None)), NoDaemon),
        (events(("progress", {**FAR, "done": "much"})), NoDaemon),
    ],
)
def test_what_does_not_pass_ends_it(
    server: StandIn, daemon: Daemon, reply: Reply, kind: type[Exception]
) -> None:
    server.on("GET", "/jobs/7/events", reply)
    with pytest.raises(kind):
        followed(daemon)
    assert len(server.seen) == 1
