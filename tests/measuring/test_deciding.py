"""Further turns for what a comparison left open: until a bound is outside of the interval, or a cap."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace

import numpy as np
import pytest

from autosparse.errors import Stopped
from autosparse.measuring.deciding import crosses, decide
from autosparse.measuring.states import APART, NEAR, History, Prober
from autosparse.measuring.stopwatch import WHOLE, Runner, Timing
from autosparse.measuring.turns import interleave
from autosparse.progress import Progress, ProgressEvent

FAST = replace(WHOLE, warmup_us=0.0, rest_us=0.0, max_repeats=60)
CAP_US = 2e6


def runner(us: float, spread: float, seed: int) -> Runner:
    """A runner that takes no time itself; wall times come from a generator."""
    generator = np.random.default_rng(seed)

    def run(count: int) -> np.ndarray:
        return (1e3 * us * (1 + spread * generator.standard_normal(count))).astype(np.int64)

    return run


def first(runners: dict[str, Runner]) -> dict[str, Timing]:
    return dict(interleave(runners, FAST, Progress()).timings[""])


def test_what_crosses_is_measured_until_it_lies_on_one_side() -> None:
    runners = {
        "dense": runner(10_000, 0.01, 0),
        "below": runner(4_960, 0.05, 1),
        "above": runner(5_040, 0.05, 2),
        "clear": runner(4_000, 0.01, 3),
    }
    timings = first(runners)
    assert crosses(timings["below"], 5_000) and crosses(timings["above"], 5_000)
    told: list[ProgressEvent] = []
    progress = Progress(told.append)
    found = decide(runners, timings, 5_000, FAST, progress, canary="dense", cap_us=60e6, state="")
    assert [(event.kind, event.done, event.total) for event in told][-1] == ("end", 2, 2)
    assert set(found.timings) == {"below", "above"}
    assert found.timings["below"].ci_high_us <= 5_000 < found.timings["above"].ci_low_us
    assert found.timings["below"].median_us == pytest.approx(4_960, rel=0.005)
    for name, timing in found.timings.items():
        assert timing.repeats > timings[name].repeats
        assert timing.turns_us[: len(timings[name].turns_us)] == timings[name].turns_us


def swinging(us: float) -> Runner:
    """A runner whose turns lie as far above as below, so that no number of them decides anything."""
    turns = itertools.cycle((0.8, 1.2))

    def run(count: int) -> np.ndarray:
        share = next(turns) if count > 1 else 1.0  # a single run is no turn
        return np.full(count, us * 1e3 * share).astype(np.int64)

    return run


def test_a_cap_ends_it_and_it_stays_open() -> None:
    runners = {"dense": runner(10_000, 0.01, 0), "open": swinging(5_000)}
    timings = first(runners)
    begun, told = time.monotonic(), list[ProgressEvent]()
    progress = Progress(told.append)
    found = decide(runners, timings, 5_000, FAST, progress, canary="dense", cap_us=CAP_US, state="")
    assert [(event.kind, event.done, event.total) for event in told][-1] == ("end", 0, 1)
    assert crosses(found.timings["open"], 5_000)
    assert found.seconds >= CAP_US / 1e6
    assert time.monotonic() - begun < 20


def test_nothing_is_run_where_nothing_is_open() -> None:
    def never(count: int) -> np.ndarray:
        raise AssertionError("it was run")

    timings = first({"dense": runner(10_000, 0.01, 0), "clear": runner(4_000, 0.01, 1)})
    runners = {"dense": never, "clear": never}
    # The canary's own interval may cross: nobody asks whether dense meets the budget of a plan.
    for bound_us in (5_000.0, 10_000.0, float("inf")):
        found = decide(
            runners, timings, bound_us, FAST, Progress(), canary="dense", cap_us=CAP_US, state=""
        )
        assert not found.timings


def test_turns_of_a_disturbed_host_and_of_another_state_do_not_count() -> None:
    timings = first({"dense": runner(10_000, 0.01, 0), "open": runner(5_000, 0.2, 1)})
    slower = {"dense": runner(15_000, 0.01, 0), "open": runner(7_500, 0.2, 1)}
    found = decide(slower, timings, 5_000, FAST, Progress(), canary="dense", cap_us=5e5, state="")
    assert not found.timings
    far = Prober(2, History(handovers_ns=(200.0,) * 40, split_ns=100.0), lambda threads: 200.0)
    calm = {"dense": runner(10_000, 0.01, 0), "open": runner(5_000, 0.2, 1)}
    for state, counts in ((NEAR, False), (APART, True)):
        found = decide(
            calm, timings, 5_000, FAST, Progress(), canary="dense", cap_us=5e5, state=state, prober=far
        )
        assert bool(found.timings) is counts


def test_a_stop_is_heeded() -> None:
    timings = first({"dense": runner(10_000, 0.01, 0), "open": runner(5_000, 0.2, 1)})
    stopped = Progress(should_stop=lambda: True)
    with pytest.raises(Stopped):
        decide(
            {"dense": runner(10_000, 0.01, 0), "open": runner(5_000, 0.2, 1)},
            *(timings, 5_000, FAST, stopped),
            canary="dense",
            cap_us=CAP_US,
            state="",
        )
