"""Pareto sets of plain numbers: latency is to be small, accuracy to be large.

A point is a pair (latency, accuracy), in any units. All functions answer with indices into what they
were given, in the order of growing latency.
"""

from __future__ import annotations

from collections.abc import Sequence

Point = tuple[float, float]


def non_dominated(points: Sequence[Point]) -> list[int]:
    """Gives the points that no other point beats: not slower, not less accurate, better in one.

    Equal points do not beat each other, so all of them stay.
    """
    order = sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1], i))
    kept: list[int] = []
    best = float("-inf")
    for i in order:
        accuracy = points[i][1]
        if accuracy > best or (kept and points[i] == points[kept[-1]]):
            kept.append(i)
            best = accuracy
    return kept


def feasible_front(points: Sequence[Point], budget: float | None) -> list[int]:
    """Gives the non-dominated points within a latency budget; all of the front without a budget.

    If no point meets the budget, the front of all points: the way to the nearest feasible one.
    """
    inside = [i for i, point in enumerate(points) if budget is None or point[0] <= budget]
    chosen = inside or list(range(len(points)))
    return [chosen[i] for i in non_dominated([points[i] for i in chosen])]


def knee(points: Sequence[Point]) -> int:
    """Gives the point of the front that bends most.

    Both axes are scaled to the front's own extent; the knee is the point farthest above the straight
    line from the fastest to the most accurate point. A front without a bend gives its most accurate
    point.

    Raises:
        ValueError: no points.
    """
    front = non_dominated(points)
    if not front:
        raise ValueError("a knee needs at least one point")
    (x0, y0), (x1, y1) = points[front[0]], points[front[-1]]
    if x1 == x0 or y1 == y0:
        return front[-1]

    def above_chord(i: int) -> float:
        return (points[i][1] - y0) / (y1 - y0) - (points[i][0] - x0) / (x1 - x0)

    # Rounding makes points of a straight line differ by an ulp or so; those are no bend.
    bend = max(front, key=above_chord)
    return bend if above_chord(bend) > 1e-9 else front[-1]
