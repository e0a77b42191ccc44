"""Comparisons with made-up clocks, and with hosts whose states come from a recorded trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pytest

from autosparse.errors import AutosparseError, Stopped, UsageError
from autosparse.measuring import stopwatch, turns
from autosparse.measuring.states import APART, NEAR, History, Prober
from autosparse.measuring.stopwatch import LAYERS, WHOLE, Timing, measure
from autosparse.measuring.turns import Comparison, disturbed_rounds, interleave, paired_ratio
from autosparse.progress import Progress, ProgressEvent
from autosparse.statistics import median_ci


class Clock:
    """A runner whose wall times come from a generator; time passes only here."""

    def __init__(self, draw) -> None:
        self.draw = draw
        self.calls: list[int] = []

    def __call__(self, count: int) -> np.ndarray:
        self.calls.append(count)
        return np.asarray(self.draw(count), dtype=np.float64).astype(np.int64)

    @property
    def runs(self) -> int:
        return sum(self.calls)


class Rests:
    """The module `time` where nothing but rests takes any."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds


def steady(ns: float, spread: float = 0.0, seed: int = 0) -> Clock:
    generator = np.random.default_rng(seed)
    return Clock(lambda count: ns * (1 + spread * generator.standard_normal(count)))


FAST = replace(WHOLE, warmup_us=0.0, rest_us=0.0)


def compare(runners: Mapping[str, Clock], *how: object) -> Mapping[str, Timing]:
    """Compares on a host of one state."""
    found = interleave(runners, *how)
    assert found.states == ("",)
    assert found.handovers_ns == {"": None}
    return found.timings[""]


class TestInterleave:
    def test_turns_alternate_forwards_and_backwards(self) -> None:
        order: list[str] = []

        def runner(name: str, ns: int):
            def run(count: int) -> np.ndarray:
                order.append(name)
                return np.full(count, ns, dtype=np.int64)

            return run

        compare({"a": runner("a", 10**7), "b": runner("b", 2 * 10**7)}, FAST, Progress())
        taken = "".join(order)[2:]  # after one warm-up run each
        assert taken[:8] == "abbaabba"
        assert taken.count("a") == taken.count("b")
        assert len(taken) % 4 == 0

    @pytest.mark.parametrize(
        ("spinning", "told"), [(None, ".a.b.c.c.b.a.a"), (["c"], ".abc.c.baa"), ([], "abccbaa")]
    )
    def test_a_rest_follows_whoever_spins(
        self, monkeypatch: pytest.MonkeyPatch, spinning: list[str] | None, told: str
    ) -> None:
        seen: list[str] = []

        def runner(name: str) -> Clock:
            return Clock(lambda count: [10e6] * count if seen.append(name) is None else [])

        monkeypatch.setattr(turns.time, "sleep", lambda seconds: seen.append("." * (seconds > 0)))
        policy = replace(FAST, rest_us=100.0)
        runners = {name: runner(name) for name in "abc"}
        found = interleave(runners, policy, Progress(), spinning=spinning)
        assert "".join(seen)[3:].startswith(told), "after one warm-up run each"
        assert len(found.timings[""]["a"].turns_us) >= 6

    def test_medians_and_ratio(self) -> None:
        found = compare({"a": steady(10e6, 0.02, 1), "b": steady(5e6, 0.02, 2)}, FAST, Progress())
        assert found["a"].median_us == pytest.approx(10_000, rel=0.01)
        ratio, low, high = paired_ratio(found["a"], found["b"])
        assert low <= ratio <= high
        assert ratio == pytest.approx(2, rel=0.01)
        assert found["a"].repeats >= FAST.min_repeats
        assert median_ci(found["a"].turns_us)[0] == found["a"].median_us

    def test_drift_of_the_machine_cancels_in_the_ratio(self) -> None:
        elapsed = [0.0]

        def drifting(ns: float):
            def run(count: int) -> np.ndarray:
                elapsed[0] += count
                return np.full(count, ns * (1 + 0.002 * elapsed[0]), dtype=np.float64).astype(np.int64)

            return run

        found = compare({"a": drifting(3e7), "b": drifting(1e7)}, FAST, Progress())
        ratio, low, high = paired_ratio(found["a"], found["b"])
        assert found["a"].ci_high_us / found["a"].ci_low_us > 1.02
        assert ratio == pytest.approx(3, rel=0.02)
        assert high - low < 0.2

    def test_the_first_run_of_a_turn_is_thrown_away(self) -> None:
        found = compare({"a": Clock(lambda n: [5e8] + [2e7] * (n - 1))}, FAST, Progress())
        assert found["a"].median_us == 20_000

    def test_it_ends_early_once_all_are_known(self) -> None:
        events: list[ProgressEvent] = []
        clock = steady(2e7, 0.0001)
        found = compare({"a": clock}, FAST, Progress(events.append))
        assert found["a"].settled
        assert clock.runs < FAST.time_cap_us / 20_000 / 2
        assert events[-1].kind == "end"
        assert events[-1].done == events[-1].total

    def test_implausible_times_are_told(self) -> None:
        found = compare({"a": Clock(lambda n: [1e7] * (n - 1) + [0])}, FAST, Progress())
        assert "greater than zero" in found["a"].problem

    def test_a_stop_is_heeded(self) -> None:
        with pytest.raises(Stopped):
            compare({"a": steady(1e7, 0.5)}, FAST, Progress(should_stop=lambda: True))

    def test_rules(self) -> None:
        with pytest.raises(UsageError, match="at least one runner"):
            interleave({}, FAST, Progress())
        alone = measure(steady(1e6), LAYERS)
        with pytest.raises(UsageError, match="paired"):
            paired_ratio(alone, alone)


