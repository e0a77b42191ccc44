"""Families of tiles: outputs are pruned first, and what is left of a layer is pruned tile by tile."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from autosparse.errors import PlanError
from autosparse.patterns.blocks import highest_per_group, norms
from autosparse.patterns.family import AbstractFamily, Criterion, Group, named
from autosparse.patterns.pattern import Contract, Pattern, WeightShape, kept_blocks
from autosparse.patterns.structure import Array, BoolArray, IntArray, group_count
from autosparse.patterns.tiles import (
    from_columns,
    highest_of_all,
    keep_inside,
    kept_inside,
    mean_sizes,
    tiles_of,
    to_columns,
    unit_columns,
    unit_sizes,
    unit_starts,
)

ORDER = "rsc"
SPLITS = ("even", "inputs")
TILES = (32, 64, 128)
RUNS = (1, 8, 16)


class TileWiseFamily(AbstractFamily):
    """Two steps: whole outputs, then, in every tile of outputs that are left, runs of inputs.

    The survivors of the first step keep their order and are cut into tiles of `Pattern.group_out`, the
    last short. A unit of the second is a run of `Pattern.unit_in` inputs at one kernel position, for
    all outputs of a tile. With `Pattern.nm` a third step keeps N of M consecutive columns of what a
    tile kept, output by output. Both steps prune one share, ``1 - sqrt(density)`` of tiles, or by the
    split ``inputs`` the second prunes all.

    Uniform patterns keep equally many units in every tile. Others rank the units of all tiles, and
    every tile keeps its best one.
    """

    counted: ClassVar[str] = "units"

    @abstractmethod
    def of(self, pattern: Pattern) -> Pattern:
        """Gives the pattern of this family with the granularities of another."""

    def flaw(self, pattern: Pattern) -> str:
        """Refuses other orders and splits, and what this family does not have inside."""
        if pattern.split not in SPLITS:
            return f"a split must be one of {', '.join(SPLITS)}, but got {pattern.split}"
        if pattern != self.of(pattern):
            return "tiles follow the order of surviving outputs, and N:M inside is of tvw alone"
        return ""

    def suffix(self, pattern: Pattern) -> str:
        """Writes what a label says after the sizes."""
        own = ("" if pattern.uniform else "-ranked") + ("" if pattern.split == "even" else "-inputs")
        return own if not self.flaw(pattern) else f"{own}?{pattern.to_json()}"

    def grid(self, shape: WeightShape) -> tuple[Pattern, ...]:
        """Gives tiles and runs that kernels of GPUs are made for and the weight allows."""
        sizes = ((outputs, inputs) for inputs in RUNS for outputs in TILES)
        able = [
            self.of(Pattern(family=self.name, group_out=outputs, unit_in=inputs))
            for outputs, inputs in sizes
            if outputs <= shape[0] and inputs <= shape[1]
        ]
        return tuple(sorted(able, key=self.rank))

    def why_not(self, pattern: Pattern, shape: WeightShape) -> str:
        """Refuses tiles and runs that are larger than the weight."""
        if pattern.group_out > shape[0]:
            return f"a tile of {pattern.group_out} outputs is larger than the layer's {shape[0]}"
        if pattern.unit_in > shape[1]:
            return f"a run of {pattern.unit_in} inputs is larger than the layer's {shape[1]}"
        return ""

    def why_not_criterion(self, pattern: Pattern, criterion: Criterion) -> str:
        """Refuses ``bpar``."""
        if criterion != "bpar":
            return ""
        return (
            f"{pattern.name} takes the criteria l1 and l2, but got bpar, which compares units of a "
            "group, and tiles are known only once outputs are pruned; take l1"
        )

    def rank(self, pattern: Pattern) -> float:
        """Gives log2 of outputs times inputs of a unit."""
        return math.log2(pattern.group_out * pattern.unit_in)

    def kind(self, pattern: Pattern) -> tuple[str, ...]:
        """Tells splits apart too."""
        return (*super().kind(pattern), pattern.split)

    def embeds(
        self, finer: tuple[Pattern, int], coarser: tuple[Pattern, int], shape: WeightShape
    ) -> bool:
        """Whether tiles and runs divide, the same number of outputs is left, and as many inputs are."""
        (small, kept), (large, needed) = finer, coarser
        if not all(isinstance(named(p.family), TileWiseFamily) and p.uniform for p in (small, large)):
            return False
        if small.nm is not None or large.group_out % small.group_out or large.unit_in % small.unit_in:
            return False
        (outputs, units), (left, runs) = _amounts(small, shape, kept), _amounts(large, shape, needed)
        if outputs != left or runs > _full(large, shape):
            return False
        return units >= min(runs * (large.unit_in // small.unit_in), _full(small, shape))

    # ------------------------------------------------------------------------------------- amounts

    def why_not_sparsity(self, pattern: Pattern, sparsity: float) -> str:
        """Refuses less than N:M alone prunes."""
        least = _least_sparsity(pattern)
        if sparsity >= least - 1e-9:
            return ""
        return f"{pattern.name} prunes at least {least:g}, its N:M alone, but got {sparsity:g}"

    def kept(self, pattern: Pattern, shape: WeightShape, sparsity: float) -> int:
        """Numbers what is left, outputs first: outputs times a stride, and units of a tile or of all.

        Less than N:M alone prunes is one more than all units: nothing is pruned.
        """
        outputs, units = _share_out(pattern, shape, sparsity)
        dense = bool(self.why_not_sparsity(pattern, sparsity))
        return outputs * _stride(pattern, shape) + units + dense

    def kept_weights(self, pattern: Pattern, shape: WeightShape, kept: int) -> int:
        """Counts the weights of the smallest units.

        Of ranked units with N:M inside it is a bound: tails of tiles may keep a few weights more.
        """
        return self._weights(pattern, shape, kept, most=False)

    def achieved(self, pattern: Pattern, shape: WeightShape, sparsity: float) -> float:
        """Gives the fraction of weights that a mask of that sparsity prunes at least, rounding done."""
        most = self._weights(pattern, shape, self.kept(pattern, shape, sparsity), most=True)
        return 1.0 - most / int(np.prod(shape))

    def _weights(self, pattern: Pattern, shape: WeightShape, kept: int, *, most: bool) -> int:
        outputs, units = _amounts(pattern, shape, kept)
        if units > _full(pattern, shape):
            return int(np.prod(shape))
        sizes = np.sort(unit_sizes(shape, pattern.unit_in).astype(np.int64))
        sizes = sizes[::-1] if most else sizes
        if pattern.uniform:
            return outputs * kept_inside(int(sizes[:units].sum()), pattern.nm)
        rows = np.array(
            [len(tile) for tile in tiles_of(np.arange(outputs, dtype=np.int32), pattern.group_out)]
        )
        total = _of_tiles(rows, sizes, units, most=most)
        if pattern.nm is None:
            return total
        n, m = pattern.nm  # a row of K columns keeps at least n / m of them, at most that many more
        return (n * total + outputs * n * (m - n)) // m if most else -(-n * total // m)

    # --------------------------------------------------------------------------------------- masks

    def mask(
        self,
        weight: Array,
        pattern: Pattern,
        sparsity: float,
        *,
        criterion: Criterion = "l1",
        scores: Array | None = None,
        alpha: float = 1.0,
    ) -> BoolArray:
        """Keeps the strongest outputs, then the strongest units, then the strongest weights inside.

        Raises:
            PlanError: scores of units, which nobody knows beforehand, or ``bpar``.
        """
        if scores is not None:
            raise PlanError(
                f"{pattern.name} takes no scores of units, as they follow from the weights, but got "
                f"shape {scores.shape}; hand the importance of every weight in place of the weight"
            )
        if why := self.why_not_criterion(pattern, criterion):
            raise PlanError(why)
        outputs, units = _share_out(pattern, weight.shape, sparsity)
        size = to_columns(np.abs(weight))
        strength = norms(size[None], criterion) / size.shape[1]
        left = np.flatnonzero(highest_per_group(strength, outputs)).astype(np.int32)
        tiles = tiles_of(left, pattern.group_out)
        starts = unit_starts(weight.shape, pattern.unit_in)
        lengths = unit_sizes(weight.shape, pattern.unit_in)
        found = [mean_sizes(size[tile], lengths * len(tile), starts, criterion) for tile in tiles]
        return _spread(tiles, _choose(found, pattern, units), size, pattern, weight.shape)

    def random(
        self, pattern: Pattern, shape: WeightShape, sparsity: float, generator: np.random.Generator
    ) -> BoolArray:
        """Keeps outputs, units and weights inside at random.

        Where units are ranked, a tile that would be left empty gets one in place of another's.
        """
        outputs, units = _share_out(pattern, shape, sparsity)
        left = np.sort(generator.permutation(shape[0])[:outputs]).astype(np.int32)
        tiles = tiles_of(left, pattern.group_out)
        found = [generator.random(len(unit_starts(shape, pattern.unit_in))) for _ in tiles]
        width = int(np.prod(shape[1:]))
        size = generator.random((shape[0], width if pattern.nm else 0))
        return _spread(tiles, _choose(found, pattern, units), size, pattern, shape)

    def violation(self, mask: BoolArray, pattern: Pattern) -> str | None:
        """Names the first tile with half a unit, without N:M inside or, if uniform, another count."""
        columns = to_columns(mask)
        counts: list[int | None] = []
        for index, tile in enumerate(tiles_of(left_of(columns, pattern), pattern.group_out)):
            why, count = self.of_tile(columns[tile], pattern, mask.shape)
            counts.append(count)
            if not why and pattern.uniform and count != counts[0]:
                why = f"keeps {count} {self.counted}, but tile 0 keeps {counts[0]}"
            if why:
                return f"tile {index} of {pattern.name} {why}"
        return None

    def of_tile(self, tile: BoolArray, pattern: Pattern, shape: WeightShape) -> tuple[str, int | None]:
        """Says what is wrong with the mask of one tile, and counts what it keeps.

        Args:
            tile: bool ``[rows, columns]``.
            pattern: of this family.
            shape: of the whole weight.

        Returns:
            Why it breaks a rule, empty if it does not, and a count that all tiles of a uniform pattern
            share; None where they may differ.
        """
        starts = unit_starts(shape, pattern.unit_in)
        live = np.logical_or.reduceat(tile.any(axis=0), starts)
        whole = np.logical_and.reduceat(tile.all(axis=0), starts)
        wrong = "" if np.array_equal(live, whole) else "has a unit that is only partly pruned"
        return wrong, int(np.count_nonzero(live))

    def groups(
        self, pattern: Pattern, shape: WeightShape, outputs: IntArray | None = None
    ) -> tuple[Group, ...]:
        """Gives the tiles of the outputs that are left; units are runs of inputs at one position."""
        left = np.arange(shape[0], dtype=np.int32) if outputs is None else outputs
        units = unit_columns(shape, pattern.unit_in)
        return tuple(Group(tile, units) for tile in tiles_of(left, pattern.group_out))

    def sparsity_of(self, weight: Array, pattern: Pattern) -> float:
        """Gives the fraction of zero weights: which unit they belonged to, a dead output may hide."""
        return 1.0 - np.count_nonzero(weight) / weight.size

    def contract(self, pattern: Pattern) -> Contract:
        """A kernel sees tiles of outputs, each with a list of the runs it keeps."""
        return Contract("tw", pattern.group_out, pattern.unit_in, pattern.nm)


def left_of(columns: BoolArray, pattern: Pattern) -> IntArray:
    """Gives the outputs that make up tiles."""
    live = columns.any(axis=1)
    if pattern.split == "inputs" and live.any():
        return np.arange(len(columns), dtype=np.int32)
    return np.flatnonzero(live).astype(np.int32)


def _least_sparsity(pattern: Pattern) -> float:
    return 0.0 if pattern.nm is None else 1 - pattern.nm[0] / pattern.nm[1]


def _tile_units(pattern: Pattern, shape: WeightShape) -> int:
    return group_count(shape[1], pattern.unit_in) * int(np.prod(shape[2:]))


def _full(pattern: Pattern, shape: WeightShape) -> int:
    """Counts the units that a layer with all its outputs has: of a tile if uniform, else of all."""
    tiles = 1 if pattern.uniform else group_count(shape[0], pattern.group_out)
    return tiles * _tile_units(pattern, shape)


def _stride(pattern: Pattern, shape: WeightShape) -> int:
    return _full(pattern, shape) + 2


def _amounts(pattern: Pattern, shape: WeightShape, kept: int) -> tuple[int, int]:
    """Reads outputs and units off a number that `TileWiseFamily.kept` gave."""
    return divmod(kept, _stride(pattern, shape))


def _share_out(pattern: Pattern, shape: WeightShape, sparsity: float) -> tuple[int, int]:
    """Gives how many outputs are left, and how many units of every tile or, if ranked, of all."""
    n, m = pattern.nm or (1, 1)
    density = min(1.0, (1 - sparsity) * m / n)
    both = pattern.split == "even"
    share = 1 - math.sqrt(density) if both else 1 - density
    outputs = kept_blocks(shape[0], share) if both else shape[0]
    tiles = group_count(outputs, pattern.group_out)
    units = _tile_units(pattern, shape) * (1 if pattern.uniform else tiles)
    kept = kept_blocks(units, share)
    return outputs, kept if pattern.uniform or not kept else max(kept, tiles)


def _of_tiles(rows: IntArray, sizes: Array, units: int, *, most: bool) -> int:
    """Counts the weights of that many units of tiles, each tile's first among them.

    Args:
        rows: outputs of every tile.
        sizes: columns of every unit of a tile, rising or, where the most is asked for, falling.
        units: of all tiles.
        most: whether to count the largest units, not the smallest.
    """
    weights = rows[:, None] * sizes
    rest = np.sort(weights[:, 1:], axis=None)
    rest = rest[::-1] if most else rest
    return int(weights[:, :1].sum() + rest[: max(0, units - len(rows))].sum()) if units else 0


def _choose(scores: Sequence[Array], pattern: Pattern, kept: int) -> BoolArray:
    """Chooses units by their scores, one row per tile."""
    if not scores:
        return np.zeros((0, 0), dtype=bool)
    rows = np.stack(scores)
    return highest_of_all(rows, kept) if kept and not pattern.uniform else highest_per_group(rows, kept)


def _spread(
    tiles: Sequence[IntArray], units: BoolArray, size: Array, pattern: Pattern, shape: WeightShape
) -> BoolArray:
    """Makes the mask of a weight from the units that its tiles keep, ``[tiles, units]``."""
    mask = np.zeros((shape[0], int(np.prod(shape[1:]))), dtype=bool)
    sizes = unit_sizes(shape, pattern.unit_in)
    for tile, kept in zip(tiles, units, strict=True):
        columns = np.flatnonzero(np.repeat(kept, sizes))
        here = np.ix_(tile, columns)
        mask[here] = True if pattern.nm is None else keep_inside(size[here], pattern.nm)
    return from_columns(mask, shape)
