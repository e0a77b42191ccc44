"""What the operators of a compiled model take inside whole runs, in one state of the host."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from autosparse.measuring.states import Prober, in_state

# A few runs at a time: the host may change its state in between.
_RUNS = 10
_TURNS = 5


class Compiled(Protocol):
    """A model that tells of its operators."""

    def measure_operators(self, repeats: int) -> dict[str, float]:
        """Gives the median time of every operator within whole runs, microseconds."""


def operators_us(model: Compiled, prober: Prober | None, state: str) -> dict[str, float]:
    """Gives the median time of every operator, microseconds.

    Args:
        model: what runs.
        prober: tells the host's state; None where there is nothing to tell apart.
        state: the state that is wanted; no more once the prober has waited long for it.
    """
    turns = []
    for _ in range(_TURNS):
        wanted = None if prober is not None and prober.has_waited_long else prober
        turns.append(in_state(wanted, state, lambda: model.measure_operators(_RUNS)))
    return {name: float(np.median([turn[name] for turn in turns])) for name in turns[0]}
