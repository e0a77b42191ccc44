"""A submit that waits: how it ends, what it shows, and daemons that die meanwhile."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from standin import LOST, Reply, StandIn, events, job

from autosparse.cli import run, waiting
from autosparse.client import following

TUNE_RESULT = {
    "model": "resnet18",
    "database": "sqlite:///rows.db",
    "considered": 3,
    "timed": 2,
    "reused": 1,
    "skipped": {},
    "table": [{"layer": "fc", "dtype": "f32", "label": "dense", "median_us": 5.0, "kernel": "k"}],
    "notes": [],
}
Captured = pytest.CaptureFixture[str]


ENDS = [
    ("done", 0, 0),
    ("infeasible", 3, 3),
    ("stopped", 6, 6),
    ("cancelled", 6, 130),
    ("failed", 2, 2),
    ("failed", 7, 7),
    ("failed", 4, 4),
    ("failed", 0, 1),
    ("failed", -9, 1),
    ("failed", None, 1),
    ("failed", 4000, 1),
]


@pytest.mark.parametrize(("state", "code", "ends"), ENDS)
@pytest.mark.parametrize("as_json", [False, True])
def test_a_command_that_waits_ends_as_its_job(
    server: StandIn, state: str, code: int | None, ends: int, as_json: bool, capsys: Captured
) -> None:
    ended = job(state, exit_code=code, message="why it is so")
    server.on("GET", "/jobs/7/events", events(("state", job()), ("end", ended)))
    has_result = state in ("done", "infeasible")
    if has_result:
        server.gives("/jobs/7/result", TUNE_RESULT)
    assert run(["submit", "tune", "--wait", *(["--json"] if as_json else [])]) == ends
    captured = capsys.readouterr()
    if not has_result:
        assert captured.out == ""
        assert "why it is so" in captured.err
        assert "autosparse resume 7" in captured.err
    elif as_json:
        assert json.loads(captured.out) == TUNE_RESULT
    else:
        assert "resnet18: 3 options, 2 timed now" in captured.out


def test_a_result_of_another_version_is_printed_as_it_came(server: StandIn, capsys: Captured) -> None:
    server.on("GET", "/jobs/7/events", events(("end", job("done", verb="search"))))
    for result in ({"schema": 99}, {"unknown": 1}, [1, 2], "text"):
        server.gives("/jobs/7/result", result)
        assert run(["submit", "search", "--wait"]) == 0
        captured = capsys.readouterr()
        assert json.loads(captured.out) == result
        assert "another version" in captured.err


def test_a_result_that_is_gone_does_not_change_how_the_job_ended(
    server: StandIn, capsys: Captured
) -> None:
    server.on("GET", "/jobs/7/events", events(("end", job("done"))))
    assert run(["submit", "tune", "--wait", "--json"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "not there any more" in captured.err


def test_lines_of_the_job_are_shown_and_quiet_shows_none(server: StandIn, capsys: Captured) -> None:
    told = events(("log", "tune: \x1b[31m3/12"), ("end", job("done")))
    server.on("GET", "/jobs/7/events", told)
    server.gives("/jobs/7/result", TUNE_RESULT)
    assert run(["submit", "tune", "--wait"]) == 0
    assert "tune: \\x1b[31m3/12" in capsys.readouterr().err
    assert run(["submit", "tune", "--wait", "-q"]) == 0
    assert "3/12" not in capsys.readouterr().err


def test_a_daemon_that_dies_meanwhile_and_comes_back_is_waited_for(
    server: StandIn, capsys: Captured
) -> None:
    def dies() -> Iterator[bytes]:
        yield b"id: 1\nevent: log\ndata: before\n\n"
        server.stop()
        threading.Timer(0.6, server.start).start()

    first = Reply(kind="text/event-stream", parts=dies, cut=True)
    server.on("GET", "/jobs/7/events", first, events(("log", "after"), ("end", job("done"))))
    server.gives("/jobs/7/result", TUNE_RESULT)
    assert run(["submit", "tune", "--wait", "--json"]) == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out) == TUNE_RESULT
    lines = captured.err.splitlines()
    assert [line for line in lines if line in ("before", "after")] == ["before", "after"]
    assert any("waiting for it" in line for line in lines)
    assert "the daemon answers again" in lines


def test_a_daemon_that_stays_away_is_given_up(
    server: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(
        following.follow,
        "__kwdefaults__",
        {
            **(following.follow.__kwdefaults__ or {}),
            "patience_s": 0.3,
        },
    )
    server.on("GET", "/jobs/7/events", LOST)
    assert run(["submit", "tune", "--wait"]) == 7
    assert capsys.readouterr().out == ""


def test_an_interrupt_leaves_the_job_and_says_how_to_cancel_it(server: StandIn) -> None:
    left = threading.Event()

    def silent() -> Iterator[bytes]:
        yield b"id: 1\nevent: log\ndata: it runs\n\n"
        left.wait(60)

    server.on("GET", "/jobs/7/events", Reply(kind="text/event-stream", parts=silent))
    command = [sys.executable, "-m", "autosparse", "submit", "tune", "--wait", "--json"]
    # What a script starts in the background ignores interrupts, and so would all that it starts.
    heeding = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
        preexec_fn=heeding,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "it runs" in line:
                break
        process.send_signal(signal.SIGINT)
        out, rest = process.communicate(timeout=60)
    left.set()
    assert process.returncode == 130
    assert out == ""
    assert "job 7 goes on" in rest
    assert "autosparse cancel 7" in rest
    assert not server.asked("POST", "/jobs/7/cancel")


class Kept:
    def __init__(self) -> None:
        self.events: list[tuple[str, str, float, float | None]] = []

    def __call__(self, event: Any) -> None:
        self.events.append((event.kind, event.step or event.message, event.done, event.total))


def test_bars_show_a_remote_job_as_a_local_one() -> None:
    from autosparse.client.records import HowFar, RemoteJob

    kept = Kept()
    shown = waiting.Shown(kept, has_bars=True)

    def far(step: str, done: float, total: float | None = 4.0) -> None:
        at = "2026-01-31T03:00:05Z"
        shown.how_far(HowFar(at=at, stage="s", step=step, done=done, total=total))

    shown.job(RemoteJob.of(job("waiting")))
    far("early", 1)
    shown.job(RemoteJob.of(job("running", attempt=1)))
    shown.job(RemoteJob.of(job("running", attempt=1, message="no news")))
    far("one", 1)
    far("one", 2)
    shown.line("one: 2/4, about 3 s left")
    shown.line("WARNING autosparse.x: the host is busy")
    far("two", 0, None)
    shown.job(RemoteJob.of(job("waiting", attempt=1, message="killed by signal 9")))
    shown.job(RemoteJob.of(job("running", attempt=2)))
    far("one", 3)
    shown.job(RemoteJob.of(job("failed", attempt=2)))
    shown.end(RemoteJob.of(job("failed", attempt=2)))
    assert kept.events == [
        ("start", "in line", 0.0, None),
        ("end", "in line", 0.0, None),
        ("log", "job 7 runs", 0.0, None),
        ("start", "one", 0.0, 4.0),
        ("advance", "one", 1, 4.0),
        ("advance", "one", 2, 4.0),
        ("log", "WARNING autosparse.x: the host is busy", 0.0, None),
        ("end", "one", 2, None),
        ("start", "two", 0.0, None),
        ("advance", "two", 0, None),
        ("end", "two", 0, None),
        ("start", "in line", 0.0, None),
        ("log", "job 7 is in line again: killed by signal 9", 0.0, None),
        ("end", "in line", 0.0, None),
        ("log", "job 7 runs, for the 2. time", 0.0, None),
        ("start", "one", 0.0, 4.0),
        ("advance", "one", 3, 4.0),
        ("end", "one", 3, 4.0),
    ]
