"""Contestants in turn: what a session makes of the host's states."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autosparse.measuring.conditions import Conditions
from autosparse.measuring.states import APART, NEAR, HostState
from autosparse.measuring.stopwatch import WHOLE, Runner, Timing
from autosparse.measuring.turns import Comparison
from autosparse.progress import Progress
from autosparse.sessions import in_turn
from autosparse.sessions.in_turn import Circumstances, Entrant, run_in_turn
from autosparse.sessions.operators import operators_us

FAST = replace(WHOLE, warmup_us=0.0, rest_us=0.0)


def steady(us: float) -> Runner:
    return lambda count: np.full(count, round(1e3 * us), dtype=np.int64)


def entrant(name: str, us: float, **changes: object) -> Entrant:
    values = {"engine": "autosparse", "dtype": "f32", "spins": False, **changes}
    return Entrant(name=name, run=steady(us), **values)  # type: ignore[arg-type]


def test_everybody_has_a_latency_that_says_what_it_is_of() -> None:
    found = run_in_turn(
        [entrant("ours", 2_000.0, dtype="bf16"), entrant("torch", 5_000.0, engine="torch", spins=True)],
        FAST,
        threads=1,
        batch_size=4,
        progress=Progress(),
    )
    assert found.state == "", "one thread has no states"
    ours, torch = found.latencies("ours")[""], found.latencies("torch")[""]
    assert (ours.median_ms, ours.dtype, ours.engine) == (2.0, "bf16", "autosparse")
    assert (torch.median_ms, torch.dtype, torch.engine) == (5.0, "f32", "torch")
    assert (ours.threads, ours.batch_size) == (1, 4)


@pytest.mark.parametrize(("judged", "state"), [("worst", APART), ("best", NEAR), ("longest", NEAR)])
def test_one_state_is_judged_and_all_are_told(
    monkeypatch: pytest.MonkeyPatch, judged: str, state: str
) -> None:
    asked: dict[str, object] = {}

    def timings(us: float, label: str, rounds: int) -> dict[str, Timing]:
        one = Timing(
            median_us=us, ci_low_us=us, ci_high_us=us, repeats=rounds, settled=True,
            turns_us=(us,) * rounds, state=HostState(label=label, handover_ns=50.0),
        )  # fmt: skip
        return {"a": one}

    def both(*args: object, **given: object) -> tuple[Comparison, None]:
        asked.update(given)
        found = {APART: timings(7_000.0, APART, 6), NEAR: timings(4_000.0, NEAR, 20)}
        comparison = Comparison(
            timings=found, handovers_ns={APART: 205.0, NEAR: 45.0}, discarded=3, slowed=2, too_short={},
            conditions=Conditions(foreign_share=0.5),
        )  # fmt: skip
        return comparison, None

    monkeypatch.delenv("AUTOSPARSE_BUSY_HOST")
    monkeypatch.setattr(in_turn, "interleave_here", both)
    found = run_in_turn(
        [entrant("a", 0.0, spins=True)],
        FAST,
        threads=2,
        batch_size=1,
        judged=judged,
        progress=Progress(),
    )
    assert asked["spinning"] == ["a"]
    assert found.state == state
    assert found.circumstances.state.handover_ns == {APART: 205.0, NEAR: 45.0}[state]
    assert {name: each.median_ms for name, each in found.latencies("a").items()} == {
        APART: 7.0,
        NEAR: 4.0,
    }
    assert "other processes took 50%" in found.circumstances.why_disturbed
    assert Circumstances.from_json(found.circumstances.to_json()) == found.circumstances


def test_operators_are_the_medians_of_turns() -> None:
    class Model:
        turns = 0

        def measure_operators(self, repeats: int) -> dict[str, float]:
            self.turns += 1
            return {"conv": {1: 50.0}.get(self.turns, 10.0), "relu": float(repeats)}

    assert operators_us(Model(), None, "") == {"conv": 10.0, "relu": 10.0}