def test_rounds_in_which_most_runners_are_slow_are_disturbed() -> None:
    def timing(*turns: float) -> Timing:
        return Timing(
            median_us=1.0, ci_low_us=1.0, ci_high_us=1.0, repeats=9, settled=True, turns_us=turns
        )

    steady = timing(1.0, 1.0, 1.02, 1.0, 1.0, 1.0)
    slowed = timing(2.0, 2.02, 3.0, 2.0, 2.6, 2.0)
    more = timing(5.0, 5.01, 7.0, 5.0, 5.0, 5.05)
    # One slow turn is the runner's own affair; two of three are the host's.
    assert disturbed_rounds({"a": steady, "b": slowed, "c": more}) == (2,)
    assert disturbed_rounds({"a": steady, "b": steady, "c": more}) == ()


NEAR_NS, APART_NS = 45.0, 240.0
KNOWN = History(handovers_ns=(NEAR_NS, APART_NS) * 30, split_ns=100.0)
FACTOR = 1.5


@dataclass
class Host:
    """A host whose state is a trace of (seconds, hand-over), and whose time passes by its runs.

    Runs take `FACTOR` times as long while the processors are apart.
    """

    trace: tuple[tuple[float, float], ...]
    now_s: float = 0.0
    probe_s: float = 0.0005

    def handover_ns(self) -> float:
        length = sum(seconds for seconds, _ in self.trace)
        place = self.now_s % length
        for seconds, handover_ns in self.trace:
            place -= seconds
            if place < 0:
                return handover_ns
        return self.trace[-1][1]

    def probe(self, threads: int) -> float:
        assert threads == 2
        self.now_s += self.probe_s
        return self.handover_ns()

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds

    def runner(self, ns: float) -> Callable[[int], np.ndarray]:
        def run(count: int) -> np.ndarray:
            took = []
            for _ in range(count):
                took.append(ns * (FACTOR if self.handover_ns() > 100 else 1.0))
                self.now_s += took[-1] / 1e9
            return np.asarray(took).astype(np.int64)

        return run

    def prober(self, history: History = KNOWN) -> Prober:
        return Prober(2, history, self.probe, self.pass_time)

    def compare(self, history: History = KNOWN, policy: object = None) -> Comparison:
        runners = {"a": self.runner(4e6), "b": self.runner(2e6)}
        return interleave(runners, policy or FAST, Progress(), prober=self.prober(history))


