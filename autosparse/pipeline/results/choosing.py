"""What to deploy of what was found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from autosparse.plans.front import Scored, feasible_front, knee

_S = TypeVar("_S", bound=Scored)


def choose(points: Sequence[_S], *, has_budget: bool) -> _S | None:
    """Picks what to deploy: the most accurate within the budget, without one the front's knee."""
    front = feasible_front(points)
    if not front:
        return None
    if not has_budget:
        return knee(front)
    return max(front, key=lambda point: (point.accuracy_value, -point.latency_ms))
