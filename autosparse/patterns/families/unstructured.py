"""Single weights: each lives or dies by itself, ranked over the layer."""

from __future__ import annotations

import numpy as np

from autosparse.patterns.blocks import norms, single_bpar_scores
from autosparse.patterns.family import Criterion, Found, Group, UnitFamily, Worked, register
from autosparse.patterns.pattern import Contract, Pattern, WeightShape
from autosparse.patterns.structure import Array, BoolArray, IntArray

UNSTRUCTURED = Pattern(family="unstructured", group_out=1, uniform=False)


@register
class UnstructuredFamily(UnitFamily):
    """One row of units, the weights of the layer: the finest pattern, and the most accurate.

    Source: Han, Pool, Tran, Dally, "Learning both Weights and Connections for Efficient Neural
    Networks", arXiv 1506.02626, section 3: the weights of least magnitude are pruned.
    Differs: a sparsity says how many, there a threshold per layer.
    """

    example = "unstructured"

    def label(self, pattern: Pattern) -> str:
        """Writes ``unstructured``."""
        return "unstructured" if pattern == UNSTRUCTURED else f"unstructured?{pattern.to_json()}"

    def parse(self, label: str) -> Pattern | None:
        """Reads ``unstructured``."""
        return UNSTRUCTURED if label == "unstructured" else None

    def flaw(self, pattern: Pattern) -> str:
        """Refuses all but the one pattern there is."""
        return "" if pattern == UNSTRUCTURED else "there is one way to rank single weights"

    def worked(self) -> tuple[Worked, ...]:
        """Gives the three largest of six weights."""
        weight = np.array([[0.5, -3.0, 1.0], [2.0, -0.1, -1.5]])
        kept = np.array([[0, 1, 0], [1, 0, 1]], dtype=bool)
        source = "arXiv 1506.02626, section 3"
        return (Worked(weight=weight, pattern=UNSTRUCTURED, sparsity=0.5, mask=kept, source=source),)

    def grid(self, shape: WeightShape) -> tuple[Pattern, ...]:
        """Gives the one pattern."""
        return (UNSTRUCTURED,)

    def rank(self, pattern: Pattern) -> float:
        """Gives 0: one weight is a unit."""
        return 0.0

    def units(self, pattern: Pattern, shape: WeightShape) -> tuple[int, int]:
        """Gives one row of all weights."""
        return 1, int(np.prod(shape))

    def kept_weights(self, pattern: Pattern, shape: WeightShape, kept: int) -> int:
        """Counts the units: weights."""
        return kept

    def scores(
        self, weight: Array, pattern: Pattern, criterion: Criterion, *, alpha: float = 1.0
    ) -> Array:
        """Gives the size of every weight; ``bpar`` makes shares of it and ranks alike."""
        if criterion == "bpar":
            return single_bpar_scores(weight.reshape(1, -1), alpha)
        return norms(weight.reshape(1, -1, 1), "l1")

    def expand(self, units: BoolArray, shape: WeightShape, pattern: Pattern) -> BoolArray:
        """Gives the units the weight's shape."""
        return units.reshape(shape).copy()

    def reduce(self, mask: BoolArray, pattern: Pattern) -> BoolArray:
        """Gives the weights in a row."""
        return mask.reshape(1, -1)

    def violation(self, mask: BoolArray, pattern: Pattern) -> str | None:
        """Finds nothing: every mask is one of single weights."""
        return None

    def groups(
        self, pattern: Pattern, shape: WeightShape, outputs: IntArray | None = None
    ) -> tuple[Group, ...]:
        """Gives every output by itself; units are columns."""
        columns = np.arange(int(np.prod(shape[1:])), dtype=np.int32)[:, None]
        rows = np.arange(shape[0], dtype=np.int32)
        return tuple(Group(row, columns) for row in rows[:, None])

    def find(self, weight: Array) -> tuple[Found, ...]:
        """Finds whatever zeros there are."""
        zeros = 1.0 - np.count_nonzero(weight) / weight.size
        return (Found(UNSTRUCTURED, zeros),) if zeros else ()

    def contract(self, pattern: Pattern) -> Contract:
        """A kernel must read weights one by one."""
        return Contract("unstructured")
