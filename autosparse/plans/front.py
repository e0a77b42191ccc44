"""Points of latency and accuracy: domination, fronts, knee, ranks, hypervolume, and whom to promote.

A point has a latency (less is better), an accuracy (more is better) and an excess over the budget (0 or
less where it is met). All functions work on any objects with these three attributes; `Point` is one
that has nothing else. Search, report and pipeline all judge by these definitions and no others.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from autosparse.errors import UsageError
from autosparse.storage.serial import Record


class Scored(Protocol):
    """What the functions here need of a point."""

    @property
    def latency_ms(self) -> float:
        """Latency, less is better."""

    @property
    def accuracy_value(self) -> float:
        """Accuracy, more is better."""

    @property
    def excess_ms(self) -> float:
        """Latency over the budget; 0 or less is feasible."""


_S = TypeVar("_S", bound=Scored)


@dataclass(frozen=True, slots=True)
class Point:
    """A point and whose it is.

    Attributes:
        name: what the caller knows it by.
        latency_ms: less is better.
        accuracy_value: more is better.
        excess_ms: latency over the budget; 0 or less is feasible.
    """

    name: str
    latency_ms: float
    accuracy_value: float
    excess_ms: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference(Record):
    """The point that hypervolume is measured from: nothing worse than it counts.

    Attributes:
        latency_ms: usually 1.1 times the dense latency.
        accuracy: usually that of guessing.
    """

    latency_ms: float
    accuracy: float


def dominates(a: Scored, b: Scored) -> bool:
    """Whether `a` is at least as good as `b` in everything and better in something, budget first.

    Source: constrained domination, Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm:
    NSGA-II", 2002, definition 1.
    """
    over_a, over_b = _over(a), _over(b)
    if over_a > 0 or over_b > 0:
        return over_a < over_b
    return (a.latency_ms <= b.latency_ms and a.accuracy_value >= b.accuracy_value) and (
        a.latency_ms < b.latency_ms or a.accuracy_value > b.accuracy_value
    )


def non_dominated(points: Sequence[_S]) -> tuple[_S, ...]:
    """Gives the points that no other dominates, fastest first.

    Equal points do not dominate each other, so all of them stay. Points over the budget are among them
    only if none meets it; then they are those that exceed it least.
    """
    least = min((_over(point) for point in points), default=0.0)
    nearest = sorted((point for point in points if _over(point) == least), key=_fastest_first)
    if least > 0:
        return tuple(nearest)
    kept: list[_S] = []
    for point in nearest:
        if not kept or point.accuracy_value > kept[-1].accuracy_value or _equal(point, kept[-1]):
            kept.append(point)
    return tuple(kept)


def feasible_front(points: Sequence[_S]) -> tuple[_S, ...]:
    """Gives the feasible points that no feasible one dominates, fastest first; of equals the first."""
    kept: list[_S] = []
    for point in non_dominated([point for point in points if point.excess_ms <= 0]):
        if not kept or not _equal(point, kept[-1]):
            kept.append(point)
    return tuple(kept)


def least_infeasible(points: Sequence[_S], count: int) -> tuple[_S, ...]:
    """Gives the points nearest to the budget, for when none meets it."""
    return tuple(sorted(points, key=lambda p: (p.excess_ms, -p.accuracy_value))[:count])


def ranks(points: Sequence[_S]) -> tuple[tuple[_S, ...], ...]:
    """Sorts points into fronts: the undominated ones, those undominated without them, and so on."""
    left = list(points)
    fronts = []
    while left:
        best = non_dominated(left)
        fronts.append(best)
        chosen = {id(p) for p in best}
        left = [p for p in left if id(p) not in chosen]
    return tuple(fronts)


def hypervolume(points: Sequence[Scored], reference: Reference) -> float:
    """Gives the exact area that the feasible points dominate, up to the reference point.

    Returns:
        Milliseconds times accuracy; 0 without a point better than the reference in both.
    """
    area, reached = 0.0, reference.accuracy
    front = feasible_front(points)
    edges = [min(p.latency_ms, reference.latency_ms) for p in front]
    for point, edge in zip(front, edges, strict=True):
        gain = max(0.0, point.accuracy_value - reached)
        area += gain * (reference.latency_ms - edge)
        reached += gain
    return area


def knee(points: Sequence[_S]) -> _S:
    """Gives the point of the front that bends most.

    Both axes are scaled to the front's own extent; the knee is the point farthest above the straight
    line from the fastest to the most accurate point. A front without a bend gives its most accurate
    point.

    Raises:
        UsageError: no points.
    """
    if not points:
        raise UsageError("a knee must be that of at least one point, but got none")
    front = non_dominated(points)
    first, last = front[0], front[-1]
    width = last.latency_ms - first.latency_ms
    height = last.accuracy_value - first.accuracy_value
    if width <= 0 or height <= 0:
        return max(front, key=lambda p: p.accuracy_value)

    def above_chord(p: _S) -> float:
        across = (p.latency_ms - first.latency_ms) / width
        return (p.accuracy_value - first.accuracy_value) / height - across

    # Rounding makes points of a straight line differ by an ulp or so; those are no bend.
    bend = max(front, key=above_chord)
    return bend if above_chord(bend) > 1e-9 else last


def promote(points: Sequence[_S], count: int) -> tuple[_S, ...]:
    """Chooses whom to train: better ranks first, and within a rank a spread along it.

    A rank that fits is taken whole. Of one that does not, the most accurate point comes first, then the
    fastest, then the knee, then time and again the point farthest in latency from those chosen.

    Returns:
        At most `count` points, in order of preference.

    Raises:
        UsageError: a count below 1.
    """
    if count < 1:
        raise UsageError(f"at least one point must be promoted, but got count {count}")
    chosen: list[_S] = []
    for rank in ranks(points):
        chosen += _spread(rank, count - len(chosen))
        if len(chosen) >= count:
            break
    return tuple(chosen)


def _spread(rank: Sequence[_S], count: int) -> list[_S]:
    wanted = [rank[-1], rank[0], knee(rank)]
    order: list[_S] = []
    for point in wanted:
        if not any(point is other for other in order):
            order.append(point)
    left = [p for p in rank if not any(p is other for other in order)]
    while left and len(order) < count:
        taken = sorted(p.latency_ms for p in order)
        farthest = max(left, key=lambda p, t=taken: _gap(p.latency_ms, t))  # type: ignore[misc]
        order.append(farthest)
        left = [p for p in left if p is not farthest]
    return order[:count]


def _over(point: Scored) -> float:
    return max(0.0, point.excess_ms)


def _equal(a: Scored, b: Scored) -> bool:
    return (a.latency_ms, a.accuracy_value) == (b.latency_ms, b.accuracy_value)


def _fastest_first(point: Scored) -> tuple[float, float]:
    return point.latency_ms, -point.accuracy_value


def _gap(value: float, taken: Sequence[float]) -> float:
    at = bisect.bisect(taken, value)
    return min(abs(value - other) for other in taken[max(0, at - 1) : at + 1])
