"""Whoever uses our cores meanwhile is noticed, waited for, and never part of a figure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from autosparse import hardware
from autosparse.errors import UsageError
from autosparse.kernels.probes import (
    probe_slowest_gflops,
    probe_slowest_integers_per_s,
    probe_slowest_read_bytes_per_s,
)
from autosparse.measuring import states
from autosparse.measuring.histories import load_histories, prober_for, save_history
from autosparse.measuring.pace import Pace, full_pace, probe_pace
from autosparse.measuring.states import History, Marks, Prober
from autosparse.measuring.stopwatch import LAYERS, WHOLE, Runner, measure
from autosparse.measuring.turns import interleave
from autosparse.progress import Progress

FAST = replace(WHOLE, warmup_us=0.0, rest_us=0.0)
FULL = Pace(gflops=100.0, gbytes_per_s=90.0)
BUSY = Pace(gflops=98.0, gbytes_per_s=70.0)  # a neighbour who computes little, but uses the caches
KNOWN = History(handovers_ns=(50.0,) * 40, paces=(FULL,) * 40)


@pytest.fixture(autouse=True)
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTOSPARSE_BUSY_HOST", raising=False)
    monkeypatch.setattr(states, "RAMP_S", 0.0)


class Neighbour:
    """A host where somebody else uses our cores in some of the time, which passes by runs and rests."""

    def __init__(self, free_s: float, busy_s: float) -> None:
        self.free_s, self.busy_s, self.now_s = free_s, busy_s, 0.0

    @property
    def is_there(self) -> bool:
        return self.now_s % (self.free_s + self.busy_s) >= self.free_s

    def pace(self, threads: int) -> Pace:
        return BUSY if self.is_there else FULL

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds

    def runner(self, ns: float) -> Runner:
        def run(count: int) -> NDArray[np.int64]:
            took = []
            for _ in range(count):
                took.append(ns * (1.4 if self.is_there else 1.0))
                self.now_s += took[-1] / 1e9
            return np.asarray(took).astype(np.int64)

        return run

    def prober(self, history: History = KNOWN) -> Prober:
        return Prober(2, history, lambda threads: 50.0, self.pass_time, self.pace)


class TestTurns:
    def test_turns_beside_a_neighbour_do_not_count(self) -> None:
        host = Neighbour(0.1, 0.08)
        runners = {"a": host.runner(4e6), "b": host.runner(2e6)}
        found = interleave(runners, FAST, Progress(), prober=host.prober())
        assert found.timings[""]["a"].median_us == 4_000
        assert found.timings[""]["b"].median_us == 2_000
        assert found.slowed > 0
        assert found.conditions.rate_share is None

    def test_a_neighbour_who_never_leaves_is_put_up_with_and_told(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("AUTOSPARSE_BUSY_HOST", raising=False)
        host = Neighbour(0.0, 1.0)
        policy = replace(FAST, time_cap_us=50_000.0)
        found = interleave({"a": host.runner(4e6)}, policy, Progress(), prober=host.prober())
        assert found.timings[""]["a"].median_us == pytest.approx(5_600)
        assert found.conditions.rate_share == pytest.approx(70 / 90)
        assert "the processors did 78% of what they can" in found.conditions.why_disturbed


class TestOneRunner:
    def test_samples_beside_a_neighbour_do_not_count(self) -> None:
        host = Neighbour(0.004, 0.003)
        timing = measure(host.runner(5e4), LAYERS, prober=host.prober(), state="")
        assert timing.median_us == 50
        assert "the processors did" not in timing.disturbed

    def test_a_neighbour_who_never_leaves_is_put_up_with_and_told(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("AUTOSPARSE_BUSY_HOST", raising=False)
        host = Neighbour(0.0, 1.0)
        timing = measure(host.runner(5e4), LAYERS, prober=host.prober(), state="", slow_patience_s=0.05)
        assert timing.median_us == pytest.approx(70)
        assert "the processors did 78% of what they can" in timing.disturbed
        assert timing.slowed_s > 0.05


@pytest.mark.parametrize(("slowed", "alone"), [(0, 1.0), (10, 0.75), (30, 0.25)])
def test_how_much_of_the_time_a_host_was_left_alone(slowed: int, alone: float) -> None:
    history = replace(KNOWN, paces=(FULL,) * (40 - slowed) + (BUSY,) * slowed)
    assert history.undisturbed_share == alone
    assert History().undisturbed_share == 1.0


class TestProber:
    def test_a_busy_host_is_taken_for_what_it_is_where_asked_for(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AUTOSPARSE_BUSY_HOST", "accept")
        assert Prober(2, KNOWN, lambda threads: 50.0, pace=lambda threads: BUSY)().is_usable

    def test_processors_that_rested_get_their_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(states, "RAMP_S", 60.0)
        ramp = iter([Pace(gflops=60.0, gbytes_per_s=50.0), Pace(gflops=80.0, gbytes_per_s=90.0), FULL])
        prober = Prober(2, KNOWN, lambda threads: 50.0, pace=lambda threads: next(ramp))
        assert prober().is_usable
        assert prober.taken_paces == [FULL]

    def test_two_threads_of_one_core_are_no_state(self) -> None:
        """They hand a line over sooner than two cores do, and halve each other's pace."""
        figures: Iterator[tuple[float, Pace]] = iter(
            [
                (35.0, Pace(gflops=51.0, gbytes_per_s=50.0)) if i % 5 == 0 else (50.0, FULL)
                for i in range(40)
            ]
        )
        now: list[tuple[float, Pace]] = []

        def pace(threads: int) -> Pace:
            now.append(next(figures))
            return now[-1][1]

        prober = Prober(2, History(), lambda threads: now[-1][0], lambda seconds: None, pace)
        prober.learn()
        assert prober.history.split_ns is None
        assert set(prober.history.handovers_ns) == {50.0}
        assert prober.history.slowed_share == pytest.approx(0.2)

    def test_a_limit_that_was_measured_counts_where_the_history_knows_less(self) -> None:
        known = replace(KNOWN, limit=Pace(gflops=150.0, gbytes_per_s=0.0))
        prober = Prober(2, known, lambda threads: 50.0, pace=lambda threads: FULL)
        assert prober.held_against() == Marks(full=Pace(gflops=150.0, gbytes_per_s=90.0))
        assert prober().is_slowed
        assert prober.pace_share == pytest.approx(100 / 150)

    def test_a_history_of_an_earlier_version_is_read(self) -> None:
        save_history(hardware.hardware_id(), 1, History())
        prober = prober_for(1)
        assert prober is not None and prober.held_against().full is not None
        assert load_histories(hardware.hardware_id())[1] == History()


