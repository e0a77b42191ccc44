"""The break-even map of a run's model, from the rows that the run has; nothing is measured for it."""

from __future__ import annotations

from dataclasses import dataclass

from autosparse.patterns import parse_label
from autosparse.plans.break_even import BreakEven, Timed, Verdict, break_even, in_order, is_known
from autosparse.report import words
from autosparse.report.source import Option, Source


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One pattern on one shape, ready to show.

    Attributes:
        text: the least sparsity that wins, or what is known instead.
        heat: 0 for none, else 1 to 10, the sooner it wins the higher.
        title: what was measured, sparsity by sparsity.
    """

    text: str
    heat: int
    title: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One layer shape in one type, with its layers and one cell per pattern."""

    shape: str
    key: str
    dtype: str
    layers: tuple[str, ...]
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Map:
    """The map: every pattern, and one line per shape that has a sparse row, in the order they run."""

    patterns: tuple[str, ...]
    lines: tuple[Line, ...]


def view(source: Source) -> Map | None:
    """Gives the map of a run; None if its latency table has no sparse rows."""
    options = [option for rows in source.options.values() for option in rows]
    found = break_even(row for option in options if (row := _timed(option)) is not None)
    patterns = in_order({cell.pattern for cell in found})
    by_shape: dict[tuple[str, str], list[BreakEven]] = {}
    for cell in found:
        by_shape.setdefault((cell.shape, cell.dtype), []).append(cell)
    lines = tuple(
        Line(
            shape=words.shape(shape),
            key=shape,
            dtype=dtype,
            layers=tuple(dict.fromkeys(o.layer for o in options if o.shape == shape)),
            cells=tuple(_cell(cell) for cell in cells),
        )
        for (shape, dtype), cells in by_shape.items()
        if any(cell.points for cell in cells)
    )
    return Map(patterns=patterns, lines=lines) if lines else None


def _timed(option: Option) -> Timed | None:
    if not is_known(option.label.partition("@")[0]):
        return None
    pattern, sparsity = parse_label(option.label)
    low, high = option.ci_us
    return Timed(
        shape=option.shape,
        pattern=pattern.name,
        sparsity=sparsity,
        dtype=option.dtype,
        median_us=option.median_us,
        ci_low_us=low,
        ci_high_us=high,
    )


def _cell(cell: BreakEven) -> Cell:
    points = "; ".join(f"{words.percent(p.sparsity)}: {words.times(p.speedup)}" for p in cell.points)
    heat = 0 if cell.sparsity is None else min(10, max(1, round(10 * (1 - cell.sparsity))))
    return Cell(text=_text(cell), heat=heat, title=points)


def _text(cell: BreakEven) -> str:
    if cell.verdict is Verdict.UNMEASURED:
        return words.NONE
    if cell.sparsity is None:
        return "no gain"
    return f"{'' if cell.above is not None else words.AT_MOST}{words.percent(cell.sparsity)}"
