"""Jobs of a daemon looked at, read, cancelled and resumed."""

from __future__ import annotations

import json
import sys

import pytest
from standin import Reply, StandIn, job, problem, schedule

from autosparse.cli import run

Captured = pytest.CaptureFixture[str]


def test_open_jobs_are_listed_beside_recent_ones(server: StandIn, capsys: Captured) -> None:
    waits, runs = job("waiting", id=2), job("running", id=9, label="a label")
    recent = [runs, job("done", id=8), job("failed", id=7, message="why\x1b[2J")]
    server.on("GET", "/jobs", Reply(body={"items": [runs, waits]}), Reply(body={"items": recent}))
    assert run(["status"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[1:]] == [
        ["9", "running"],
        ["8", "done"],
        ["7", "failed"],
        ["2", "waiting"],
    ]
    assert "why\\x1b[2J" in lines[3]
    assert server.seen[0].query["state"] == ["submitted", "waiting", "running"]
    assert server.seen[1].query["limit"] == ["20"]


def test_json_of_status_is_the_jobs_as_they_came(server: StandIn, capsys: Captured) -> None:
    newer = {**job("running"), "field of a newer daemon": [1]}
    server.gives("/jobs", {"items": [newer]})
    assert run(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [newer]


def test_one_job_is_shown_with_all_that_happened_to_it(server: StandIn, capsys: Captured) -> None:
    change = {"at": "2026-01-31T03:00:00Z", "before": None, "after": "submitted", "attempt": 0}
    server.gives("/jobs/7", job(settings={"model": "resnet18", "include": ["a", "b"]}, cancelling=True))
    server.gives("/jobs/7/transitions", {"items": [{**change, "daemon": "", "reason": "as asked"}]})
    assert run(["status", "7"]) == 0
    out = capsys.readouterr().out
    assert "model=resnet18  include=a,b" in out
    assert "2026-01-31 04:00:00  submitted" in out
    assert "as asked" in out
    assert run(["status", "7", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["transitions"][0]["after"] == "submitted"


@pytest.mark.parametrize("words", ["status 8", "logs 8", "logs 8 -f", "cancel 8", "resume 8"])
def test_a_number_that_no_job_has_is_a_usage_error(
    server: StandIn, words: str, capsys: Captured
) -> None:
    assert run(words.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "no such thing" in captured.err


@pytest.mark.parametrize("columns", [1, 10, 20, 40, 79, 200])
def test_numbers_and_states_stay_whole_on_narrow_terminals(
    server: StandIn, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", str(columns))
    far = {"at": "", "stage": "s", "step": "x" * 500, "done": 1, "total": 2, "message": "", "left_s": 9}
    server.gives("/jobs", {"items": [job("infeasible", id=123456, label="l" * 200, progress=far)]})
    server.gives("/schedules", {"items": [schedule(name="n" * 200)]})
    assert run(["status"]) == 0
    out = capsys.readouterr().out
    if columns >= 40:
        assert "123456" in out
        assert "infeasible" in out
    assert run(["schedule", "list"]) == 0


def log_reply(text: bytes, offset: int) -> Reply:
    return Reply(200, text, "text/plain; charset=utf-8", {"X-Next-Offset": str(offset)})


def test_a_log_is_printed_as_text_that_does_nothing_to_a_terminal(
    server: StandIn, capsys: Captured
) -> None:
    euro = "\N{EURO SIGN}".encode()
    server.on(
        "GET",
        "/jobs/7/log",
        log_reply(b"one\r\n\ttwo\x1b[2J " + euro[:1], 10),
        log_reply(euro[1:] + b"\nthree", 20),
        log_reply(b"", 20),
    )
    assert run(["logs", "7"]) == 0
    assert capsys.readouterr().out == "one\n\ttwo\\x1b[2J \N{EURO SIGN}\nthree\n"
    assert [each.query["offset"] for each in server.seen] == [["0"], ["10"], ["20"]]


def test_json_of_a_log(server: StandIn, capsys: Captured) -> None:
    server.on("GET", "/jobs/7/log", log_reply(b"one\ntwo", 7), log_reply(b"", 7))
    assert run(["logs", "7", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"id": 7, "next_offset": 7, "lines": ["one", "two"]}


def test_a_log_is_followed_to_the_end_of_the_job_over_a_gap(
    server: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr("autosparse.cli.jobs._FOLLOW_EVERY_S", 0.01)
    server.on(
        "GET",
        "/jobs/7",
        Reply(body=job()),
        problem(503, "away"),
        problem(503, "away"),
        problem(503, "away"),
        Reply(body=job()),
        Reply(body=job("done")),
    )
    server.on(
        "GET",
        "/jobs/7/log",
        log_reply(b"one\ntw", 6),
        log_reply(b"", 6),
        log_reply(b"o\n", 8),
        log_reply(b"", 8),
        log_reply(b"last", 12),
        log_reply(b"", 12),
    )
    assert run(["logs", "7", "-f"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "one\ntwo\nlast\n"
    assert captured.err.count("waiting for it") == 1


def test_a_log_is_followed_as_objects_a_line(
    server: StandIn, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr("autosparse.cli.jobs._FOLLOW_EVERY_S", 0.01)
    server.on("GET", "/jobs/7", Reply(body=job()), Reply(body=job("stopped", exit_code=3)))
    server.on(
        "GET",
        "/jobs/7/log",
        log_reply(b'one\nt"w', 7),
        log_reply(b"", 7),
        log_reply(b"o\x1b", 9),
        log_reply(b"", 9),
    )
    assert run(["logs", "7", "-f", "--json"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [
        {"line": "one"},
        {"line": 't"wo\x1b'},
        {"state": "stopped", "exit_code": 3},
    ]


def test_a_log_that_goes_round_in_circles_ends(server: StandIn, capsys: Captured) -> None:
    server.on("GET", "/jobs/7/log", log_reply(b"again\n", 0))
    assert run(["logs", "7"]) == 0
    assert len(server.seen) < 5


def test_several_jobs_are_cancelled_and_one_that_is_refused_keeps_no_other_from_it(
    server: StandIn, capsys: Captured
) -> None:
    server.on("POST", "/jobs/1/cancel", Reply(202, job("cancelled", id=1)))
    server.on("POST", "/jobs/2/cancel", problem(409, "job 2 is done", 2))
    server.on("POST", "/jobs/3/cancel", Reply(202, job("running", id=3, cancelling=True)))
    assert run(["cancel", "1", "2", "3", "3"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "job 1 is cancelled\njob 3 is being cancelled\n"
    assert captured.err == "autosparse: job 2 is done\n"
    assert len(server.seen) == 3
    assert run(["cancel", "1", "2", "3", "--json"]) == 2
    assert [each["id"] for each in json.loads(capsys.readouterr().out)] == [1, 3]


def test_a_job_is_resumed(server: StandIn, capsys: Captured) -> None:
    server.on("POST", "/jobs/7/resume", Reply(202, job("waiting")))
    assert run(["resume", "7"]) == 0
    assert capsys.readouterr().out == "job 7 is waiting\n"
