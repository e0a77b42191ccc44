"""Learning rates over a training: how they rise and fall inside each of its phases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from autosparse.train.methods.method import Phase

SCHEDULES = ("cosine", "one-cycle", "constant")
Schedule = Literal["cosine", "one-cycle", "constant"]
_RISE = 0.3  # part of a one-cycle phase in which the rate rises, from a 25th of the highest
_FLOOR = 1 / 25


def phase_at(epoch: float, phases: Sequence[Phase], epochs: int) -> tuple[Phase, int]:
    """Gives the phase that an epoch belongs to, and where that phase ends."""
    index = max(i for i, phase in enumerate(phases) if phase.start <= epoch or i == 0)
    return phases[index], phases[index + 1].start if index + 1 < len(phases) else epochs


def factor(
    schedule: Schedule, at: float, span: float, *, warmup: float = 0.0, step: float = 0.0
) -> float:
    """Gives the learning rate as a part of the highest of its phase.

    Args:
        schedule: ``cosine`` falls to 0 by a half cosine, ``one-cycle`` first rises for three tenths of
            the phase, ``constant`` stays.
        at: epochs since the phase began.
        span: epochs of the phase.
        warmup: epochs of a linear rise at its start, before the schedule begins.
        step: epochs per step, so that the first step has a rate above 0.
    """
    if at < warmup:
        return (at + step) / (warmup + step)
    x = (at - warmup) / (span - warmup)
    if schedule == "constant":
        return 1.0
    if schedule == "one-cycle":
        if x < _RISE:
            return _FLOOR + (1 - _FLOOR) * x / _RISE
        x = (x - _RISE) / (1 - _RISE)
    return 0.5 * (1 + math.cos(math.pi * x))