class TestStates:
    def test_figures_of_two_states_are_never_mixed(self) -> None:
        found = Host(((0.31, NEAR_NS), (0.17, APART_NS))).compare()
        assert found.states == (APART, NEAR), "the slowest first"
        assert found.handovers_ns == {NEAR: NEAR_NS, APART: APART_NS}
        assert found.discarded > 0, "turns in which the host changed"
        for state, factor in ((NEAR, 1.0), (APART, FACTOR)):
            timings = found.timings[state]
            assert set(timings["a"].turns_us) == {4_000 * factor}
            assert set(timings["b"].turns_us) == {2_000 * factor}
            assert paired_ratio(timings["a"], timings["b"])[0] == 2
            assert timings["a"].state.label == state
            latency = timings["a"].whole_latency(threads=2, batch_size=1, dtype="f32")
            assert (latency.state, latency.handover_ns) == (state, found.handovers_ns[state])

    def test_ratios_across_states_are_refused(self) -> None:
        found = Host(((0.31, NEAR_NS), (0.31, APART_NS))).compare()
        one, other = found.timings[NEAR]["a"], found.timings[APART]["b"]
        turns = min(len(one.turns_us), len(other.turns_us))
        cut = (replace(each, turns_us=each.turns_us[:turns]) for each in (one, other))
        with pytest.raises(UsageError, match="in one state of the host, but got 'shared' and 'apart'"):
            paired_ratio(*cut)

    def test_every_state_alternates_forwards_and_backwards(self) -> None:
        host, order = Host(((0.25, NEAR_NS), (0.25, APART_NS))), []
        runners = {name: host.runner(4e6) for name in "abc"}

        def noted(name: str) -> Callable[[int], np.ndarray]:
            def run(count: int) -> np.ndarray:
                before = host.handover_ns()
                took = runners[name](count)
                if before == host.handover_ns():  # what is kept
                    order.append((before, name))
                return took

            return run

        interleave({n: noted(n) for n in "abc"}, FAST, Progress(), prober=host.prober())
        for handover_ns in (NEAR_NS, APART_NS):
            turns = "".join(name for state, name in order[3:] if state == handover_ns)
            assert turns.startswith("abccbaabc")

    def test_a_second_state_is_found_amid_a_comparison(self) -> None:
        host = Host(((0.5, NEAR_NS), (0.5, APART_NS)))
        long = replace(FAST, min_repeats=200)
        found = host.compare(History(handovers_ns=(NEAR_NS,) * 40), long)
        assert found.states == (APART, NEAR)
        assert set(found.timings[APART]["a"].turns_us) == {4_000 * FACTOR}
        assert set(found.timings[NEAR]["a"].turns_us) == {4_000}

    def test_a_host_of_one_state_has_no_label(self) -> None:
        found = Host(((1.0, NEAR_NS),)).compare(History(handovers_ns=(NEAR_NS,) * 40))
        assert found.states == ("",)
        assert (found.discarded, found.handovers_ns) == (0, {"": NEAR_NS})

    def test_a_state_that_hardly_comes_is_left_out_and_named(self) -> None:
        seldom = History(handovers_ns=(NEAR_NS,) * 60 + (APART_NS,) * 3, split_ns=100.0)
        host = Host(((30.0, NEAR_NS), (0.2, APART_NS)), now_s=29.95)
        found = host.compare(seldom, replace(FAST, min_repeats=100))
        assert found.states == (NEAR,)
        assert 0 < found.too_short[APART] < 6

    def test_a_host_that_changes_in_every_turn_gives_no_figure(self) -> None:
        trace = ((0.003, NEAR_NS), (0.003, APART_NS))
        host = Host(trace)

        def probe(threads: int) -> float:
            host.trace = host.trace[::-1]
            return host.trace[0][1]

        prober = Prober(2, KNOWN, probe, host.pass_time)
        short = replace(FAST, max_repeats=24)
        with pytest.raises(AutosparseError, match=r"none of .* did; wait until the host is quieter"):
            interleave({"a": host.runner(4e6)}, short, Progress(), prober=prober)

    def test_turns_beside_a_probe_that_waited_for_a_processor_are_discarded(self) -> None:
        long = replace(FAST, min_repeats=100)
        found = Host(((0.4, NEAR_NS), (0.1, 80_000.0))).compare(policy=long)
        assert found.states == (NEAR,)
        assert found.discarded > 0
        assert found.handovers_ns == {NEAR: NEAR_NS}


class TestOneRunner:
    def test_samples_of_the_wanted_state_alone_count(self) -> None:
        for state, factor in ((NEAR, 1.0), (APART, FACTOR)):
            host = Host(((0.0021, NEAR_NS), (0.0017, APART_NS)), probe_s=0.0001)
            timing = measure(host.runner(5e4), LAYERS, prober=host.prober(), state=state)
            assert timing.state.label == state
            assert timing.median_us == timing.ci_high_us == 50 * factor
            assert timing.repeats >= LAYERS.min_repeats

    def test_without_a_wish_the_state_at_the_start_counts(self) -> None:
        host = Host(((0.02, APART_NS), (0.02, NEAR_NS)))
        assert measure(host.runner(5e4), LAYERS, prober=host.prober()).state.label == APART

    def test_a_state_that_does_not_come_gives_way_to_the_one_that_is_there(self) -> None:
        host = Host(((1.0, APART_NS),))
        timing = measure(host.runner(5e4), LAYERS, prober=host.prober(), state=NEAR, patience_s=0.05)
        assert timing.state.label == APART
        assert timing.median_us == 50 * FACTOR

    def test_rests_are_a_part_of_the_wait_for_a_state(self, monkeypatch: pytest.MonkeyPatch) -> None:
        clock = Rests()
        monkeypatch.setattr(stopwatch, "time", clock)
        host = Host(((1.0, APART_NS),))
        measure(host.runner(5e4), LAYERS, prober=host.prober(), state=NEAR, patience_s=0.05)
        assert 0.05 < clock.now_s < 0.07  # the runner itself takes no time of this clock

    def test_a_host_that_cannot_be_probed_is_measured_all_the_same(self) -> None:
        host = Host(((1.0, 90_000.0),))
        timing = measure(host.runner(5e4), LAYERS, prober=host.prober(), state=NEAR, patience_s=0.05)
        assert timing.state.label == ""
        assert timing.repeats >= LAYERS.min_repeats
