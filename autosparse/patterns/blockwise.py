"""Families whose units are blocks: consecutive outputs by consecutive inputs by all taps."""

from __future__ import annotations

import numpy as np

from autosparse.patterns.blocks import (
    block_vectors,
    bpar_scores,
    expand_blocks,
    mixed_group,
    norms,
    reduce_blocks,
)
from autosparse.patterns.family import Criterion, Group, UnitFamily, named
from autosparse.patterns.pattern import Contract, Pattern, WeightShape
from autosparse.patterns.structure import Array, BoolArray, IntArray, group_count


class BlockwiseFamily(UnitFamily):
    """Blocks of `Pattern.group_out` outputs by `Pattern.unit_in` inputs by all taps.

    A uniform pattern keeps equally many blocks in every group of outputs. The last group and the last
    run of inputs are short where the granularities do not divide the weight.
    """

    def units(self, pattern: Pattern, shape: WeightShape) -> tuple[int, int]:
        """Gives groups of outputs and runs of inputs."""
        return group_count(shape[0], pattern.group_out), group_count(shape[1], pattern.unit_in)

    def rank(self, pattern: Pattern) -> float:
        """Gives log2 of outputs times inputs of a block."""
        return float(np.log2(pattern.group_out * pattern.unit_in))

    def why_not(self, pattern: Pattern, shape: WeightShape) -> str:
        """Refuses blocks that are larger than the weight."""
        for size, extent, what in (
            (pattern.group_out, shape[0], "outputs"),
            (pattern.unit_in, shape[1], "inputs"),
        ):
            if size > extent:
                return f"a block of {size} {what} is larger than the layer's {extent}"
        return ""

    def embeds(
        self, finer: tuple[Pattern, int], coarser: tuple[Pattern, int], shape: WeightShape
    ) -> bool:
        """Whether the finer blocks divide the coarser ones, and as many weights may be kept."""
        (small, kept), (large, needed) = finer, coarser
        if not all(isinstance(named(p.family), BlockwiseFamily) and p.uniform for p in (small, large)):
            return False
        if large.group_out % small.group_out or large.unit_in % small.unit_in:
            return False
        return kept * small.unit_in >= needed * large.unit_in

    def kept_weights(self, pattern: Pattern, shape: WeightShape, kept: int) -> int:
        """Counts the weights of kept blocks, the short ones among them."""
        outputs, inputs, taps = shape[0], shape[1], int(np.prod(shape[2:]))
        groups, units = self.units(pattern, shape)
        missing_out = groups * pattern.group_out - outputs
        missing_in = units * pattern.unit_in - inputs
        if pattern.uniform:
            return outputs * max(0, kept * pattern.unit_in - (missing_in if kept else 0)) * taps
        area = kept * pattern.group_out * pattern.unit_in
        short = min(kept, units) * missing_out * pattern.unit_in
        narrow = min(kept, groups) * missing_in * pattern.group_out
        return max(0, area - short - narrow) * taps

    def scores(
        self, weight: Array, pattern: Pattern, criterion: Criterion, *, alpha: float = 1.0
    ) -> Array:
        """Gives the importance of every block, float64 ``[G, U]``.

        ``l1`` and ``l2`` are the block's norms, ``bpar`` is `bpar_scores`.
        """
        vectors = block_vectors(weight, pattern.group_out, pattern.unit_in)
        if criterion == "bpar":
            return bpar_scores(vectors, layer_wide=not pattern.uniform, alpha=alpha)
        return norms(vectors, criterion)

    def expand(self, units: BoolArray, shape: WeightShape, pattern: Pattern) -> BoolArray:
        """Spreads kept blocks ``[G, U]`` over outputs, inputs and taps."""
        return expand_blocks(units, shape, pattern.group_out, pattern.unit_in)

    def reduce(self, mask: BoolArray, pattern: Pattern) -> BoolArray:
        """Gives which blocks keep anything."""
        return reduce_blocks(mask, pattern.group_out, pattern.unit_in)

    def violation(self, mask: BoolArray, pattern: Pattern) -> str | None:
        """Names the first group with a half-pruned block or, if uniform, with another count."""
        group = mixed_group(mask, pattern.group_out, pattern.unit_in)
        if group is not None:
            return f"group {group} of {pattern.name} has a block that is only partly pruned"
        counts = self.reduce(mask, pattern).sum(axis=1)
        other = np.flatnonzero(counts != counts[0])
        if pattern.uniform and other.size:
            return (
                f"group {other[0]} of {pattern.name} keeps {counts[other[0]]} blocks, "
                f"but group 0 keeps {counts[0]}"
            )
        return None

    def groups(
        self, pattern: Pattern, shape: WeightShape, outputs: IntArray | None = None
    ) -> tuple[Group, ...]:
        """Gives the groups of outputs; units are runs of inputs with all their taps."""
        taps = int(np.prod(shape[2:]))
        width = pattern.unit_in * taps
        count = group_count(shape[1], pattern.unit_in)
        units = np.arange(count * width, dtype=np.int32).reshape(count, width)
        units[units >= shape[1] * taps] = -1
        rows = np.arange(shape[0], dtype=np.int32)
        starts = range(pattern.group_out, shape[0], pattern.group_out)
        return tuple(Group(part, units) for part in np.split(rows, starts))

    def contract(self, pattern: Pattern) -> Contract:
        """A kernel sees groups of outputs, each with a list of the inputs it keeps."""
        return Contract("onexn", pattern.group_out)
