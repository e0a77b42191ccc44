"""Which tiles of a layer are kept, as kernels of tiles read it: outputs and runs of columns per tile.

Plain numpy: the kernels import this file, and they know nothing of torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from autosparse.errors import PlanError
from autosparse.patterns.pattern import Pattern, WeightShape
from autosparse.patterns.structure import Array, BoolArray, IntArray, group_count
from autosparse.patterns.tiles import tiles_of, to_columns, unit_sizes, unit_starts
from autosparse.patterns.tilewise import left_of


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """Outputs that share one list of what they read.

    Attributes:
        outputs: int32 ``[rows]``, ascending.
        units: int32 ``[kept]``, numbers of the units that it reads, ascending: kernel positions row by
            row, and at one position the runs of inputs in order.
    """

    outputs: IntArray
    units: IntArray


@dataclass(frozen=True, slots=True, eq=False)
class TileStructure:
    """The kept tiles of one layer.

    Columns are those of a weight flattened to ``[outputs, taps * inputs]``: kernel positions row by
    row, and the inputs of one position side by side (`autosparse.patterns.tiles`).

    Attributes:
        shape: the weight's extents, OIHW or OI.
        group_out: outputs per tile; the last tile may be short.
        unit_in: consecutive inputs per unit; the last unit of a position is short where this does not
            divide the inputs.
        tiles: in the order of their outputs.
        pruned: int32, outputs that are in no tile, ascending: they read nothing.

    Raises:
        PlanError: an output or unit is not there, is in two tiles, or comes in another order.
    """

    shape: WeightShape
    group_out: int
    unit_in: int
    tiles: tuple[Tile, ...]
    pruned: IntArray

    def __post_init__(self) -> None:
        outputs = [self.pruned, *(tile.outputs for tile in self.tiles)]
        if not np.array_equal(np.sort(np.concatenate(outputs)), np.arange(self.shape[0])):
            raise PlanError(
                f"every one of {self.shape[0]} outputs must be in one tile or pruned, but got "
                f"{[each.tolist() for each in outputs]}"
            )
        for index, tile in enumerate(self.tiles):
            rising = all((np.diff(each) > 0).all() for each in (tile.outputs, tile.units))
            inside = not tile.units.size or (tile.units[0] >= 0 and tile.units[-1] < self.unit_count)
            if not (rising and inside and 1 <= tile.outputs.size <= self.group_out):
                raise PlanError(
                    f"a tile must hold 1 to {self.group_out} ascending outputs and ascending units "
                    f"below {self.unit_count}, but tile {index} holds outputs {tile.outputs.tolist()} "
                    f"and units {tile.units.tolist()}"
                )

    @classmethod
    def from_weight(cls, weight: Array, pattern: Pattern) -> Self:
        """Gives the smallest structure of a pattern of tiles that covers every non-zero weight.

        Args:
            weight: OIHW or OI.
            pattern: of a family of tiles; what is N:M inside lies in the units.
        """
        columns = to_columns(weight) != 0
        left = left_of(columns, pattern)
        return cls.of_outputs(weight.shape, columns, left, pattern.group_out, pattern.unit_in)

    @classmethod
    def of_outputs(
        cls, shape: WeightShape, columns: BoolArray, left: IntArray, group_out: int, unit_in: int
    ) -> Self:
        """Gives the structure whose tiles are made of the outputs `left`, in order.

        Args:
            shape: the weight's extents.
            columns: bool ``[outputs, taps * inputs]``, which weights are there.
            left: outputs that make up tiles, ascending.
            group_out: outputs per tile.
            unit_in: inputs per unit.
        """
        starts = unit_starts(shape, unit_in)
        tiles = tuple(
            Tile(outputs, _units(columns[outputs], starts)) for outputs in tiles_of(left, group_out)
        )
        pruned = np.setdiff1d(np.arange(shape[0], dtype=np.int32), left)
        return cls(shape, group_out, unit_in, tiles, pruned.astype(np.int32))

    @classmethod
    def dense(cls, shape: WeightShape, group_out: int, unit_in: int) -> Self:
        """Gives tiles that keep everything."""
        left = np.arange(shape[0], dtype=np.int32)
        columns = np.ones((shape[0], int(np.prod(shape[1:]))), dtype=bool)
        return cls.of_outputs(shape, columns, left, group_out, unit_in)

    @property
    def units_per_position(self) -> int:
        """Units of one kernel position."""
        return group_count(self.shape[1], self.unit_in)

    @property
    def taps(self) -> int:
        """Kernel positions."""
        return int(np.prod(self.shape[2:]))

    @property
    def unit_count(self) -> int:
        """Units of a tile that keeps everything."""
        return self.taps * self.units_per_position

    @property
    def kept_per_tile(self) -> IntArray:
        """Columns that every tile reads, int32 ``[tiles]``."""
        sizes = unit_sizes(self.shape, self.unit_in)
        return np.array([sizes[tile.units].sum() for tile in self.tiles], dtype=np.int32)

    @property
    def stored_weights(self) -> int:
        """Weights inside tiles, zeros among them included."""
        rows = np.array([tile.outputs.size for tile in self.tiles], dtype=np.int64)
        return int((rows * self.kept_per_tile).sum())

    def columns(self, tile: Tile) -> IntArray:
        """Gives the columns that a tile reads, int32, ascending."""
        starts = unit_starts(self.shape, self.unit_in)
        sizes = unit_sizes(self.shape, self.unit_in)
        runs = [np.arange(starts[u], starts[u] + sizes[u], dtype=np.int32) for u in tile.units]
        return np.concatenate(runs) if runs else np.empty(0, dtype=np.int32)


def _units(rows: BoolArray, starts: IntArray) -> IntArray:
    live = np.logical_or.reduceat(rows.any(axis=0), starts)
    return np.flatnonzero(live).astype(np.int32)
