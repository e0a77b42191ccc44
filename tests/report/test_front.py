from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosparse.report.front import feasible_front, knee, non_dominated

COARSE = st.integers(0, 6).map(float)  # few values, so that ties and duplicates are common
POINTS = st.lists(st.tuples(COARSE, COARSE), max_size=14)


def beats(a: tuple[float, float], b: tuple[float, float]) -> bool:
    return a[0] <= b[0] and a[1] >= b[1] and a != b


@given(POINTS)
def test_the_front_is_exactly_what_nothing_beats(points: list[tuple[float, float]]) -> None:
    front = non_dominated(points)
    expected = {i for i, p in enumerate(points) if not any(beats(q, p) for q in points)}
    assert set(front) == expected
    assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)


@given(POINTS, COARSE)
def test_a_budget_keeps_the_front_of_what_meets_it(
    points: list[tuple[float, float]], budget: float
) -> None:
    inside = [p for p in points if p[0] <= budget]
    front = [points[i] for i in feasible_front(points, budget)]
    pool = inside or points
    assert sorted(front) == sorted(p for p in pool if not any(beats(q, p) for q in pool))


def test_without_a_budget_all_points_count() -> None:
    assert feasible_front([(3.0, 0.9), (1.0, 0.5), (2.0, 0.4)], None) == [1, 0]


def test_the_knee_of_a_bent_front_is_its_bend() -> None:
    points = [(10.0, 0.97), (1.0, 0.60), (2.0, 0.93), (2.5, 0.70), (6.0, 0.95)]
    assert knee(points) == 2


@given(st.floats(0.1, 1e3), st.floats(0.01, 1.0))
def test_the_knee_does_not_depend_on_units(latency_unit: float, accuracy_unit: float) -> None:
    points = [(1.0, 0.1), (2.0, 0.8), (4.0, 0.9), (9.0, 1.0)]
    assert knee([(x * latency_unit, y * accuracy_unit) for x, y in points]) == 1


def test_the_knee_of_a_line_or_a_point_is_the_most_accurate() -> None:
    line = [(float(x), 0.1 * x) for x in np.linspace(1, 2, 7)]
    assert knee(line) == 6
    assert knee([(3.0, 0.5)]) == 0
    assert knee([(3.0, 0.5), (3.0, 0.7)]) == 1
    with pytest.raises(ValueError, match="at least one"):
        knee([])
