"""The 1xN pattern: N consecutive outputs by one input by all taps live or die together."""

from __future__ import annotations

import re

import numpy as np

from autosparse.patterns.blockwise import BlockwiseFamily
from autosparse.patterns.family import Criterion, Found, Worked, register
from autosparse.patterns.pattern import Pattern, WeightShape, onexn
from autosparse.patterns.structure import (
    CANDIDATES,
    STRAY_ZEROS,
    Array,
    BoolArray,
    find_structure,
    live_kernels,
)

_LABEL = re.compile(r"1x([1-9]\d*)(-layerwide)?")


@register
class OneByNFamily(BlockwiseFamily):
    """1xN blocks, uniform (SUBP) or chosen over the whole layer (1xN).

    Source: arXiv 2105.14713 section 3 (layer-wide), arXiv 2310.06218 section 3 (uniform). Their
    N is our `Pattern.group_out`.
    Differs: the last group is short where N does not divide the outputs; blocks never straddle.
    """

    example = "1x16"

    def label(self, pattern: Pattern) -> str:
        """Writes ``1x16`` or ``1x16-layerwide``."""
        name = f"{pattern.unit_in}x{pattern.group_out}"
        name += "" if pattern.uniform else "-layerwide"
        name += "" if pattern.order == "natural" else f"-{pattern.order}"
        name += "" if pattern.split == "even" else f"-{pattern.split}"
        return name + (f"+{pattern.nm[0]}:{pattern.nm[1]}" if pattern.nm else "")

    def parse(self, label: str) -> Pattern | None:
        """Reads ``1x16`` and ``1x16-layerwide``."""
        match = _LABEL.fullmatch(label)
        return onexn(int(match[1]), uniform=not match[2]) if match else None

    def flaw(self, pattern: Pattern) -> str:
        """Refuses wider blocks, other orders, and anything finer inside."""
        if pattern.unit_in != 1:
            return f"blocks are one input wide, not runs of {pattern.unit_in}"
        if pattern.order != "natural":
            return f"groups follow the natural order of outputs, not a {pattern.order} one"
        if pattern.split != "even":
            return f"there is one step, so nothing to split by {pattern.split}"
        return "" if pattern.nm is None else "there is no N:M structure inside blocks"

    def worked(self) -> tuple[Worked, ...]:
        """Gives blocks kept in equal number, chosen over the layer, and chosen by angles.

        L1 norms of the first weight's blocks: 6, 2, 4, 8 in group 0, then 18, 16, 14, 12. Group 0 of
        the other: norms 28, 21, 21 of 70; the first two blocks point alike and the third is orthogonal,
        so redundancies are 2, 2, 1 of 5 and scores 0, -0.1, 0.1. In group 1 all point alike.
        """
        sizes = np.array([[3.0, 1, -2, 4], [3, -1, 2, 4], [9, 8, 7, -6], [9, -8, 7, 6]])
        angles = np.array([[16.0, -12, 9], [12, -9, -12], [1, 5, 2], [1, 5, 2]])
        found: tuple[tuple[Array, Pattern, float, Criterion, tuple[list[int], ...], str], ...] = (
            (sizes, onexn(2), 0.5, "l1", ([1, 0, 0, 1], [1, 1, 0, 0]), "2310.06218 section 3"),
            (sizes, onexn(2, uniform=False), 0.5, "l1", ([0] * 4, [1] * 4), "2105.14713 section 3"),
            (angles, onexn(2), 2 / 3, "bpar", ([0, 0, 1], [0, 1, 0]), "2310.06218, BPAR"),
        )
        return tuple(
            Worked(
                weight=weight,
                pattern=pattern,
                sparsity=sparsity,
                criterion=criterion,
                mask=np.repeat(np.array(groups, dtype=bool), 2, axis=0),
                source=f"arXiv {source}",
            )
            for weight, pattern, sparsity, criterion, groups, source in found
        )

    def grid(self, shape: WeightShape) -> tuple[Pattern, ...]:
        """Gives every N that kernels are made for and the outputs allow."""
        return tuple(onexn(n) for n in sorted(CANDIDATES) if n <= shape[0])

    def find(self, weight: Array) -> tuple[Found, ...]:
        """Finds 1xN blocks in the zeros, best N first; see `find_structure`."""
        live = live_kernels(weight)
        heights = _useful_heights(live)
        found = find_structure(live, candidates=heights) if heights else ()
        return tuple(
            Found(onexn(s.block_n, uniform=s.is_uniform), s.sparsity(live.shape[1])) for s in found
        )


def _useful_heights(live: BoolArray) -> tuple[int, ...]:
    """Gives the block heights at which whole blocks are dead.

    Blocks of one and two outputs count only where they leave out clearly more weights than blocks twice
    their height: their kernels are slower, and their lists of a large linear layer would be huge.
    """
    heights, blocks, height = [], live, 1
    stored: dict[int, int] = {}
    while height <= max(CANDIDATES):
        stored[height] = int(np.count_nonzero(blocks)) * height
        if stored[height] < blocks.size * height:
            heights.append(height)
        blocks = np.logical_or.reduceat(blocks, np.arange(0, len(blocks), 2), axis=0)
        height *= 2
    return tuple(n for n in heights if n >= 4 or stored[n] < (1 - STRAY_ZEROS) * stored[2 * n])
