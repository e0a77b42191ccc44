"""What families of patterns hand out: plain records, and the criteria that units are scored by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from autosparse.patterns.pattern import Pattern
from autosparse.patterns.structure import Array, BoolArray, IntArray

Criterion = Literal["l1", "l2", "bpar"]
CRITERIA: tuple[Criterion, ...] = ("l1", "l2", "bpar")


@dataclass(frozen=True, slots=True)
class Found:
    """A pattern that the zeros of a weight follow, and the fraction of its units that are pruned."""

    pattern: Pattern
    sparsity: float


@dataclass(frozen=True, slots=True)
class Group:
    """Outputs that share one list of what they read.

    A mask of a family keeps, group by group, some of the units of columns, whole, for all outputs of
    the group alike; with N:M inside, some weights of the kept ones. Columns are those of a weight
    flattened to ``[outputs, inputs * taps]``.

    Attributes:
        outputs: int32 ``[rows]``, ascending.
        units: int32 ``[units, width]``, the columns of every unit; short units are filled up with -1.
    """

    outputs: IntArray
    units: IntArray


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Worked:
    """A mask that was worked out by hand, by the rules of its source.

    Attributes:
        weight: OIHW or OI, small.
        pattern: of the family that tells of it.
        sparsity: fraction of units to prune.
        criterion: importance of a unit.
        mask: what must come out, bool of the weight's shape.
        source: paper and section or equation.
    """

    weight: Array
    pattern: Pattern
    sparsity: float
    criterion: Criterion = "l1"
    mask: BoolArray
    source: str
