"""The verbs that speak to a daemon: what they send, what they print, and how they end."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from standin import LOST, TOKEN, Reply, StandIn, events, job, problem, schedule

from autosparse.cli import asking, remote, run, waiting
from autosparse.cli.app import command
from autosparse.client import following
from autosparse.errors import ConfigError
from autosparse.jobs import verbs

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
CRON = "0 3 * * sun"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """A stand-in that the environment names, with a token."""
    file = tmp_path / "token"
    file.touch(0o600)
    file.write_text(TOKEN)
    monkeypatch.setenv("AUTOSPARSE_TOKEN_FILE", str(file))
    with StandIn() as stand_in:
        monkeypatch.setenv("AUTOSPARSE_SERVER", stand_in.url)
        stand_in.on("POST", "/jobs", Reply(201, job("submitted")))
        stand_in.on("POST", "/schedules", Reply(201, schedule()))
        yield stand_in


Captured = pytest.CaptureFixture[str]


def sent(server: StandIn, path: str = "/jobs") -> Any:
    (asked,) = server.asked("POST", path)
    return asked.body


# --------------------------------------------------------------------------------- flags of the verbs


@pytest.mark.parametrize("verb", verbs.VERBS)
def test_every_setting_that_a_daemon_takes_is_a_flag(verb: str) -> None:
    known = verbs.VERBS[verb]
    keys = set(getattr(known, "keys", ())) | set(getattr(known, "_READ", ()))
    also = {"run"} if isinstance(known, verbs.FlagVerb) else set()
    assert set(asking._flags(verb)) == keys | also


def test_every_verb_that_a_daemon_takes_can_be_asked_for() -> None:
    assert set(asking.VERBS) == set(verbs.VERBS)


@pytest.mark.parametrize("verb", asking.VERBS)
def test_flags_are_those_of_the_local_verb(verb: str) -> None:
    known = command().commands
    local = {name for each in known[verb].params for name in (*each.opts, *each.secondary_opts)}
    for group in (known["submit"], known["schedule"].commands["add"]):
        there = {
            name for each in group.commands[verb].params for name in (*each.opts, *each.secondary_opts)
        }
        left_out = local - there
        assert left_out <= {
            *("--out", "-o", "--database", "--storage", "--study-name", "--address"),
            *("--resume", "--fresh", "--dry-run", "--save-config"),
        }


def test_a_flag_that_is_added_to_a_local_verb_is_here_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def tune(ctx: object, model: asking.options.Model = None, new: asking.options.Seed = None) -> int:
        return 0

    monkeypatch.setattr(asking, "VERBS", {"tune": tune})
    assert set(asking._flags("tune")) == {"model", "seed"}
    assert inspect.signature(asking.command_of("tune", [], lambda asked: 0, "")).parameters["new"]


# -------------------------------------------------------------------------------------------- submit


def test_values_go_as_they_were_typed(server: StandIn, capsys: Captured) -> None:
    words = (
        "submit tune --model=../models/net.py:make -m resnet18 --threads 0x10 --include a* --include b"
    )
    assert run([*words.split(), "--no-compact-weights", "--batch-size", " 007"]) == 0
    assert sent(server) == {
        "verb": "tune",
        "settings": {
            "model": "resnet18",
            "threads": "0x10",
            "include": ["a*", "b"],
            "compact_weights": False,
            "batch_size": " 007",
        },
    }
    assert "job 7 is submitted" in capsys.readouterr().out


def test_what_train_takes_as_numbers_goes_as_text_too(server: StandIn) -> None:
    words = "submit train 20260131 --epochs 1e3 --set lr=0.05 --set epochs=3 --pick knee --kind long"
    assert run(words.split()) == 0
    assert sent(server)["settings"] == {
        "run": "20260131",
        "epochs": "1e3",
        "set": ["lr=0.05", "epochs=3"],
        "pick": ["knee"],
        "kind": "long",
    }


def test_how_a_job_is_treated_is_said_before_or_after_the_verb(server: StandIn) -> None:
    first = "submit --priority 5 --label search tune -mresnet18 --time-limit 2h --retries 0 --on abc"
    second = (
        "submit tune --model resnet18 --priority=5 --label search --time-limit 2h --retries 0 --on abc"
    )
    assert run(first.split()) == run(second.split()) == 0
    one, two = server.asked("POST", "/jobs")
    assert one.body == two.body
    assert one.body == {
        "verb": "tune",
        "settings": {"model": "resnet18"},
        "priority": 5,
        "label": "search",
        "time_limit": "2h",
        "retries": 0,
        "hardware_id": "abc",
    }


@pytest.mark.parametrize(
    ("typed", "utc"),
    [
        ("2026-01-31T03:00", "2026-01-31T02:00:00Z"),
        ("2026-07-31 03:00:30", "2026-07-31T01:00:30Z"),
        ("2026-01-31T03:00Z", "2026-01-31T03:00:00Z"),
        ("2026-01-31T03:00-08:00", "2026-01-31T11:00:00Z"),
    ],
)
def test_a_time_without_an_offset_is_this_machines(server: StandIn, typed: str, utc: str) -> None:
    assert run(["submit", "tune", "--not-before", typed]) == 0
    assert sent(server)["not_before"] == utc


@pytest.mark.parametrize("typed", ["", "tomorrow", "03:00", "2026-13-01", "0001-01-01T00:00+23:59"])
def test_what_is_no_time_is_refused_before_anything_is_sent(
    server: StandIn, typed: str, capsys: Captured
) -> None:
    assert run(["submit", "tune", "--not-before", typed]) == 2
    assert "--not-before must be a date and time" in capsys.readouterr().err
    assert not server.seen


def test_settings_come_from_file_shell_and_flags_in_this_order(
    server: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    (tmp_path / "c.yaml").write_text(
        "model: resnet18\ntrials: 7\nseed: 1\nthreads: auto\nout: elsewhere\ndatabase: null\n"
    )
    monkeypatch.setenv("AUTOSPARSE_SEED", "2")
    monkeypatch.setenv("AUTOSPARSE_THREADS", "3")
    monkeypatch.setenv("AUTOSPARSE_OUT", "nowhere")
    assert run(["submit", "search", "-c", "c.yaml", "--threads", "4"]) == 0
    assert sent(server)["settings"] == {"model": "resnet18", "trials": 7, "seed": "2", "threads": "4"}
    said = capsys.readouterr().err
    assert "out in c.yaml" in said
    assert "database" not in said.replace("decides", "")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("modle: resnet18", "did you mean model"),
        ("- a", "must be a mapping"),
        ("seed: 2026-01-31", "put quotes around a date"),
        ("latency_budget: .nan", "put quotes"),
        ("model: [", "readable YAML"),
    ],
)
def test_a_file_that_breaks_a_rule_is_refused_before_anything_is_sent(
    server: StandIn, tmp_path: Path, content: str, words: str, capsys: Captured
) -> None:
    (tmp_path / "c.yaml").write_text(content)
    assert run(["submit", "search", "--config", "c.yaml"]) == 2
    assert words in capsys.readouterr().err
    assert not server.seen


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("submit", ""),
        ("submit --priority 5", "a verb must be named, one of search, tune, train, check"),
        ("submit serach --model resnet18", "did you mean search?"),
        ("submit --wiat tune", "did you mean --wait?"),
        ("submit tune --out there", "got --out"),
        ("submit search --dry-run", "got --dry-run"),
        ("submit train --config c.yaml", "got --config"),
        ("submit tune --priority high", "--priority"),
        ("cancel", "ID..."),
        ("cancel one", "named by its number"),
        ("cancel 7 -1", "-1"),
        ("logs 7 -f --json", "take --follow or --json"),
        ("status 99999999999999999999999999", "named by its number"),
        ("status ٣", "named by its number"),
        ("status --server localhost:8337", "--server must be the address"),
        ("schedule next 3 --count 0", "--count"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_sent(
    server: StandIn, words: str, said: str, capsys: Captured
) -> None:
    assert run(words.split()) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert not captured.out or words == "submit"
    assert not server.seen


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize(
    "words",
    ["submit", "submit tune", "schedule", "schedule add", "schedule add @daily tune", "status"],
)
def test_help_needs_no_daemon(words: str, flag: str, capsys: Captured) -> None:
    assert run([*words.split(), flag]) == 0
    assert "Usage: autosparse" in capsys.readouterr().out


def test_json_of_a_submit_is_the_job(server: StandIn, capsys: Captured) -> None:
    assert run(["submit", "tune", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == job("submitted")


@pytest.mark.parametrize(("code", "status"), [(2, 422), (7, 424), (2, 409), (4, 422), (1, 500)])
def test_a_refusal_ends_as_the_local_verb_would(
    server: StandIn, code: int, status: int, capsys: Captured
) -> None:
    server.on("POST", "/jobs", problem(status, "model must be known, but got 'x'", code))
    assert run(["submit", "tune", "--json"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "model must be known, but got 'x'" in captured.err


def test_a_lost_answer_makes_no_second_job(server: StandIn) -> None:
    server.on("POST", "/jobs", LOST, Reply(200, job("submitted")))
    assert run(["submit", "tune"]) == 0
    first, second = server.asked("POST", "/jobs")
    assert first.headers["Idempotency-Key"] == second.headers["Idempotency-Key"]


def test_without_a_daemon_something_is_missing(server: StandIn, capsys: Captured) -> None:
    server.stop()
    for words in ("status", "submit tune", "schedule list"):
        assert run(words.split()) == 7
        assert "autosparse serve" in capsys.readouterr().err


def test_a_flag_names_another_daemon(server: StandIn, capsys: Captured) -> None:
    with StandIn() as other:
        other.gives("/jobs", {"items": [], "next": None})
        assert run(["status", "--server", other.url]) == 0
        assert other.seen
    assert not server.seen
    assert capsys.readouterr().out == "no jobs\n"


# -------------------------------------------------------------------------------------------- --wait

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
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
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


# -------------------------------------------------------------------------- status, logs, cancel ...


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


# ----------------------------------------------------------------------------------------- schedules


@pytest.mark.parametrize(
    "words",
    [
        [
            "--timezone",
            "UTC",
            "--jitter",
            "10m",
            CRON,
            "tune",
            "--model",
            "resnet18",
            "--priority",
            "3",
        ],
        [CRON, "--timezone", "UTC", "tune", "--jitter=10m", "--priority=3", "-m", "resnet18"],
        ["--priority", "3", "--", CRON, "tune", "-mresnet18", "--jitter", "10m", "--timezone", "UTC"],
        [CRON, "-m", "resnet18", "--timezone=UTC", "--jitter", "10m", "--priority", "3", "tune"],
    ],
)
def test_flags_of_a_schedule_stand_anywhere(server: StandIn, words: list[str]) -> None:
    assert run(["schedule", "add", *words]) == 0
    assert sent(server, "/schedules") == {
        "cron": CRON,
        "timezone": "UTC",
        "verb": "tune",
        "settings": {"model": "resnet18"},
        "jitter": "10m",
        "priority": 3,
    }


@pytest.mark.parametrize("cron", ["- 3 * * *", "--1 3 * * *", "-m 3 * * *", "@daily", "", "-q 1 2 3 4"])
def test_a_cron_expression_is_the_servers_to_judge(
    server: StandIn, cron: str, capsys: Captured
) -> None:
    server.on("POST", "/schedules", problem(422, "minute of a cron expression must be 0 to 59", 2))
    assert run(["schedule", "add", cron, "tune", "--model", "resnet18"]) == 2
    assert sent(server, "/schedules")["cron"] == cron
    assert "minute of a cron expression must be" in capsys.readouterr().err


@pytest.mark.parametrize("cron", ["-", "-1", "--model", "--", "-h"])
def test_after_two_dashes_anything_is_a_cron_expression(server: StandIn, cron: str) -> None:
    run(["schedule", "add", "--", cron, "tune", "--model", "resnet18"])
    assert [each.body["cron"] for each in server.asked("POST", "/schedules")] == [cron]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tune", "--model", "x"], "must stand before the verb"),
        (["tune"], "must stand before the verb"),
        (["--timezone", "UTC"], "must stand before the verb"),
        ([CRON], "a verb must be named"),
        ([CRON, "--timezone", "UTC"], "a verb must be named"),
        ([CRON, "tnue"], "did you mean tune?"),
        (["-1", "tune"], "got -1"),
        ([CRON, "--timzone", "UTC", "tune"], "did you mean --timezone?"),
        ([CRON, "tune", "--wait"], "got --wait"),
        ([CRON, "tune", "--not-before", "2026-01-31"], "got --not-before"),
        (["0", "3", "*", "*", "sun", "tune"], "a verb must be one of"),
    ],
)
def test_a_schedule_that_cannot_be_meant_is_refused(
    server: StandIn, words: list[str], said: str, capsys: Captured
) -> None:
    assert run(["schedule", "add", *words]) == 2
    assert said in capsys.readouterr().err
    assert not server.seen


def test_the_time_zone_is_this_machines_and_is_told(server: StandIn, capsys: Captured) -> None:
    assert run(["schedule", "add", CRON, "tune"]) == 0
    assert sent(server, "/schedules")["timezone"] == "Europe/Berlin"
    assert capsys.readouterr().out == (
        "schedule 3 (nightly): At 03:00 on Sunday in Europe/Berlin, the time zone of this machine\n"
        "next: Sun 2026-02-01 03:00 +0100\n"
    )


@pytest.mark.parametrize(
    ("tz", "name"),
    [
        (":Europe/Berlin", "Europe/Berlin"),
        ("/usr/share/zoneinfo/Asia/Tokyo", "Asia/Tokyo"),
        ("UTC", "UTC"),
    ],
)
def test_a_time_zone_that_tz_names(monkeypatch: pytest.MonkeyPatch, tz: str, name: str) -> None:
    monkeypatch.setenv("TZ", tz)
    assert remote.own_timezone() == name


@pytest.mark.parametrize("tz", ["CET-1CEST", "../../etc/passwd", "nowhere", "Mars/Base"])
def test_a_time_zone_without_a_name_has_to_be_given(monkeypatch: pytest.MonkeyPatch, tz: str) -> None:
    monkeypatch.setenv("TZ", tz)
    with pytest.raises(ConfigError, match="--timezone"):
        remote.own_timezone()


@pytest.mark.parametrize(
    ("made", "named", "found"),
    [
        ("link", None, "America/St_Johns"),
        ("copy", "Asia/Kolkata\n", "Asia/Kolkata"),
        ("copy", None, None),
        ("copy", "nonsense", None),
        ("none", None, "UTC"),
    ],
)
def test_a_time_zone_that_the_system_keeps(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, made: str, named: str | None, found: str | None
) -> None:
    monkeypatch.delenv("TZ")
    local, name = tmp_path / "localtime", tmp_path / "timezone"
    zone = tmp_path / "zoneinfo" / "America" / "St_Johns"
    zone.parent.mkdir(parents=True)
    zone.write_bytes(b"TZif")
    if made == "link":
        local.symlink_to(zone)
    elif made == "copy":
        local.write_bytes(b"TZif")
    if named is not None:
        name.write_text(named)
    monkeypatch.setattr(remote, "_LOCALTIME", local)
    monkeypatch.setattr(remote, "_NAME", name)
    if found is None:
        with pytest.raises(ConfigError, match="--timezone"):
            remote.own_timezone()
    else:
        assert remote.own_timezone() == found


def test_schedules_are_listed_shown_paused_resumed_removed(server: StandIn, capsys: Captured) -> None:
    paused = schedule(id=4, name="4th", enabled=False, next_at=None)
    server.gives("/schedules", {"items": [schedule(), paused]})
    server.gives("/schedules/3/next", {"items": ["2026-03-29T01:00:00Z", "2026-10-25T02:00:00Z"]})
    server.gives("/schedules/4/next", {"items": []})
    server.on("POST", "/schedules/3/pause", Reply(body=paused))
    server.on("POST", "/schedules/4/resume", Reply(body=schedule(id=4, name="4th")))
    server.on("DELETE", "/schedules/3", Reply(204))
    said = {
        "list": "nightly",
        "show nightly": "At 03:00 on Sunday",
        "show 3": "resnet18",
        "next 3 -n 2": "Sun 2026-03-29 03:00 +0200\nSun 2026-10-25 03:00 +0100\n",
        "next 4th": "is paused",
        "pause nightly": "is paused",
        "resume 4": "is due next Sun 2026-02-01 03:00 +0100",
        "remove nightly": "schedule 3 (nightly) is removed",
    }
    for words, text in said.items():
        assert run(["schedule", *words.split()]) == 0, words
        assert text in capsys.readouterr().out, words
        assert run(["schedule", *words.split(), "--json"]) == 0, words
        assert json.loads(capsys.readouterr().out), words


def test_a_schedule_that_does_not_exist_names_the_nearest(server: StandIn, capsys: Captured) -> None:
    server.gives("/schedules", {"items": [schedule()]})
    for verb in ("show", "next", "pause", "resume", "remove"):
        assert run(["schedule", verb, "nightli"]) == 2
        assert "did you mean nightly?" in capsys.readouterr().err
    assert {each.method for each in server.seen} == {"GET"}


# ----------------------------------------------------------------------------------------- the whole


def test_status_loads_nothing_heavy(server: StandIn) -> None:
    server.gives("/jobs", {"items": [job()]})
    code = (
        "import sys; from autosparse.cli import run; run(['status']);"
        "print([m for m in ('torch', 'ray', 'optuna', 'pandas', 'sqlalchemy', 'plotly', 'fastapi') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_numbers_of_jobs_are_completed_where_a_daemon_answers(server: StandIn) -> None:
    server.gives("/jobs", {"items": [job(id=71), job(id=8), job(id=7)]})
    assert list(remote._jobs("7")) == ["71", "7"]
    server.stop()
    assert list(remote._jobs("7")) == []


def test_completion_before_and_after_the_verb() -> None:
    def complete(words: str) -> list[str]:
        asked = {
            "_AUTOSPARSE_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        }
        done = subprocess.run(
            [sys.executable, "-m", "autosparse"],
            capture_output=True,
            text=True,
            env={**os.environ, **asked},
            check=False,
        )
        return done.stdout.split()

    assert complete("autosparse submit tu") == ["tune"]
    assert "--latency-budget" in complete("autosparse submit --priority 3 search --la")
    assert complete("autosparse submit tune --model resnet1") == ["resnet18"]
