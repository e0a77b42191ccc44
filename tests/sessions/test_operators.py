"""Operators are timed in the state that is wanted, as long as it can be waited for."""

from __future__ import annotations

import itertools

from autosparse.measuring.states import APART, NEAR, History, Prober
from autosparse.sessions.operators import operators_us


class Model:
    """Takes one microsecond longer with every turn."""

    def __init__(self) -> None:
        self.turns = 0

    def measure_operators(self, repeats: int) -> dict[str, float]:
        self.turns += 1
        return {"conv": float(self.turns)}


def prober(*handovers_ns: float, rests: list[float]) -> Prober:
    trace = itertools.cycle(handovers_ns)
    return Prober(2, History(split_ns=100.0), lambda threads: next(trace), rests.append)


def test_turns_are_of_the_state_that_is_wanted() -> None:
    rests: list[float] = []
    assert operators_us(Model(), prober(45.0, rests=rests), NEAR) == {"conv": 3.0}
    assert rests == []
    assert operators_us(Model(), None, "") == {"conv": 3.0}


def test_a_state_that_does_not_come_is_waited_for_once_and_not_for_every_model() -> None:
    rests: list[float] = []
    found = prober(45.0, rests=rests)
    models = [Model() for _ in range(20)]
    assert {operators_us(model, found, APART)["conv"] for model in models} == {3.0}
    assert all(model.turns == 5 for model in models)
    assert 5.0 < sum(rests) < 7.5  # one call's patience beyond what is long
