"""Every way a verb can end: its exit code, one message, no traceback."""

from __future__ import annotations

import errno
import json
import logging
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import autosparse
from autosparse.cli import run
from autosparse.cli.output import one_line
from autosparse.cli.settings import Settings, split
from autosparse.errors import (
    AutosparseError,
    BudgetInfeasible,
    DatabaseError,
    MissingDependency,
    NoValidConfiguration,
    Stopped,
    retold,
)
from autosparse.progress import Progress

SEARCH = ["search", "--model", "resnet18"]


class Outcome:
    run = Path("results/r")
    exit_code = 0

    def to_json(self) -> dict[str, Any]:
        return {"run": str(self.run)}

    def text(self) -> str:
        return "a verdict"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def searching(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    """Puts a made-up search in place of the real one."""

    def put(search: Callable[..., Any]) -> None:
        monkeypatch.setattr(autosparse, "pipeline", SimpleNamespace(search=search), raising=False)

    return put


def raising(error: BaseException) -> Callable[..., Any]:
    def search(config: Any, *, resume: bool | None, progress: Progress) -> Any:
        raise error

    return search


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BudgetInfeasible("no plan meets 5 ms; try 9.1ms", 9.1), 3),
        (NoValidConfiguration("nothing worked"), 4),
        (Stopped("stopped on request"), 6),
        (MissingDependency("Ray is missing"), 7),
        (DatabaseError("the database is broken"), 2),
        (ModuleNotFoundError("No module named 'ray'", name="ray.util"), 7),
        (KeyboardInterrupt(), 130),
        (OSError(errno.ENOSPC, "No space left on device"), 1),
        (ZeroDivisionError("oh"), 1),
    ],
)
def test_errors_become_one_message_and_a_code(
    error: BaseException,
    code: int,
    searching: Callable[[Callable[..., Any]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    searching(raising(error))
    assert run(SEARCH) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("autosparse: ")
    assert "Traceback" not in said.err


def test_internal_errors_leave_a_traceback_in_a_named_file(
    searching: Callable[[Callable[..., Any]], None], capsys: pytest.CaptureFixture[str], own_home: Path
) -> None:
    searching(raising(ZeroDivisionError("oh")))
    assert run(SEARCH) == 1
    [file] = (own_home / "logs").iterdir()
    said = capsys.readouterr().err
    assert "internal error: ZeroDivisionError: oh" in said
    assert str(file) in said
    assert "--debug" in said
    assert "Traceback" in file.read_text()


@pytest.mark.parametrize("error", [ZeroDivisionError("oh"), Stopped("stop")])
def test_debug_shows_the_traceback(
    error: Exception,
    searching: Callable[[Callable[..., Any]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    searching(raising(error))
    run([*SEARCH, "--debug"])
    assert "Traceback" in capsys.readouterr().err


def test_the_outcome_decides_the_code_and_goes_to_stdout(
    searching: Callable[[Callable[..., Any]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    seen: dict[str, Any] = {}

    class Infeasible(Outcome):
        exit_code = 3

    def search(config: Any, *, resume: bool | None, progress: Progress) -> Outcome:
        seen.update(config=config, resume=resume)
        progress.log("working")
        return Infeasible()

    searching(search)
    assert run([*SEARCH, "--latency-budget", "5ms", "--fresh", "--include", "a", "--include", "b"]) == 3
    said = capsys.readouterr()
    assert said.out == "a verdict\n"
    assert said.err == "working\n"
    assert seen["resume"] is False
    assert seen["config"].latency_budget == pytest.approx(5000.0)
    assert seen["config"].include == ("a", "b")
    assert run([*SEARCH, "--json", "-q"]) == 3
    said = capsys.readouterr()
    assert json.loads(said.out) == {"run": "results/r"}
    assert said.err == ""
    assert seen["resume"] is None


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("serch", "did you mean 'search'"),
        ("search --latency-bugdet 5ms", "did you mean --latency-budget?"),
        ("search --model", "requires an argument"),
        ("search", "--model resnet18"),
        ("search --model resnet18 --latency-budget 5", "write 5ms"),
        ("search --model resnt18", "resnet18"),
        ("search --model resnet18 --weights no.pt", "No such file"),
        ("search --model resnet18 --data cifar10:/nowhere", "/nowhere"),
        ("search --model resnet18 --out /proc/x", "/proc/x"),
        ("search --model resnet18 --config no.yaml", "no.yaml"),
        ("search --model resnet18 --space no.yaml", "no.yaml"),
        ("tune --model resnet18 --time-budget 20", "write 2h"),
        ("train --kind long", "short or full"),
        ("train --epochs 0", "--epochs"),
        ("train nothing", "run"),
        ("report", "run"),
        ("runs show nothing", "run"),
        ("runs rm nothing", "run"),
        ("completion show tcsh", "bash or zsh"),
    ],
)
def test_bad_input_is_refused_with_code_2(
    line: str, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(line.split()) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("autosparse: ")
    assert said.err.count("\n") == 1
    assert part in said.err
    assert "Traceback" not in said.err


def test_environment_counts_and_its_unknown_names_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AUTOSPARSE_MODEL", "resnet34")
    assert run(["search", "--save-config", "c.yaml"]) == 0
    assert "model: resnet34" in Path("c.yaml").read_text()
    monkeypatch.setenv("AUTOSPARSE_TRAILS", "3")
    assert run(["search"]) == 2
    assert "AUTOSPARSE_TRIALS" in capsys.readouterr().err


def test_saved_config_reads_back_the_same() -> None:
    line = [*SEARCH, "--latency-budget", "5ms", "--seed", "7", "--exclude", "fc"]
    assert run([*line, "--save-config", "a.yaml"]) == 0
    assert run(["search", "--config", "a.yaml", "--save-config", "b.yaml"]) == 0
    assert Path("a.yaml").read_text() == Path("b.yaml").read_text()
    assert run(["search", "--config", "a.yaml", "--seed", "8", "--save-config", "c.yaml"]) == 0
    assert "seed: 8" in Path("c.yaml").read_text()


def test_switches_are_flags_without_a_value(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def saved(*flags: str) -> str:
        assert run([*SEARCH, *flags, "--save-config", "a.yaml"]) == 0
        return Path("a.yaml").read_text()

    assert "compact_weights: false" in saved()
    assert "compact_weights: true" in saved("--compact-weights")
    monkeypatch.setenv("AUTOSPARSE_COMPACT_WEIGHTS", "yes")
    assert "compact_weights: true" in saved()
    assert "compact_weights: false" in saved("--no-compact-weights")
    monkeypatch.setenv("AUTOSPARSE_COMPACT_WEIGHTS", "some")
    assert run([*SEARCH, "--save-config", "a.yaml"]) == 2
    assert "AUTOSPARSE_COMPACT_WEIGHTS must be true or false" in capsys.readouterr().err


@pytest.mark.smoke
def test_global_flags_are_taken_anywhere() -> None:
    settings, rest = split(["search", "-v", "--model", "x", "-vv", "--debug"])
    assert (settings.verbose, settings.debug, settings.quiet) == (3, True, False)
    assert rest == ["search", "--model", "x"]
    assert split(["a", "--", "-q"]) == (Settings(), ["a", "--", "-q"])
    assert Settings(verbose=3).level == logging.DEBUG
    assert Settings(quiet=True, verbose=3).level == logging.ERROR


def test_log_variable_sets_the_level(
    monkeypatch: pytest.MonkeyPatch,
    searching: Callable[[Callable[..., Any]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    def search(config: Any, *, resume: bool | None, progress: Progress) -> Outcome:
        logging.getLogger("autosparse.somewhere").info("a decision")
        return Outcome()

    searching(search)
    assert run(SEARCH) == 0
    assert "a decision" not in capsys.readouterr().err
    assert run([*SEARCH, "-v"]) == 0
    assert "a decision" in capsys.readouterr().err
    monkeypatch.setenv("AUTOSPARSE_LOG", "info")
    assert run(SEARCH) == 0
    assert "a decision" in capsys.readouterr().err
    monkeypatch.setenv("AUTOSPARSE_LOG", "loud")
    assert run(SEARCH) == 2
    assert "AUTOSPARSE_LOG" in capsys.readouterr().err


def test_interrupted_search_ends_with_6(
    searching: Callable[[Callable[..., Any]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def search(config: Any, *, resume: bool | None, progress: Progress) -> Outcome:
        with progress.step("measuring", 2) as step:
            signal.raise_signal(signal.SIGINT)
            step.advance()
        raise AssertionError("went on")

    searching(search)
    assert run(SEARCH) == 6
    assert "run the same command again" in capsys.readouterr().err


HEAVY = {"torch", "ray", "optuna", "pandas", "plotly", "sklearn"}


def shell(*arguments: str) -> tuple[int, str, str, set[str]]:
    """Runs the program in a process of its own; gives its code, output, messages and what it loaded."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "autosparse", *arguments],
        capture_output=True,
        text=True,
    )
    lines = done.stderr.splitlines(keepends=True)
    told = [line for line in lines if not line.startswith("import time:")]
    loaded = {line.split("|")[-1].strip() for line in lines if line not in told}
    return done.returncode, done.stdout, "".join(told), loaded


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("w.pt", b"<html>gone</html>", "search --model resnet18 --weights w.pt"),
        ("s.yaml", b"version: 1\nsparsity: [1.2]\n", "search --model resnet18 --space s.yaml"),
        ("s.yaml", b"version: 1\nblock_n: [3]\n", "search --model resnet18 --space s.yaml"),
        ("c.yaml", b"latency_budget: 5\n", "search --model resnet18 --config c.yaml"),
    ],
)
def test_bad_files_are_refused_before_anything_heavy_is_loaded(
    name: str, content: bytes, line: str
) -> None:
    Path(name).write_bytes(content)
    code, out, err, loaded = shell(*line.split())
    assert code == 2, err
    assert out == ""
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert "autosparse.cli" in loaded
    assert not HEAVY & loaded


def test_a_reader_that_leaves_early_is_no_error() -> None:
    program = Path(sys.executable).with_name("autosparse")
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {program} models | true"], capture_output=True, check=False
    )
    assert done.returncode == 0
    assert done.stderr == b""


def test_errors_of_another_process_keep_their_class() -> None:
    found = retold("autosparse.errors.DatabaseError: it is damaged: here", "models must run")
    assert (type(found), str(found)) == (DatabaseError, "it is damaged: here")
    for words in ("ZeroDivisionError: oh", "exit code 3", "NoKernel: of other arguments", "int: 3"):
        found = retold(words, "models must run")
        assert type(found) is AutosparseError
        assert str(found) == f"models must run, but the session ended with: {words}"


@pytest.mark.parametrize(
    ("error", "code", "part"),
    [
        (MemoryError(), 7, "memory must suffice"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
            7,
            "memory must suffice",
        ),
        (
            OSError(errno.ENAMETOOLONG, "File name too long", "/a/b"),
            2,
            "/a/b must be usable, but: File",
        ),
        (OSError(errno.EROFS, "Read-only file system", "/a"), 2, "Read-only file system; name another"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/a"), 1, "internal error"),
    ],
)
def test_what_a_machine_refuses_is_no_internal_error(
    error: Exception,
    code: int,
    part: str,
    searching: Callable[[Callable[..., Any]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    searching(raising(error))
    assert run(SEARCH) == code
    assert part in capsys.readouterr().err


def test_messages_are_one_line_that_a_terminal_shows_as_it_is() -> None:
    assert one_line("a\n  b\x1b[31m\udcff\x00 é 模") == "a b\\x1b[31m\\udcff\\x00 é 模"
    long = one_line("x" * 3000 + "remedy")
    assert len(long) < 2100
    assert long.endswith("remedy")
    assert " [...] " in long


@pytest.mark.parametrize(
    "value", ["complete", "complete_bash", "bash_source", "complete_tcsh", "x", "source_"]
)
def test_only_shells_ask_for_completions(
    value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_AUTOSPARSE_COMPLETE", value)
    assert run(["models"]) == 2
    assert "must be set by a shell alone" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["COLUMNS", "LINES", "TERMINAL_WIDTH"])
@pytest.mark.parametrize("size", ["9" * 30, "99999", "-3", "wide", "", "\u0663", "1e9"])
def test_terminals_of_sizes_that_none_has_are_not_asked(
    name: str, size: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, size)
    assert run(["tune", "--help"]) == 0
    assert "--model" in capsys.readouterr().out
