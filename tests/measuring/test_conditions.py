"""What else ran on the host, from counters that are written here, and from the real ones."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autosparse.measuring import conditions
from autosparse.measuring.conditions import QUIET, Conditions, Watch


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTOSPARSE_BUSY_HOST")


class System:
    """Counters of a system of as many processors as this one has."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.now_s = 100.0
        self.own_s = 3.0
        self.busy_s, self.stolen_s, self.waiting_s = 50.0, 1.0, 2.0
        (folder / "self" / "task" / "1").mkdir(parents=True)
        monkeypatch.setattr(conditions.time, "monotonic", lambda: self.now_s)
        monkeypatch.setattr(conditions.time, "process_time", lambda: self.own_s)
        self.write()

    def write(self) -> None:
        ticks = os.sysconf("SC_CLK_TCK")
        line = [int(value * ticks) for value in (self.busy_s, 0, 0, 999, 0, 0, 0, self.stolen_s)]
        (self.folder / "stat").write_text(f"cpu  {' '.join(map(str, line))} 0 0\n")
        wait = int(self.waiting_s * 1e9)
        (self.folder / "self" / "task" / "1" / "schedstat").write_text(f"123 {wait} 4\n")

    def go(self, seconds: float, *, own=0.0, foreign=0.0, stolen=0.0, waiting=0.0) -> None:
        self.now_s += seconds
        self.own_s += own
        self.busy_s += own + foreign
        self.stolen_s += stolen
        self.waiting_s += waiting
        self.write()


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> System:
    return System(tmp_path, monkeypatch)


def test_our_own_work_is_no_disturbance(system: System) -> None:
    watch = Watch(system.folder)
    system.go(2.0, own=2.0)
    found = watch.conditions(rate_share=0.97)
    assert found.foreign_share == pytest.approx(0.0)
    assert found.why_disturbed == ""


def test_each_witness_speaks(system: System) -> None:
    cores = os.cpu_count() or 1
    watch = Watch(system.folder)
    system.go(10.0, own=5.0, foreign=2.0 * cores, stolen=0.5 * cores, waiting=0.7)
    found = watch.conditions(rate_share=0.6)
    assert found.foreign_share == pytest.approx(0.2)
    assert found.stolen_share == pytest.approx(0.05)
    assert found.waiting_share == pytest.approx(0.07)
    assert found.why_disturbed.split("; ") == [
        "other processes took 20% of all processors' time",
        "the hypervisor took 5% of all processors' time",
        "threads waited 7% of the time for a processor",
        "the processors did 60% of what they can: somebody else used them",
    ]
    assert Conditions.from_json(found.to_json()) == found


def test_what_the_system_counts_too_coarsely_is_not_told(system: System) -> None:
    watch = Watch(system.folder)
    system.go(0.05, foreign=0.05, stolen=0.05, waiting=0.01)
    found = watch.conditions()
    assert (found.foreign_share, found.stolen_share) == (None, None)
    assert found.why_disturbed == "threads waited 20% of the time for a processor"


def test_a_system_without_counters_tells_nothing(tmp_path: Path) -> None:
    assert Watch(tmp_path).conditions() == QUIET
    assert QUIET.why_disturbed == ""


def test_a_user_may_take_a_busy_host(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(system.folder)
    system.go(2.0, foreign=2.0 * (os.cpu_count() or 1))
    monkeypatch.setenv("AUTOSPARSE_BUSY_HOST", "accept")
    assert watch.conditions().why_disturbed == ""


def test_a_real_neighbour_is_noticed() -> None:
    """One busy process per processor, from before the watch begins until after it ends."""
    spin = [sys.executable, "-c", "while True: pass"]
    neighbours = [subprocess.Popen(spin) for _ in range(os.cpu_count() or 1)]
    try:
        watch = Watch()
        deadline = time.monotonic() + 0.6
        while time.monotonic() < deadline:
            pass
        found = watch.conditions()
    finally:
        for process in neighbours:
            process.kill()
            process.wait()
    if found.foreign_share is None:
        pytest.skip("this system does not count processors' time")
    assert found.foreign_share > conditions.MOST_FOREIGN
    assert "other processes took" in found.why_disturbed