def test_what_a_host_can_do_is_no_lucky_figure() -> None:
    assert full_pace(()) is None
    lucky = Pace(gflops=140.0, gbytes_per_s=120.0)
    assert full_pace((*(FULL,) * 60, *(BUSY,) * 39, lucky)) == FULL


def test_a_neighbour_who_only_takes_instructions_shows() -> None:
    full = Pace(gflops=160.0, gbytes_per_s=120.0, gintegers_per_s=10.0)
    beside = Pace(gflops=155.0, gbytes_per_s=115.0, gintegers_per_s=6.4)
    assert beside.over(full) == pytest.approx(0.64)
    history = replace(KNOWN, paces=(full,) * 30 + (beside,) * 10)
    assert history.slowed_share == pytest.approx(0.25)


def test_a_figure_that_was_not_looked_at_says_nothing() -> None:
    """Histories of earlier versions hold two of the three."""
    new = Pace(gflops=98.0, gbytes_per_s=90.0, gintegers_per_s=10.0)
    assert FULL.over(new) == FULL.over(FULL) == 1.0
    assert full_pace((*(FULL,) * 10, new)) == Pace(
        gflops=100.0, gbytes_per_s=90.0, gintegers_per_s=10.0
    )


class TestLimits:
    """What a host can do with several threads is known from fewer, where its processors are alike."""

    PACES = (Pace(gflops=100.0, gbytes_per_s=90.0, gintegers_per_s=10.0),) * 40

    @pytest.fixture
    def host(self, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], History]:
        if hardware.usable_cores() < 2:
            pytest.skip("one processor has no second thread")

        def limited(virtual: bool) -> History:
            here = hardware.detect()
            cpu = replace(here.cpu, is_virtual=virtual, f32_gflops_core=100.0, f32_gflops_all=None)
            cpu = replace(cpu, f32_gflops_all=cpu.cores_usable * 90.0)
            monkeypatch.setattr(hardware, "detect", lambda: replace(here, cpu=cpu))
            slow = Pace(gflops=80.0, gbytes_per_s=70.0, gintegers_per_s=6.0)
            save_history(hardware.hardware_id(), 1, replace(KNOWN, paces=self.PACES))
            save_history(hardware.hardware_id(), 2, replace(KNOWN, paces=(slow,) * 40))
            found = prober_for(2)
            assert found is not None
            return found.history

        return limited

    def test_processors_of_a_virtual_machine_that_were_never_left_alone(
        self, host: Callable[[bool], History]
    ) -> None:
        history = host(True)
        full = history.marks.full
        assert full is not None
        clock = history.limit.gflops / 100.0
        assert 0.85 <= clock <= 0.951
        assert full.gintegers_per_s == pytest.approx(10.0 * clock)
        assert full.gbytes_per_s == 70.0
        assert history.slowed_share == 1.0

    @pytest.mark.parametrize("virtual", [True, False])
    def test_a_neighbour_who_stays_for_longer_than_the_history_reaches(
        self, virtual: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        here = hardware.detect()
        cpu = replace(here.cpu, is_virtual=virtual, f32_gflops_core=None, f32_gflops_all=None)
        monkeypatch.setattr(hardware, "detect", lambda: replace(here, cpu=cpu))
        slow = Pace(gflops=98.0, gbytes_per_s=60.0, gintegers_per_s=6.0)
        save_history(hardware.hardware_id(), 1, replace(KNOWN, paces=self.PACES))
        for _ in range(20):
            found = prober_for(1)
            assert found is not None
            save_history(hardware.hardware_id(), 1, found.history.grown((), (slow,) * 40))
        history = load_histories(hardware.hardware_id())[1]
        assert set(history.paces) == {slow}
        full = replace(self.PACES[0], gflops=98.0) if virtual else slow
        assert history.marks.full == full
        assert history.slowed_share == float(virtual)

    def test_cores_of_several_kinds_are_taken_as_they_were_seen(
        self, host: Callable[[bool], History]
    ) -> None:
        full = host(False).marks.full
        assert full is not None and full.gintegers_per_s == 6.0


def test_this_host_has_a_pace() -> None:
    for threads in range(1, hardware.usable_cores() + 1):
        found = probe_pace(threads)
        assert 0.1 < found.gintegers_per_s < 1_000
        assert 0.1 < found.gflops < 10_000
        assert 0.1 < found.gbytes_per_s < 10_000


@pytest.mark.parametrize(("threads", "slices"), [(0, 9), (-1, 9), (2, 0), (5_000, 9)])
def test_probes_refuse_what_they_cannot_do(threads: int, slices: int) -> None:
    with pytest.raises(UsageError, match=f"but got {threads} and {slices}"):
        probe_slowest_gflops(threads, slices)
    with pytest.raises(UsageError, match=f"but got {threads} and {slices}"):
        probe_slowest_integers_per_s(threads, slices)
    with pytest.raises(UsageError, match=f"but got {threads}, {slices} and 4096"):
        probe_slowest_read_bytes_per_s(threads, 4096, slices)


@pytest.mark.parametrize("buffer_bytes", [0, 1023, (1 << 24) + 1, -5])
def test_a_buffer_has_its_limits(buffer_bytes: int) -> None:
    with pytest.raises(UsageError, match=f"and {buffer_bytes}"):
        probe_slowest_read_bytes_per_s(1, buffer_bytes)
