"""Square blocks: B consecutive outputs by B consecutive inputs by all taps live or die together."""

from __future__ import annotations

import re

import numpy as np

from autosparse.patterns.blocks import reduce_blocks
from autosparse.patterns.blockwise import BlockwiseFamily
from autosparse.patterns.family import Found, Worked, register
from autosparse.patterns.pattern import Pattern, WeightShape
from autosparse.patterns.structure import CANDIDATES, Array, live_kernels

_LABEL = re.compile(r"block([1-9]\d*)(-layerwide)?")
_SIZES = tuple(size for size in sorted(CANDIDATES) if size > 1)


@register
class BlockFamily(BlockwiseFamily):
    """Blocks of B outputs by B inputs, as many in every group of outputs or chosen over the layer.

    A kernel for 1xB runs them as they are: a group of B outputs whose kept inputs come in runs of B. So
    they cost what 1xB costs, and keep less accuracy at equal sparsity; what they may gain is a shorter
    list of indices on devices that read inputs in runs.

    Source: Gray, Radford, Kingma, "GPU Kernels for Block-Sparse Weights", 2017.
    Differs: blocks are chosen after training or while it goes on, never before; short blocks at the
    ends where B does not divide an extent.
    """

    example = "block16"

    def label(self, pattern: Pattern) -> str:
        """Writes ``block16`` or ``block16-layerwide``."""
        return f"block{pattern.group_out}" + ("" if pattern.uniform else "-layerwide")

    def parse(self, label: str) -> Pattern | None:
        """Reads ``block16`` and ``block16-layerwide``."""
        match = _LABEL.fullmatch(label)
        return square(int(match[1]), uniform=not match[2]) if match else None

    def flaw(self, pattern: Pattern) -> str:
        """Refuses blocks that are not square, other orders, and anything finer inside."""
        if pattern != square(pattern.group_out, uniform=pattern.uniform):
            return "blocks are as many outputs as inputs, in natural order, with nothing finer inside"
        return ""

    def worked(self) -> tuple[Worked, ...]:
        """Gives one block of two kept per group: sums of sizes are 10 and 4, then 6 and 8."""
        weight = np.array([[1, -2, 1, 1], [3, 4, -1, 1], [-1, 2, 2, 2], [2, 1, 2, -2]], dtype=float)
        kept = np.array([[1, 1, 0, 0]] * 2 + [[0, 0, 1, 1]] * 2, dtype=bool)
        source = "Gray, Radford, Kingma 2017, section 2: weights live or die in square blocks"
        return (Worked(weight=weight, pattern=square(2), sparsity=0.5, mask=kept, source=source),)

    def grid(self, shape: WeightShape) -> tuple[Pattern, ...]:
        """Gives every B that kernels are made for and the weight allows."""
        return tuple(square(size) for size in _SIZES if size <= min(shape[:2]))

    def find(self, weight: Array) -> tuple[Found, ...]:
        """Finds square blocks in the zeros, largest first: whole ones, and some of them dead."""
        live = live_kernels(weight)
        found = []
        for size in reversed(_SIZES):
            units = reduce_blocks(live, size, size)
            inputs = np.repeat(units, size, axis=1)[:, : live.shape[1]]
            if not units.all() and np.array_equal(inputs, reduce_blocks(live, size)):
                counts = units.sum(axis=1)
                pattern = square(size, uniform=bool((counts == counts[0]).all()))
                found.append(Found(pattern, 1.0 - float(units.mean())))
        return tuple(found)


def square(size: int, *, uniform: bool = True) -> Pattern:
    """Gives the pattern of blocks of `size` outputs by `size` inputs."""
    return Pattern(family="block", group_out=size, unit_in=size, uniform=uniform)
