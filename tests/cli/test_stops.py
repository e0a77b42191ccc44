"""A verb that is asked to stop: when it ends, with which code, and what is kept."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autosparse.cli.settings import Settings
from autosparse.cli.working import StopRequest, working
from autosparse.errors import (
    Stopped,
)
from autosparse.run_folders import RunFolder
from autosparse.run_folders.state import read_state


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_first_interrupt_stops_after_the_step_and_the_second_aborts(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = signal.getsignal(signal.SIGINT)
    saved = []
    with working(Settings(quiet=True)) as progress:
        with pytest.raises(Stopped), progress.step("work", 3) as step:
            signal.raise_signal(signal.SIGINT)
            saved.append("the current unit")
            step.advance()
        assert progress.stop_requested()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert saved == ["the current unit"]
    assert signal.getsignal(signal.SIGINT) is before
    assert "stopping; what is done is kept" in capsys.readouterr().err


def test_a_request_to_terminate_stops_too() -> None:
    stop = StopRequest()
    with stop.listening():
        signal.raise_signal(signal.SIGTERM)
    assert stop()


SLOW_SEARCH = """
import sys, time, types
import autosparse
from autosparse.cli import run

def search(config, *, resume, progress):
    with progress.step("measuring", 100) as step:
        for _ in range(100):
            print("unit", flush=True)
            end = time.monotonic() + float(sys.argv[1])
            while time.monotonic() < end:  # a unit of work that asks nobody
                time.sleep(0.01)
            print("saved", flush=True)
            step.advance()

autosparse.pipeline = types.SimpleNamespace(search=search)
sys.exit(run(["search", "--model", "resnet18"]))
"""


NATIVE_SEARCH = """
import hashlib, types
import autosparse
from autosparse.cli import leave, run
from autosparse.run_folders import RunFolder

def search(config, *, resume, progress):
    with RunFolder.create(config.out, model="m", hardware_id="h", config_yaml="", fingerprint="f"):
        print("running", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"word", b"salt", 2**31 - 1)  # one call of a library

autosparse.pipeline = types.SimpleNamespace(search=search)
leave(run(["search", "--model", "resnet18"]))
"""


def test_one_long_call_of_a_library_ends_with_its_process(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", NATIVE_SEARCH],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "running\n"
    time.sleep(0.2)
    asked = time.monotonic()
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    took_s = time.monotonic() - asked
    print(f"ended after {took_s:.2f} s")
    assert child.returncode == 6
    assert took_s < 10
    assert said.endswith("stopped on request; run the same command again to continue\n")
    state = json.loads((tmp_path / "results" / "latest" / "state.json").read_text())
    assert (state["status"], state["exit_code"]) == ("stopped", 6)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    ("unit_s", "interrupts", "code", "saved"),
    [(0.1, 1, 6, 1), (600, 1, 6, 0), (600, 2, 130, 0)],
    ids=["a short unit is finished", "a long one is interrupted", "the second aborts"],
)
def test_interrupts_from_the_keyboard(
    unit_s: float, interrupts: int, code: int, saved: int, number: signal.Signals
) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", SLOW_SEARCH, str(unit_s)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stderr is not None
    assert child.stdout.readline() == "unit\n"
    for _ in range(interrupts):
        child.send_signal(number)
        said = child.stderr.readline()  # each interrupt is answered before the next is sent
        assert said.startswith("autosparse: ")
    rest, said = child.communicate(timeout=60)
    assert child.returncode == code
    assert rest.count("saved") == saved
    assert "Traceback" not in said


def test_a_stop_in_the_middle_of_a_step_is_kept_as_one(tmp_path: Path) -> None:
    with pytest.raises(Stopped), working(Settings(quiet=True)):
        with RunFolder.create(
            tmp_path, model="m", hardware_id="a" * 12, config_yaml="", fingerprint="f"
        ) as folder:
            signal.raise_signal(signal.SIGINT)
            try:
                time.sleep(60)  # somebody who takes every error for a failure of the work
            except Exception:
                raise AssertionError("a stop is no error") from None
    assert read_state(folder.path).status == "stopped"
    assert read_state(folder.path).exit_code == 6
