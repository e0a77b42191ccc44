"""The 1xN pattern: N consecutive outputs by one input by all taps live or die together."""

from __future__ import annotations

import numpy as np

from autosparse.patterns.blocks import (
    block_vectors,
    bpar_scores,
    expand_blocks,
    mixed_group,
    reduce_blocks,
)
from autosparse.patterns.family import AbstractFamily, Criterion, register
from autosparse.patterns.structure import Array, BoolArray
from autosparse.records import Pattern


@register
class OneByNFamily(AbstractFamily):
    """1xN blocks, uniform (SUBP) or chosen over the whole layer (1xN).

    Source: arXiv 2105.14713 section 3 (layer-wide), arXiv 2310.06218 section 3 (uniform). Their
    N is our `Pattern.group_out`.
    Differs: the last group is short where N does not divide the outputs; blocks never straddle.
    """

    def accepts(self, pattern: Pattern) -> bool:
        """Whether blocks are one input wide, in natural order, with nothing finer inside."""
        natural = pattern.order == "natural" and pattern.nm is None
        return natural and pattern.unit_in == 1 and pattern.group_out >= 1

    def scores(self, weight: Array, pattern: Pattern, criterion: Criterion) -> Array:
        """Gives the importance of every block, float64 ``[G, Cin]``.

        ``l1`` and ``l2`` are the block's norms, ``bpar`` is `bpar_scores`.
        """
        vectors = block_vectors(weight, pattern.group_out)
        if criterion == "bpar":
            return bpar_scores(vectors)
        if criterion == "l1":
            return np.asarray(np.abs(vectors).sum(axis=2, dtype=np.float64))
        return np.asarray(np.sqrt(np.square(vectors).sum(axis=2, dtype=np.float64)))

    def expand(self, units: BoolArray, shape: tuple[int, ...], pattern: Pattern) -> BoolArray:
        """Spreads kept blocks ``[G, Cin]`` over the outputs of each group and all taps."""
        return expand_blocks(units, shape, pattern.group_out)

    def violation(self, mask: BoolArray, pattern: Pattern) -> str | None:
        """Names the first group with a half-pruned block or, if uniform, with another count."""
        group = mixed_group(mask, pattern.group_out)
        if group is not None:
            return f"group {group} of {pattern.name} has a block that is only partly pruned"
        counts = reduce_blocks(mask, pattern.group_out).sum(axis=1)
        other = np.flatnonzero(counts != counts[0])
        if pattern.uniform and other.size:
            return (
                f"group {other[0]} of {pattern.name} keeps {counts[other[0]]} blocks, "
                f"but group 0 keeps {counts[0]}"
            )
        return None
