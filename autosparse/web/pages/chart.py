"""Figures of latency against accuracy, laid out for SVG on the server: no script draws anything."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from autosparse.report import words

WIDTH, HEIGHT = 720, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 78, 20, 26, 58
_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_TICKS = 6

Kind = Literal["trial", "front", "older", "newer", "dense"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A point of a figure.

    Attributes:
        latency_ms: along.
        accuracy: upwards, a fraction.
        kind: how it is drawn.
        title: what it is, for whoever points at it.
        interval_ms: 95 % interval of the latency; None draws none.
    """

    latency_ms: float
    accuracy: float
    kind: Kind
    title: str
    interval_ms: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A mark in the figure's own units, its y downwards."""

    x: float
    y: float
    kind: Kind
    title: str
    bar: tuple[float, float] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A line of the grid and its label."""

    at: float
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A figure, ready to be written as SVG.

    Attributes:
        title: what it shows, in a few words.
        description: what it shows, in a sentence.
        x_label: name and unit of the latencies.
        y_label: name and unit of the accuracies.
        marks: points, the first at the bottom.
        steps: kind and path of each line that runs along a front.
        x_ticks: of the latencies.
        y_ticks: of the accuracies.
        budget: where the budget's line is, and its label; None without or outside.
    """

    title: str
    description: str
    x_label: str
    y_label: str
    marks: tuple[Drawn, ...]
    steps: tuple[tuple[Kind, str], ...]
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    budget: Tick | None
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    top: int = _TOP
    bottom: int = HEIGHT - _BOTTOM


@dataclass(frozen=True, slots=True)
class _Axis:
    """Values onto a length, from `low` at `start` to `high` at `end`."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        part = (value - self.low) / (self.high - self.low)
        return round(self.start + part * (self.end - self.start), 1)

    def ticks(self) -> list[float]:
        step = _step(self.high - self.low)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def draw(
    marks: Sequence[Mark],
    *,
    title: str,
    description: str,
    accuracy_of: str,
    fronts: Iterable[tuple[Kind, Sequence[Mark]]] = (),
    budget_ms: float | None = None,
) -> Chart | None:
    """Lays out a figure; None where there is nothing to draw.

    Args:
        marks: the points, the first at the bottom.
        title: what it shows, in a few words.
        description: what it shows, in a sentence.
        accuracy_of: what the accuracies are of, for the axis.
        fronts: points that a line joins, fastest first, each kind once.
        budget_ms: latency budget; None without.
    """
    drawable = [mark for mark in marks if _is_finite(mark)]
    if not drawable:
        return None
    x = _axis([edge for mark in drawable for edge in _edges(mark)], _LEFT, WIDTH - _RIGHT, least=0.0)
    y = _axis([100 * mark.accuracy for mark in drawable], HEIGHT - _BOTTOM, _TOP, least=0.0, most=100.0)
    return Chart(
        title=title,
        description=description,
        x_label="Latency (ms)",
        y_label=f"Top-1, {accuracy_of} (%)",
        marks=tuple(_drawn(mark, x, y) for mark in drawable),
        steps=tuple((kind, _steps(points, x, y)) for kind, points in fronts if points),
        x_ticks=_labelled(x),
        y_ticks=_labelled(y),
        budget=_budget(budget_ms, x),
    )


def _is_finite(mark: Mark) -> bool:
    return math.isfinite(mark.latency_ms) and math.isfinite(mark.accuracy)


def _edges(mark: Mark) -> tuple[float, ...]:
    return (mark.latency_ms, *(mark.interval_ms or ()))


def _axis(
    values: Sequence[float], start: float, end: float, *, least: float, most: float = math.inf
) -> _Axis:
    """Gives an axis that shows all values with some air, and no more than they can be."""
    low, high = min(values), max(values)
    air = 0.06 * (high - low) or 0.1 * abs(high) or 1.0
    low, high = max(least, low - air), min(most, high + air)
    return _Axis(low, max(high, low + 1e-9), start, end)


def _step(extent: float) -> float:
    """Gives the distance of round numbers of which some six fit into an extent."""
    rough = extent / _TICKS
    magnitude = 10.0 ** math.floor(math.log10(rough))
    return next(factor * magnitude for factor in _STEPS if factor * magnitude >= rough * (1 - 1e-9))


def _labelled(axis: _Axis) -> tuple[Tick, ...]:
    values = axis.ticks()
    step = values[1] - values[0] if len(values) > 1 else 1.0
    places = max(0, -math.floor(math.log10(step) + 1e-9))
    places += f"{step:.{places + 1}f}"[-1] == "5"  # steps of 2.5
    return tuple(Tick(at=axis.at(value), label=f"{value:.{places}f}") for value in values)


def _budget(budget_ms: float | None, x: _Axis) -> Tick | None:
    if budget_ms is None or not x.low <= budget_ms <= x.high:
        return None
    return Tick(at=x.at(budget_ms), label=f"budget {words.budget(budget_ms)}")


def _drawn(mark: Mark, x: _Axis, y: _Axis) -> Drawn:
    interval = mark.interval_ms
    return Drawn(
        x=x.at(mark.latency_ms),
        y=y.at(100 * mark.accuracy),
        kind=mark.kind,
        title=mark.title,
        bar=None if interval is None else (x.at(interval[0]), x.at(interval[1])),
    )


def _steps(points: Sequence[Mark], x: _Axis, y: _Axis) -> str:
    """Gives the path along a front: so fast one is, the accuracy is that of the last one before."""
    path = f"M{x.at(points[0].latency_ms)} {y.at(100 * points[0].accuracy)}"
    for point in points[1:]:
        path += f"H{x.at(point.latency_ms)}V{y.at(100 * point.accuracy)}"
    return path
