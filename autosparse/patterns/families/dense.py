"""Nothing pruned: the trivial family, and the shortest example of one."""

from __future__ import annotations

import numpy as np

from autosparse.errors import PlanError
from autosparse.patterns.family import Criterion, Found, Group, UnitFamily, Worked, register
from autosparse.patterns.pattern import DENSE, Contract, Pattern, WeightShape
from autosparse.patterns.structure import Array, BoolArray, IntArray


@register
class DenseFamily(UnitFamily):
    """Keeps every weight."""

    example = "dense"

    def label(self, pattern: Pattern) -> str:
        """Writes ``dense``."""
        return "dense"

    def parse(self, label: str) -> Pattern | None:
        """Reads ``dense``."""
        return DENSE if label == "dense" else None

    def worked(self) -> tuple[Worked, ...]:
        """Gives a weight that stays whole."""
        kept = np.ones((2, 2), dtype=bool)
        weight, source = np.eye(2), "nothing is pruned"
        return (Worked(weight=weight, pattern=DENSE, sparsity=0.0, mask=kept, source=source),)

    def grid(self, shape: WeightShape) -> tuple[Pattern, ...]:
        """Offers nothing: dense is there beside every offer."""
        return ()

    def rank(self, pattern: Pattern) -> float:
        """Finer than anything."""
        return float("-inf")

    def units(self, pattern: Pattern, shape: WeightShape) -> tuple[int, int]:
        """One group of all inputs."""
        return 1, shape[1]

    def kept(self, pattern: Pattern, shape: WeightShape, sparsity: float) -> int:
        """Gives -1: the count of a layer that has no units."""
        return -1

    def kept_weights(self, pattern: Pattern, shape: WeightShape, kept: int) -> int:
        """Counts all weights."""
        return int(np.prod(shape))

    def why_not_sparsity(self, pattern: Pattern, sparsity: float) -> str:
        """Refuses all but 0."""
        return f"a dense layer has sparsity 0, but got {sparsity:g}" if sparsity else ""

    def scores(
        self, weight: Array, pattern: Pattern, criterion: Criterion, *, alpha: float = 1.0
    ) -> Array:
        """Gives every input of the layer's one group the same importance, ``[1, Cin]``."""
        return np.ones((1, weight.shape[1]))

    def expand(self, units: BoolArray, shape: WeightShape, pattern: Pattern) -> BoolArray:
        """Spreads the kept inputs, all of them, over the weight."""
        return np.ones(shape, dtype=bool)

    def reduce(self, mask: BoolArray, pattern: Pattern) -> BoolArray:
        """Keeps every input."""
        return np.ones((1, mask.shape[1]), dtype=bool)

    def choose(self, scores: Array, pattern: Pattern, sparsity: float) -> BoolArray:
        """Keeps all.

        Raises:
            PlanError: a sparsity other than 0.
        """
        if why := self.why_not_sparsity(pattern, sparsity):
            raise PlanError(why)
        return np.ones(scores.shape, dtype=bool)

    def violation(self, mask: BoolArray, pattern: Pattern) -> str | None:
        """Names the first output that lost a weight."""
        lost = np.flatnonzero(~mask.reshape(mask.shape[0], -1).all(axis=1))
        return f"output {lost[0]} of a dense layer has a pruned weight" if lost.size else None

    def groups(
        self, pattern: Pattern, shape: WeightShape, outputs: IntArray | None = None
    ) -> tuple[Group, ...]:
        """Gives one group that reads all, in one unit."""
        columns = np.arange(int(np.prod(shape[1:])), dtype=np.int32)
        return (Group(np.arange(shape[0], dtype=np.int32), columns[None]),)

    def find(self, weight: Array) -> tuple[Found, ...]:
        """Finds nothing: zeros of no other family's are stored as they are."""
        return ()

    def contract(self, pattern: Pattern) -> Contract:
        """Every weight is read."""
        return Contract("dense")
