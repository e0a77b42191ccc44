"""Flags of the verbs that a daemon is asked for, and what is loaded and completed for them."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys

import pytest
from standin import StandIn, job

from autosparse.cli import asking, remote
from autosparse.cli.app import command
from autosparse.jobs import verbs

Captured = pytest.CaptureFixture[str]


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
