"""Nothing pruned: the trivial family, and the shortest example of one."""

from __future__ import annotations

import numpy as np

from autosparse.errors import PlanError
from autosparse.patterns.family import AbstractFamily, Criterion, register
from autosparse.patterns.structure import Array, BoolArray
from autosparse.records import Pattern


@register
class DenseFamily(AbstractFamily):
    """Keeps every weight."""

    def accepts(self, pattern: Pattern) -> bool:
        """Whether the pattern prunes nothing."""
        return pattern.is_dense

    def scores(self, weight: Array, pattern: Pattern, criterion: Criterion) -> Array:
        """Gives every input of the layer's one group the same importance, ``[1, Cin]``."""
        return np.ones((1, weight.shape[1]))

    def expand(self, units: BoolArray, shape: tuple[int, ...], pattern: Pattern) -> BoolArray:
        """Spreads the kept inputs, all of them, over the weight."""
        return np.ones(shape, dtype=bool)

    def choose(self, scores: Array, pattern: Pattern, sparsity: float) -> BoolArray:
        """Keeps all.

        Raises:
            PlanError: a sparsity other than 0.
        """
        if sparsity != 0:
            raise PlanError(f"a dense layer has sparsity 0, but got {sparsity:g}")
        return np.ones(scores.shape, dtype=bool)

    def violation(self, mask: BoolArray, pattern: Pattern) -> str | None:
        """Names the first output that lost a weight."""
        lost = np.flatnonzero(~mask.reshape(mask.shape[0], -1).all(axis=1))
        return f"output {lost[0]} of a dense layer has a pruned weight" if lost.size else None
