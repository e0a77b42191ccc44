"""What a submit sends, and what it refuses to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from standin import LOST, Reply, StandIn, job, problem

from autosparse.cli import run

Captured = pytest.CaptureFixture[str]


def sent(server: StandIn, path: str = "/jobs") -> Any:
    (asked,) = server.asked("POST", path)
    return asked.body


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
