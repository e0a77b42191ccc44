"""From which sparsity on does a pattern beat the dense layer? Decided from measured rows alone.

A structure *wins* where its fastest kernel's 95 % interval lies wholly below the fastest dense
kernel's, and *loses* where it lies wholly above; where they overlap nothing is shown. The break-even of
a pattern is the least sparsity from which on every measured one wins: one that wins at 50 % and not at
75 % has a noisy row at one of them, and is not called faster at either.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from autosparse.errors import PlanError
from autosparse.patterns import parse_pattern
from autosparse.patterns.family import finest_first
from autosparse.records import DENSE, Measurement, Status
from autosparse.storage.serial import Record


class Outcome(StrEnum):
    """A sparse row against the dense one of its shape."""

    WINS = "wins"
    TIES = "ties"
    LOSES = "loses"


class Verdict(StrEnum):
    """What is known of one pattern on one shape."""

    WINS = "wins"  # from `BreakEven.sparsity` on
    NO_GAIN = "no gain shown"  # not even at the greatest measured sparsity
    UNMEASURED = "not measured"  # the dense layer, or this pattern, has no row


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed(Record):
    """One measured way to run a layer.

    Attributes:
        shape: `LayerShape.key`.
        pattern: `Pattern.name`.
        sparsity: fraction of units pruned.
        dtype: arithmetic type.
        median_us: median latency.
        ci_low_us: lower end of its 95 % interval.
        ci_high_us: upper end.
    """

    shape: str
    pattern: str
    sparsity: float
    dtype: str
    median_us: float
    ci_low_us: float
    ci_high_us: float

    @property
    def is_dense(self) -> bool:
        """Whether nothing is pruned."""
        return self.pattern == DENSE.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Point(Record):
    """One measured sparsity of one pattern: dense time over its time, and what that shows."""

    sparsity: float
    speedup: float
    outcome: Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakEven(Record):
    """What is known of one pattern on one shape.

    Attributes:
        shape: `LayerShape.key`.
        pattern: `Pattern.name`.
        dtype: arithmetic type.
        verdict: whether it wins somewhere.
        sparsity: the least sparsity from which on it wins; None if it wins nowhere.
        above: the next lower sparsity that was measured, at which it does not win; None if none was:
            then the break-even may lie lower still.
        points: all that was measured, sparsest last.
    """

    shape: str
    pattern: str
    dtype: str
    verdict: Verdict
    sparsity: float | None = None
    above: float | None = None
    points: tuple[Point, ...] = ()

    @property
    def label(self) -> str:
        """For tables: ``50 %``, ``<= 50 %`` where nothing below was measured, ``no gain``, ``-``."""
        if self.verdict is Verdict.UNMEASURED:
            return "-"
        if self.sparsity is None:
            return "no gain"
        return f"{'' if self.above is not None else '<= '}{100 * self.sparsity:.4g} %"


def break_even(rows: Iterable[Timed]) -> tuple[BreakEven, ...]:
    """Gives every sparse pattern of the rows on every shape and type of them, the finest first.

    Args:
        rows: of one host and thread count; of several rows of one structure the fastest counts.
    """
    fastest: dict[tuple[str, str], dict[tuple[str, float], Timed]] = {}
    for row in rows:
        known = fastest.setdefault((row.shape, row.dtype), {})
        place = (row.pattern, 0.0 if row.is_dense else row.sparsity)
        if place not in known or row.median_us < known[place].median_us:
            known[place] = row
    patterns = in_order({name for known in fastest.values() for name, _ in known})
    return tuple(
        _judge(shape, dtype, pattern, known)
        for (shape, dtype), known in fastest.items()
        for pattern in patterns
    )


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Gives the names of sparse patterns among names, the finest first."""
    patterns = [parse_pattern(name) for name in names if name != DENSE.name]
    return tuple(pattern.name for pattern in finest_first(patterns))


def _judge(shape: str, dtype: str, pattern: str, known: Mapping[tuple[str, float], Timed]) -> BreakEven:
    dense = known.get((DENSE.name, 0.0))
    sparse = [row for (name, _), row in sorted(known.items()) if name == pattern]
    if dense is None or not sparse:
        return BreakEven(shape=shape, pattern=pattern, dtype=dtype, verdict=Verdict.UNMEASURED)
    points = tuple(
        Point(
            sparsity=row.sparsity,
            speedup=dense.median_us / row.median_us,
            outcome=outcome(row, dense),
        )
        for row in sparse
    )
    above, least = bracket([(point.sparsity, point.outcome is Outcome.WINS) for point in points])
    return BreakEven(
        shape=shape,
        pattern=pattern,
        dtype=dtype,
        verdict=Verdict.NO_GAIN if least is None else Verdict.WINS,
        sparsity=least,
        above=above if least is not None else None,
        points=points,
    )


def outcome(sparse: Timed, dense: Timed) -> Outcome:
    """Says what a sparse row shows against the dense one."""
    if sparse.ci_high_us < dense.ci_low_us:
        return Outcome.WINS
    return Outcome.LOSES if sparse.ci_low_us > dense.ci_high_us else Outcome.TIES


def bracket(known: Sequence[tuple[float, bool]]) -> tuple[float | None, float | None]:
    """Gives the greatest sparsity that does not win, and the least above it, from which on all win.

    Args:
        known: sparsity and whether it wins.
    """
    lost = max((sparsity for sparsity, wins in known if not wins), default=None)
    won = [sparsity for sparsity, wins in known if wins and (lost is None or sparsity > lost)]
    return lost, min(won, default=None)


def next_sparsity(grid: Sequence[float], known: Sequence[tuple[float, bool]]) -> float | None:
    """Gives the sparsity to measure next: the middle of those that could still be the break-even.

    Args:
        grid: sparsities to choose from, ascending.
        known: sparsity and whether it wins, of what was measured; need not lie on the grid.

    Returns:
        None once no sparsity of the grid lies between one that does not win and the next that does.
    """
    lost, won = bracket(known)
    left = [
        sparsity
        for sparsity in grid
        if (lost is None or sparsity > lost) and (won is None or sparsity < won)
    ]
    return left[len(left) // 2] if left else None


def is_known(pattern: str) -> bool:
    """Whether some family knows a pattern's name; rows of others are passed over."""
    try:
        parse_pattern(pattern)
    except PlanError:
        return False
    return True


def timed(measurements: Iterable[Measurement]) -> list[Timed]:
    """Gives the good rows of a tuning database whose patterns are known here."""
    found = []
    for row in measurements:
        if row.status is Status.OK and row.median_us is not None and is_known(row.key.pattern):
            found.append(
                Timed(
                    shape=row.key.shape,
                    pattern=row.key.pattern,
                    sparsity=row.sparsity,
                    dtype=row.key.dtype,
                    median_us=row.median_us,
                    ci_low_us=row.median_us if row.ci_low_us is None else row.ci_low_us,
                    ci_high_us=row.median_us if row.ci_high_us is None else row.ci_high_us,
                )
            )
    return found
