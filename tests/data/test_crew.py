"""The processes that decode: one that dies is told, and none outlives its work."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from autosparse.data import StreamedSplit, resolve
from autosparse.errors import DataError

SCRIPT = """
import signal, sys, time
from autosparse.data import resolve

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it

split = resolve(f"imagefolder-stream:{sys.argv[1]}", resolution=8, workers=2).train
next_batch = split.batches(2)
next(next_batch)
print("ready", flush=True)
if sys.argv[2] == "training":
    time.sleep(60)
for _ in range(10_000):
    list(split.batches(2))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for number in range(40):
        name = tmp_path / "set" / "ab"[number % 2] / f"{number}.png"
        name.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (9, 9, 3)).astype(np.uint8)).save(name)
    return tmp_path / "set"


def children(parent: int | None = None) -> list[psutil.Process]:
    return psutil.Process(parent).children()


def test_a_process_that_dies_is_told_of_and_the_next_pass_has_others(folder: Path) -> None:
    split = resolve(f"imagefolder-stream:{folder}", resolution=8, workers=2).train
    assert isinstance(split, StreamedSplit)
    before, handler = children(), signal.getsignal(signal.SIGCHLD)
    batches = split.batches(1)
    next(batches)
    assert signal.getsignal(signal.SIGCHLD) == handler
    for child in set(children()) - set(before):
        child.kill()
    with pytest.raises(DataError, match="a process that decodes images must live until its work"):
        list(batches)
    assert len(list(split.batches(5))) == 6
    split.close()
    assert set(children()) <= set(before)


@pytest.mark.parametrize("moment", ["training", "starting"])
def test_an_interrupt_leaves_no_process_behind(folder: Path, moment: str) -> None:
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(folder), moment]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
        workers = children(run.pid)
        os.killpg(run.pid, signal.SIGINT)  # as a terminal does
        told = ended(run)
    assert run.returncode == -signal.SIGINT, told
    assert told.count("KeyboardInterrupt") == 1  # of the main process alone
    assert len(workers) >= 2  # a pass that begins while another is under way has its own
    assert gone(workers, within_s=2)


def test_a_kill_leaves_no_process_behind(folder: Path) -> None:
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(folder), "training"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "ready\n"
        workers = children(run.pid)
        run.kill()
    assert len(workers) == 2
    assert gone(workers, within_s=20)


def ended(run: subprocess.Popen[str]) -> str:
    """Gives what a process said on standard error; ends one that does not end itself."""
    try:
        return run.communicate(timeout=30)[1]
    except subprocess.TimeoutExpired:
        run.kill()
        raise


def gone(processes: list[psutil.Process], within_s: float) -> bool:
    until = time.monotonic() + within_s
    while any(process.is_running() for process in processes) and time.monotonic() < until:
        time.sleep(0.05)
    return not any(process.is_running() for process in processes)
