"""One measurement at a time on a host: who waits is told for whom, and work makes way."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from autosparse.errors import Stopped
from autosparse.measuring.lock import Holder, for_child, lock_file, making_way, measuring, who_measures
from autosparse.progress import Progress

HOLD = """
import sys, time
from autosparse.measuring.lock import making_way, measuring
sys.argv = ["/usr/bin/autosparse", "tune", "--model", "resnet18"]
with {hold}:
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def another(hold: str) -> Iterator[subprocess.Popen[str]]:
    """Runs another process that holds the lock, alone or as work that shares it."""
    with subprocess.Popen(
        [sys.executable, "-c", HOLD.format(hold=hold)], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def wait_until(condition: Callable[[], bool]) -> None:
    """Waits until something is so; the test fails if it never is."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_whoever_waits_is_told_who_measures_what_since_when_and_may_stop() -> None:
    with another('measuring("f32 kernels")') as other:
        said: list[str] = []
        waiting = Progress(lambda event: said.append(event.message), should_stop=lambda: bool(said))
        with pytest.raises(Stopped), measuring("whole models", waiting):
            pytest.fail("another process measures")
        [line] = said
        held = who_measures()
        assert isinstance(held, Holder)
        assert (held.pid, held.what, held.command) == (other.pid, "f32 kernels", "autosparse tune")
        assert f"process {other.pid} (autosparse tune), which has timed f32 kernels since 20" in line


def test_devices_with_locks_of_their_own_are_measured_at_once_and_each_by_one() -> None:
    with another('measuring("f32 kernels"), measuring("bf16 kernels", device="GPU-1")') as other:
        with measuring("bf16 kernels", device="GPU-2"):
            holders = [who_measures(device) for device in ("", "GPU-1", "GPU-2", "GPU-3")]
            pids = [held and held.pid for held in holders]
            assert pids == [other.pid, other.pid, os.getpid(), None]
        waiting: list[str] = []
        progress = Progress(
            lambda event: waiting.append(event.message), should_stop=lambda: bool(waiting)
        )
        with pytest.raises(Stopped), measuring("whole models", progress, device="GPU-1"):
            pytest.fail("another process measures on it")
        assert "one at a time on a device, and now it is process" in waiting[0]
        assert str(other.pid) in waiting[0]


def test_a_child_that_measures_on_one_device_does_so_in_its_parents_hold() -> None:
    code = "from autosparse.measuring.lock import measuring\nwith measuring('x'): print('measured')"
    with measuring("whole models", device="MIG-GPU-1/3/0"):
        line = [sys.executable, "-c", code]
        done = subprocess.run(
            line,
            env={**os.environ, **for_child("MIG-GPU-1/3/0")},
            capture_output=True,
            text=True,
            timeout=30,
        )
    assert done.stdout == "measured\n"


def test_a_killed_holder_lets_the_next_one_measure() -> None:
    with another('measuring("f32 kernels")') as other:
        other.kill()
        with measuring("whole models"):
            held = who_measures()
            assert held is not None
            assert held.pid == os.getpid()
    assert who_measures() is None


def test_a_measurement_waits_for_work_to_pause_and_work_for_the_measurement_to_end() -> None:
    with another("making_way()") as worker:
        done = threading.Event()

        def measure() -> None:
            with measuring("whole models"):
                done.set()

        thread = threading.Thread(target=measure)
        thread.start()
        assert not done.wait(0.2)
        # The gate is shut: work that starts now waits, or a stream of batches would never let us in.
        asked: list[int] = []
        with (
            pytest.raises(Stopped),
            making_way(Progress(should_stop=lambda: not asked.append(1)).check),
        ):
            pytest.fail("somebody wants to measure")
        assert asked
        worker.kill()
        thread.join(30)
        assert done.is_set()
    with another('measuring("f32 kernels")') as other:
        with pytest.raises(Stopped), making_way(Progress(should_stop=lambda: True).check):
            pytest.fail("somebody measures")
        other.kill()
        with making_way():
            pass


def test_work_shares_the_lock_with_other_work() -> None:
    with another("making_way()"), making_way(), making_way():
        assert who_measures() is None


def test_whoever_measures_may_measure_within_and_work_within() -> None:
    with measuring("kernels"), measuring("models"), making_way():
        held = who_measures()
        assert held is not None
        assert held.what == "kernels"
    assert who_measures() is None


def test_threads_of_one_process_take_turns() -> None:
    inside: list[int] = []
    most: list[int] = []

    def measure() -> None:
        for _ in range(5):
            with measuring("kernels"):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.002)
                inside.pop()

    threads = [threading.Thread(target=measure) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert most == [1] * 20


def test_a_child_of_whoever_measures_goes_on_and_holds_nothing_afterwards() -> None:
    code = "from autosparse.measuring.lock import measuring\nwith measuring('x'): print('measured')"
    with measuring("whole models"):
        ran = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
        )
    assert ran.stdout == "measured\n"


def test_a_forked_child_keeps_no_lock() -> None:
    with measuring("whole models"):
        child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
    try:
        wait_until(lambda: who_measures() is None)
    finally:
        child.kill()
        child.join()


def test_a_host_without_a_place_for_the_lock_measures_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AUTOSPARSE_MEASURING_LOCK", "/proc/nowhere/lock")
    said: list[str] = []
    with measuring("kernels", Progress(lambda event: said.append(event.message))):
        assert who_measures() is None
    assert len(said) == 1
    assert said[0].startswith("measuring without a lock: /proc/nowhere/lock.gate must be writable")
    with making_way():
        pass


def test_a_share_that_cannot_be_had_anew_leaves_no_number_of_a_closed_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with making_way():
        pass
    nowhere = tmp_path / "absent" / "lock"
    monkeypatch.setenv("AUTOSPARSE_MEASURING_LOCK", str(nowhere))
    with making_way():
        pass  # the share is given up, and there is none for this place
    files = [os.open(os.devnull, os.O_RDONLY) for _ in range(8)]  # they get the numbers that are free
    with making_way():
        pass
    # A hook closes a process's locks in its forked children, where this call looks after them.
    subprocess.run(["true"], check=True, pass_fds=files, preexec_fn=lambda: [*map(os.fstat, files)])
    for file in files:
        os.close(file)


def test_every_user_may_take_it() -> None:
    with measuring("kernels"), making_way():
        pass
    assert lock_file().stat().st_mode & 0o777 == 0o666
