"""Whole outputs live or die, and leave a smaller dense layer."""

from __future__ import annotations

import numpy as np

from autosparse.patterns.blocks import bpar_scores, norms
from autosparse.patterns.family import Criterion, Found, Group, UnitFamily, Worked, register
from autosparse.patterns.pattern import Contract, Pattern, WeightShape
from autosparse.patterns.structure import STRAY_ZEROS, Array, BoolArray, IntArray, live_kernels

FILTER = Pattern(family="filter", group_out=1, uniform=False)

# Inputs of a layer of middle size, as log2: what a unit holds depends on the layer, a rank does not.
_INPUTS = 10.0


@register
class FilterFamily(UnitFamily):
    """One row of units, the outputs of the layer: the coarsest pattern.

    A kernel sees one list of inputs per output, full or empty.

    Source: Li, Kadav, Durdanovic, Samet, Graf, "Pruning Filters for Efficient ConvNets",
    arXiv 1608.08710, section 3: the filters of least L1 norm are pruned.
    Differs: masks alone; what reads a pruned output is left as it is. ``bpar``, which has no filters in
    its source, compares the angles of whole filters, all in one group.
    """

    example = "filter"

    def label(self, pattern: Pattern) -> str:
        """Writes ``filter``."""
        return "filter" if pattern == FILTER else f"filter?{pattern.to_json()}"

    def parse(self, label: str) -> Pattern | None:
        """Reads ``filter``."""
        return FILTER if label == "filter" else None

    def flaw(self, pattern: Pattern) -> str:
        """Refuses all but the one pattern there is."""
        return "" if pattern == FILTER else "there is one way to rank whole outputs"

    def worked(self) -> tuple[Worked, ...]:
        """Gives filters by size, 4, 7, 5 and 6, and by angle.

        By angle: norms are 28, 21, 21 of 70; the first two filters point alike and the third is
        orthogonal, so redundancies are 2, 2, 1 of 5 and scores 0, -0.1, 0.1.
        """
        sizes = np.array([[3.0, -1.0], [5.0, 2.0], [-2.0, 3.0], [1.0, 5.0]])
        angles = np.array([[16.0, 12.0], [-12.0, -9.0], [9.0, -12.0]])
        return (
            Worked(
                weight=sizes,
                pattern=FILTER,
                sparsity=0.5,
                mask=np.array([[0, 0], [1, 1], [0, 0], [1, 1]], dtype=bool),
                source="arXiv 1608.08710, section 3",
            ),
            Worked(
                weight=angles,
                pattern=FILTER,
                sparsity=2 / 3,
                criterion="bpar",
                mask=np.array([[0, 0], [0, 0], [1, 1]], dtype=bool),
                source="arXiv 2310.06218, BPAR, with filters for blocks",
            ),
        )

    def grid(self, shape: WeightShape) -> tuple[Pattern, ...]:
        """Gives the one pattern."""
        return (FILTER,)

    def rank(self, pattern: Pattern) -> float:
        """Gives log2 of the inputs of a layer of middle size."""
        return _INPUTS

    def units(self, pattern: Pattern, shape: WeightShape) -> tuple[int, int]:
        """Gives one row of all outputs."""
        return 1, shape[0]

    def kept_weights(self, pattern: Pattern, shape: WeightShape, kept: int) -> int:
        """Counts the weights of kept outputs."""
        return kept * int(np.prod(shape[1:]))

    def scores(
        self, weight: Array, pattern: Pattern, criterion: Criterion, *, alpha: float = 1.0
    ) -> Array:
        """Gives the norm of every filter, or compares their angles over the layer."""
        filters = weight.reshape(1, len(weight), -1)
        if criterion == "bpar":
            return bpar_scores(filters, alpha=alpha)
        return norms(filters, criterion)

    def expand(self, units: BoolArray, shape: WeightShape, pattern: Pattern) -> BoolArray:
        """Spreads kept outputs over all that they read."""
        column = units.reshape(-1, *(1 for _ in shape[1:]))
        return np.array(np.broadcast_to(column, shape))

    def reduce(self, mask: BoolArray, pattern: Pattern) -> BoolArray:
        """Gives which outputs keep anything."""
        return np.asarray(mask.reshape(1, len(mask), -1).any(axis=2))

    def violation(self, mask: BoolArray, pattern: Pattern) -> str | None:
        """Names the first output that is half pruned."""
        rows = mask.reshape(len(mask), -1)
        mixed = np.flatnonzero(rows.any(axis=1) != rows.all(axis=1))
        return f"output {mixed[0]} of filter is only partly pruned" if mixed.size else None

    def groups(
        self, pattern: Pattern, shape: WeightShape, outputs: IntArray | None = None
    ) -> tuple[Group, ...]:
        """Gives every output, or every one that is left, by itself; its one unit is all it reads."""
        columns = np.arange(int(np.prod(shape[1:])), dtype=np.int32)[None]
        rows = np.arange(shape[0], dtype=np.int32) if outputs is None else outputs
        return tuple(Group(row, columns) for row in rows[:, None])

    def find(self, weight: Array) -> tuple[Found, ...]:
        """Finds dead outputs, if all others read everything.

        Where nearly all of them come in pairs, blocks of more outputs say the same in shorter lists:
        1x1 is not found there either.
        """
        live = live_kernels(weight)
        rows = live.any(axis=1)
        kept = int(np.count_nonzero(rows))
        pairs = 2 * int(np.count_nonzero(np.logical_or.reduceat(rows, np.arange(0, rows.size, 2))))
        if kept >= (1 - STRAY_ZEROS) * pairs or not live[rows].all():
            return ()
        return (Found(FILTER, 1.0 - kept / rows.size),)

    def contract(self, pattern: Pattern) -> Contract:
        """A kernel sees one list per output, full or empty."""
        return Contract("onexn", 1)
