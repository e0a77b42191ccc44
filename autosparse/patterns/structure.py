"""Which blocks of a layer are kept, as kernels read it: one list of input channels per output group.

Plain numpy: the kernels import this file, and they know nothing of torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from autosparse.errors import PlanError

Array = NDArray[Any]
IntArray = NDArray[np.int32]
BoolArray = NDArray[np.bool_]

CANDIDATES = (64, 32, 16, 8, 4, 2, 1)

# A trained layer may hold the odd kernel that is zero by accident: a dead filter, an underflow.
# Up to this fraction of such zeros inside kept blocks a structure still counts as fitting.
STRAY_ZEROS = 0.02


def group_count(out_channels: int, block_n: int) -> int:
    """Gives the number of output groups; the last one is short where `block_n` does not divide."""
    return -(-out_channels // block_n)


def group_rows(out_channels: int, block_n: int) -> IntArray:
    """Gives the number of outputs of every group, ``[G]``."""
    starts = np.arange(0, out_channels, block_n, dtype=np.int32)
    return np.minimum(out_channels - starts, block_n).astype(np.int32)


@dataclass(frozen=True, slots=True, eq=False)
class BlockStructure:
    """The kept blocks of one layer in the 1xN pattern.

    Group g holds the outputs ``[g * block_n, (g + 1) * block_n)``, fewer in the last group where
    `block_n` does not divide the outputs. A block is one group by one input channel by all taps.

    Attributes:
        block_n: outputs per group.
        group_start: int32 ``[G + 1]``; group g keeps ``kept[group_start[g]:group_start[g + 1]]``.
        kept: int32 ``[blocks]``, input channels, ascending within a group.

    Raises:
        PlanError: an offset or index breaks these rules.

    Source: "1xN Pattern for Pruning Convolutional Neural Networks", arXiv 2105.14713, section 3.2.
    Differs: one index per block whatever the kernel size, and a short last group instead of blocks
    that straddle input channels.
    """

    block_n: int
    group_start: IntArray
    kept: IntArray

    def __post_init__(self) -> None:
        for name in ("group_start", "kept"):
            array = np.array(getattr(self, name), dtype=np.int32, copy=True)
            array.flags.writeable = False
            object.__setattr__(self, name, array)
        self._check_offsets()
        self._check_order()

    def _check_offsets(self) -> None:
        if self.block_n < 1:
            raise PlanError(f"block_n must be at least 1, but got {self.block_n}")
        if self.group_start.ndim != 1 or self.kept.ndim != 1 or self.group_start.size < 2:
            raise PlanError(
                "group_start must be [groups + 1] and kept [blocks], "
                f"but got shapes {self.group_start.shape} and {self.kept.shape}"
            )
        if self.group_start[0] != 0 or self.group_start[-1] != self.kept.size:
            raise PlanError(
                f"group_start must run from 0 to the number of kept blocks {self.kept.size}, "
                f"but got {self.group_start[0]} to {self.group_start[-1]}"
            )
        if (falling := np.flatnonzero(np.diff(self.group_start) < 0)).size:
            raise PlanError(f"group_start must not fall, but it does after group {falling[0]}")

    def _check_order(self) -> None:
        if self.kept.size and self.kept.min() < 0:
            raise PlanError(f"kept input channels must be at least 0, but got {self.kept.min()}")
        first = np.zeros(self.kept.size + 1, dtype=bool)
        first[self.group_start[:-1]] = True
        wrong = np.flatnonzero((np.diff(self.kept) <= 0) & ~first[1 : self.kept.size])
        if wrong.size:
            group = int(np.searchsorted(self.group_start, wrong[0], side="right")) - 1
            raise PlanError(
                f"kept input channels must ascend within a group, but in group {group} "
                f"{self.kept[wrong[0]]} is followed by {self.kept[wrong[0] + 1]}"
            )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, BlockStructure):
            return NotImplemented
        return (
            self.block_n == other.block_n
            and np.array_equal(self.group_start, other.group_start)
            and np.array_equal(self.kept, other.kept)
        )

    def __hash__(self) -> int:
        return hash((self.block_n, self.group_start.tobytes(), self.kept.tobytes()))

    @property
    def groups(self) -> int:
        """Number of output groups."""
        return int(self.group_start.size) - 1

    @property
    def blocks(self) -> int:
        """Number of kept blocks of the layer."""
        return int(self.kept.size)

    @property
    def kept_per_group(self) -> IntArray:
        """Kept blocks of every group, int32 ``[G]``."""
        return np.diff(self.group_start).astype(np.int32)

    @property
    def is_uniform(self) -> bool:
        """Whether every group keeps equally many blocks."""
        counts = self.kept_per_group
        return bool((counts == counts[0]).all())

    def sparsity(self, in_channels: int) -> float:
        """Gives the fraction of blocks that are pruned, of `groups` * `in_channels`."""
        return 1.0 - self.blocks / (self.groups * in_channels)

    def stored_weights(self, out_channels: int, taps: int = 1) -> int:
        """Gives the number of weights inside kept blocks, zeros included."""
        rows = group_rows(out_channels, self.block_n).astype(np.int64)
        return int((self.kept_per_group * rows).sum()) * taps

    def check(self, out_channels: int, in_channels: int) -> None:
        """Refuses a structure that does not fit a layer.

        Raises:
            PlanError: another number of groups, or an input channel the layer does not have.
        """
        groups = group_count(out_channels, self.block_n)
        if self.groups != groups:
            raise PlanError(
                f"{out_channels} outputs at block_n {self.block_n} make {groups} groups, "
                f"but got {self.groups}"
            )
        if self.blocks and self.kept.max() >= in_channels:
            raise PlanError(
                f"kept input channels must be below {in_channels}, but got {self.kept.max()}"
            )

    def to_mask(self, in_channels: int) -> BoolArray:
        """Gives which blocks are kept, bool ``[G, Cin]``."""
        blocks = np.zeros((self.groups, in_channels), dtype=bool)
        blocks[np.repeat(np.arange(self.groups), self.kept_per_group), self.kept] = True
        return blocks

    @classmethod
    def from_mask(cls, blocks: BoolArray, block_n: int) -> Self:
        """Builds the structure that keeps exactly the true entries of ``[G, Cin]``."""
        if blocks.ndim != 2:
            raise PlanError(f"a mask of blocks must be [groups, inputs], but got {blocks.shape}")
        start = np.concatenate([[0], np.cumsum(np.count_nonzero(blocks, axis=1))])
        return cls(block_n, start.astype(np.int32), np.nonzero(blocks)[1].astype(np.int32))

    @classmethod
    def from_weight(cls, weight: Array, block_n: int) -> Self:
        """Builds the smallest structure of this `block_n` that covers every non-zero weight."""
        return cls.from_mask(_any_in_group(live_kernels(weight), block_n), block_n)


def live_kernels(weight: Array) -> BoolArray:
    """Gives which (output, input) pairs of an OIHW or OI weight have any non-zero, ``[Cout, Cin]``."""
    if weight.ndim < 2:
        raise PlanError(f"a weight must be [outputs, inputs, ...], but got shape {weight.shape}")
    if weight.ndim == 2:
        return np.asarray(weight != 0)
    # One kernel position after another: several times as fast as a reduction over short last axes.
    live = np.zeros(weight.shape[:2], dtype=bool)
    for tap in np.ndindex(*weight.shape[2:]):
        live |= weight[(slice(None), slice(None), *tap)] != 0
    return live


def _any_in_group(live: BoolArray, block_n: int) -> BoolArray:
    if block_n < 1:
        raise PlanError(f"block_n must be at least 1, but got {block_n}")
    return np.logical_or.reduceat(live, np.arange(0, live.shape[0], block_n), axis=0)


def find_structure(
    weight: Array, *, candidates: Sequence[int] = CANDIDATES
) -> tuple[BlockStructure, ...]:
    """Finds how a layer's own zeros can be stored as 1xN blocks, whoever pruned it.

    For every candidate N the smallest structure that covers all non-zeros is built, so each of them
    is exact; they differ in how many zeros they store. Let the *overhead* of N be the stored weights
    over the weights of non-zero kernels, minus 1. N *fits* if its overhead is at most `STRAY_ZEROS`
    and no smaller candidate M >= 2 that divides N would store less, that is, if its zeros are stray
    kernels and never whole blocks. Fitting N come first, fewest blocks first, hence the largest N;
    of two N that hold all outputs in one group the smaller. Then the others by rising overhead.

    Args:
        weight: OIHW or OI.
        candidates: block heights to try.

    Returns:
        One structure per candidate, best first. A layer without zeros gives full structures.
    """
    live = live_kernels(weight)
    found = [BlockStructure.from_mask(_any_in_group(live, n), n) for n in sorted(set(candidates))]
    stored = {s.block_n: s.stored_weights(weight.shape[0]) for s in found}
    needed = max(int(np.count_nonzero(live)), 1)

    def rank(structure: BlockStructure) -> tuple[float, int, int, int]:
        n = structure.block_n
        overhead = stored[n] / needed - 1
        whole = any(stored[m] < stored[n] for m in stored if 2 <= m < n and n % m == 0)
        fits = overhead <= STRAY_ZEROS and not whole
        return (0.0 if fits else max(overhead, 1e-12), structure.blocks, structure.groups, n)

    return tuple(sorted(found, key=rank))
