"""Figures that the server lays out: everything inside, round ticks, and odd values."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autosparse.web.pages.chart import Chart, Mark, draw

LATENCIES = st.floats(1e-6, 1e7)


def chart(points: list[tuple[float, float]], budget_ms: float | None = None) -> Chart | None:
    marks = [Mark(latency_ms=x, accuracy=y, kind="front", title="") for x, y in points]
    return draw(
        marks,
        fronts=[("front", sorted(marks, key=lambda mark: mark.latency_ms))],
        title="t",
        description="d",
        accuracy_of="test split",
        budget_ms=budget_ms,
    )


@given(st.lists(st.tuples(LATENCIES, st.floats(0, 1)), min_size=1, max_size=40), st.none() | LATENCIES)
def test_all_is_inside_and_ticks_are_even(
    points: list[tuple[float, float]], budget_ms: float | None
) -> None:
    made = chart(points, budget_ms)
    assert made is not None and len(made.marks) == len(points)
    for mark in made.marks:
        assert made.left <= mark.x <= made.right and made.top <= mark.y <= made.bottom
    for ticks, low, high in (
        (made.x_ticks, made.left, made.right),
        (made.y_ticks, made.top, made.bottom),
    ):
        assert all(low - 0.1 <= tick.at <= high + 0.1 for tick in ticks) and len(ticks) <= 8
        labels = [float(tick.label) for tick in ticks]
        assert labels == sorted(set(labels)), labels
        steps = [b.at - a.at for a, b in itertools.pairwise(ticks)]
        assert not steps or max(steps) - min(steps) <= 0.3
    if made.budget is not None:
        assert made.left <= made.budget.at <= made.right


def test_faster_is_left_and_better_is_up() -> None:
    made = chart([(2.0, 0.9), (4.0, 0.95)])
    assert made is not None
    slow, fast = made.marks[1], made.marks[0]
    assert fast.x < slow.x and fast.y > slow.y


def test_a_front_runs_in_steps() -> None:
    made = chart([(2.0, 0.9), (4.0, 0.95), (5.0, 0.97)])
    assert made is not None
    ((_, path),) = made.steps
    first, second, third = made.marks
    assert path == f"M{first.x} {first.y}H{second.x}V{second.y}H{third.x}V{third.y}"


@pytest.mark.parametrize("points", [[], [(math.nan, 0.5)], [(math.inf, 0.5)], [(1.0, math.nan)]])
def test_nothing_to_draw(points: list[tuple[float, float]]) -> None:
    assert chart(points) is None


def test_a_budget_out_of_sight_is_not_drawn() -> None:
    made = chart([(2.0, 0.9), (2.1, 0.95)], budget_ms=50.0)
    assert made is not None and made.budget is None
