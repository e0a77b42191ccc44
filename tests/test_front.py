"""Fronts, knee, hypervolume and promotion."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosparse.errors import UsageError
from autosparse.plans.front import (
    Reference,
    dominates,
    feasible_front,
    hypervolume,
    knee,
    least_infeasible,
    non_dominated,
    promote,
    ranks,
)

COARSE = st.integers(0, 6).map(float)  # few values, so that ties and duplicates are common
PAIRS = st.lists(st.tuples(COARSE, COARSE), max_size=14)


@dataclass(frozen=True)
class Point:
    latency_ms: float
    accuracy_value: float
    excess_ms: float = 0.0


def beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a[0] <= b[0] and a[1] >= b[1] and a != b


def pair(point: Point) -> tuple[float, float]:
    return point.latency_ms, point.accuracy_value


def cloud(seed: int, count: int, budget: float = 2.0) -> list[Point]:
    random = np.random.default_rng(seed)
    # A coarse lattice, so that equal latencies and accuracies occur.
    drawn = random.integers(1, 12, (count, 2)) / 10
    return [Point(float(a), float(b), float(a) - budget) for a, b in drawn]


@pytest.mark.parametrize("seed", range(10))
def test_hypervolume_equals_counting_cells(seed: int) -> None:
    points = cloud(seed, 15)
    reference = Reference(latency_ms=1.0, accuracy=0.2)
    cells = [
        (x, y)  # in tenths, from the corner of least latency and accuracy
        for x in range(10)
        for y in range(2, 12)
        if any(p.latency_ms * 10 < x + 0.5 and p.accuracy_value * 10 > y + 0.5 for p in points)
    ]
    assert hypervolume(points, reference) == pytest.approx(len(cells) * 0.01)


def test_hypervolume_by_hand_and_its_borders() -> None:
    reference = Reference(latency_ms=10, accuracy=0.1)
    assert hypervolume([], reference) == 0
    assert hypervolume([Point(11, 0.9), Point(5, 0.05)], reference) == 0
    assert hypervolume([Point(5, 0.6)], reference) == pytest.approx(5 * 0.5)
    two = [Point(5, 0.6), Point(8, 0.9), Point(9, 0.7)]
    assert hypervolume(two, reference) == pytest.approx(5 * 0.5 + 2 * 0.3)
    assert hypervolume([Point(5, 0.6, excess_ms=0.1)], reference) == 0


@pytest.mark.smoke
@pytest.mark.parametrize("seed", range(10))
def test_front_is_what_nothing_dominates(seed: int) -> None:
    points = cloud(seed, 20, budget=0.8)
    front = feasible_front(points)
    expected = {
        (p.latency_ms, p.accuracy_value)
        for p in points
        if p.excess_ms <= 0 and not any(dominates(q, p) for q in points)
    }
    assert {(p.latency_ms, p.accuracy_value) for p in front} == expected
    assert len(front) == len(expected)
    assert [p.latency_ms for p in front] == sorted(p.latency_ms for p in front)


@given(PAIRS)
def test_without_a_budget_the_front_is_exactly_what_nothing_beats(
    pairs: list[tuple[float, float]],
) -> None:
    points = [Point(*values) for values in pairs]
    front = non_dominated(points)
    expected = {id(p) for p in points if not any(beats(pair(q), pair(p)) for q in points)}
    assert {id(p) for p in front} == expected
    assert len(front) == len(expected)
    assert [p.latency_ms for p in front] == sorted(p.latency_ms for p in front)


@given(PAIRS, COARSE)
def test_a_budget_keeps_the_front_of_what_meets_it(
    pairs: list[tuple[float, float]], budget: float
) -> None:
    points = [Point(*values, values[0] - budget) for values in pairs]
    inside = [p for p in pairs if p[0] <= budget]
    best = sorted(p for p in inside if not any(beats(q, p) for q in inside))
    assert [pair(p) for p in feasible_front(points)] == sorted(set(best))
    if inside:
        assert sorted(map(pair, non_dominated(points))) == best


@given(st.lists(st.tuples(COARSE, COARSE, st.integers(-2, 2).map(float)), max_size=14))
def test_what_is_not_dominated_stays_whether_it_meets_the_budget_or_not(
    drawn: list[tuple[float, float, float]],
) -> None:
    points = [Point(*values) for values in drawn]
    front = non_dominated(points)
    assert {id(p) for p in front} == {id(p) for p in points if not any(dominates(q, p) for q in points)}


def test_without_a_budget_all_points_count() -> None:
    points = [Point(3.0, 0.9), Point(1.0, 0.5), Point(2.0, 0.4)]
    assert feasible_front(points) == (points[1], points[0])


def test_meeting_the_budget_comes_before_all_else() -> None:
    inside, outside, far = Point(1, 0.1), Point(2, 0.9, 0.5), Point(2.5, 0.95, 1.0)
    assert dominates(inside, outside) and dominates(outside, far)
    assert not dominates(outside, inside)
    assert [list(rank) for rank in ranks([far, outside, inside])] == [[inside], [outside], [far]]
    assert least_infeasible([far, outside], 1) == (outside,)


@pytest.mark.parametrize("seed", range(5))
def test_ranks_part_all_points(seed: int) -> None:
    points = cloud(seed, 20, budget=0.9)
    parted = ranks(points)
    assert sorted(id(p) for rank in parted for p in rank) == sorted(map(id, points))
    for earlier, later in itertools.pairwise(parted):
        assert all(any(dominates(q, p) for q in earlier) for p in later)


@pytest.mark.smoke
def test_the_knee_bulges_most() -> None:
    front = [Point(1, 0.5), Point(2, 0.85), Point(6, 0.89), Point(10, 0.9)]
    assert knee(front) is front[1]
    assert knee(front[:1]) is front[0]
    with pytest.raises(UsageError):
        knee([])


def test_the_knee_of_a_bent_front_is_its_bend() -> None:
    drawn = [(10.0, 0.97), (1.0, 0.60), (2.0, 0.93), (2.5, 0.70), (6.0, 0.95)]
    points = [Point(*values) for values in drawn]
    assert knee(points) is points[2]


@given(st.floats(0.1, 1e3), st.floats(0.01, 1.0))
def test_the_knee_does_not_depend_on_units(latency_unit: float, accuracy_unit: float) -> None:
    drawn = [(1.0, 0.1), (2.0, 0.8), (4.0, 0.9), (9.0, 1.0)]
    points = [Point(x * latency_unit, y * accuracy_unit) for x, y in drawn]
    assert knee(points) is points[1]


def test_the_knee_of_a_line_or_a_point_is_the_most_accurate() -> None:
    line = [Point(float(x), 0.1 * x) for x in np.linspace(1, 2, 7)]
    assert knee(line) is line[6]
    assert knee([Point(3.0, 0.5)]) == Point(3.0, 0.5)
    assert knee([Point(3.0, 0.5), Point(3.0, 0.7)]) == Point(3.0, 0.7)
    assert knee([Point(3.0, 0.5, 1.0), Point(3.0, 0.7, 1.0)]) == Point(3.0, 0.7, 1.0)
    with pytest.raises(UsageError, match="at least one"):
        knee([])


def test_promotion_takes_extremes_knee_and_a_spread() -> None:
    front = [Point(1, 0.5), Point(2, 0.85), Point(2.1, 0.851), Point(6, 0.88), Point(10, 0.9)]
    behind = Point(7, 0.4)
    points = [behind, *front]
    assert promote(points, 1) == (front[4],)
    assert promote(points, 3) == (front[4], front[0], front[1])
    assert promote(points, 4)[3] is front[3]
    assert set(promote(points, 5)) == set(front)
    assert promote(points, 6)[5] is behind
    assert len(promote(points, 50)) == 6
    with pytest.raises(UsageError):
        promote(points, 0)
