"""Condensed weights of tiles and the lists that say what they multiply, as the kernels read them.

Plain numpy. A tile is cut into blocks of `bn` outputs, which share its list of columns; these are
taken in steps of `bk`, the last of which is filled up with what reads nothing. Columns that lie
together in memory share an entry: a run of as many as a power of two that divides the inputs that are
pruned together, those of a pixel, and 16 bytes. So no run is partly there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autosparse.kernels.gpu.methods.triton.geometry import Geometry, taps_of
from autosparse.patterns.structure import IntArray
from autosparse.patterns.tile_structure import Tile, TileStructure
from autosparse.records import LayerShape

BLOCK_FIELDS, OUT_BYTES = 8, 2
_PRUNED_PER_BLOCK = 4
"""Pruned outputs that a block writes beside its own, over `bn`; more get blocks of their own."""


@dataclass(frozen=True, slots=True, eq=False)
class TileColumns:
    """Outputs that multiply the same columns, and where each weight comes from.

    Attributes:
        outputs: int32 ``[rows]``.
        down: int32 ``[columns]``, rows from where a pixel starts to the pixel that is read.
        across: int32 ``[columns]``, columns to it.
        channel: int32 ``[columns]``, channel that is read; consecutive in aligned runs.
        of_output: int64 ``[rows]``, what the output adds to a weight's place in OIHW.
        of_column: int64 ``[columns]``, what the column adds.
        is_kept: bool ``[rows, columns]``, which weights are there; None for all.
    """

    outputs: IntArray
    down: IntArray
    across: IntArray
    channel: IntArray
    of_output: NDArray[np.int64]
    of_column: NDArray[np.int64]
    is_kept: NDArray[np.bool_] | None = None

    def source(self, rows: slice) -> NDArray[np.int64]:
        """Gives the place in OIHW of the weights of some outputs, -1 where there is none."""
        places = self.of_output[rows, None] + self.of_column
        return places if self.is_kept is None else np.where(self.is_kept[rows], places, -1)


@dataclass(frozen=True, slots=True, eq=False)
class Packing:
    """Lists of a layer, as `device.forward` has them.

    Attributes:
        run: columns per entry.
        out_run: outputs that lie together.
        is_contiguous: whether the outputs of every block lie side by side.
        blocks: int32 ``[blocks, 8]``, longest first.
        entries: int32 ``[steps of all lists + 1, bk / run]``, in runs.
        taps: int32 as `entries`.
        columns: int32 ``[blocks, bn]``.
        pruned: int32, at least one.
        pruned_count: how many of them there are.
        source: int32 or int64 ``[steps of all blocks, bn, bk]``, where weights come from in OIHW; -1
            for none.
    """

    run: int
    out_run: int
    is_contiguous: bool
    blocks: IntArray
    entries: IntArray
    taps: IntArray
    columns: IntArray
    pruned: IntArray
    pruned_count: int
    source: NDArray[np.signedinteger]

    def values(self, weight: NDArray[np.float32]) -> NDArray[np.float32]:
        """Gives the weights in the order of kernels, ``[steps of all blocks, bn, bk]``."""
        flat = weight.reshape(-1)
        zero = np.float32(0)
        return np.where(self.source >= 0, flat[self.source] if flat.size else zero, zero)


def run_of(*extents: int, element_bytes: int, limit: int) -> int:
    """Gives the largest power of two that divides extents, is within 16 bytes and within a limit."""
    common = math.gcd(*extents)
    return min(common & -common, 16 // element_bytes, limit)


def tile_columns(structure: TileStructure, shape: LayerShape) -> list[TileColumns]:
    """Gives the tiles of a layer, those that read nothing left out (`live_tiles`)."""
    channels, count = structure.shape[1], structure.taps
    taps = np.array(taps_of(shape), dtype=np.int32)
    found = []
    for tile in live_tiles(structure):
        columns = structure.columns(tile)
        tap, channel = columns // channels, columns % channels
        found.append(
            TileColumns(
                outputs=tile.outputs,
                down=taps[tap, 0],
                across=taps[tap, 1],
                channel=channel,
                of_output=tile.outputs.astype(np.int64) * channels * count,
                of_column=channel.astype(np.int64) * count + tap,
            )
        )
    return found


def live_tiles(structure: TileStructure) -> list[Tile]:
    """Gives the tiles that read something; outputs of others are as good as pruned."""
    return [tile for tile in structure.tiles if tile.units.size]


def pack(tiles: Sequence[TileColumns], geometry: Geometry, *, bn: int, bk: int, run: int) -> Packing:
    """Packs tiles; every output that is in none of them is pruned.

    Args:
        tiles: in the order of their outputs.
        geometry: of the product.
        bn: outputs per block, a power of two.
        bk: columns per step, a power of two.
        run: columns per entry.
    """
    blocks = _blocks(tiles, geometry.channels, bn, bk)
    outputs = [block.outputs for block in blocks]
    is_contiguous = all((np.diff(each) == 1).all() for each in outputs)
    aligned = [int(n) for each in outputs if each.size for n in (each[0], each.size)]
    out_run = run_of(
        geometry.channels, *(aligned if is_contiguous else ()), element_bytes=OUT_BYTES, limit=bn
    )
    entries, taps, first_entry = _lists(tiles, geometry, bk, run)
    pruned = np.concatenate([block.pruned for block in blocks])
    return Packing(
        run=run,
        out_run=out_run,
        is_contiguous=is_contiguous,
        blocks=_table(blocks, first_entry, out_run),
        entries=entries,
        taps=taps,
        columns=np.stack([_filled(block.outputs, bn) for block in blocks]),
        pruned=pruned if pruned.size else np.zeros(1, dtype=np.int32),
        pruned_count=pruned.size,
        source=_source(tiles, blocks, bn, bk),
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """Outputs of one tile that are multiplied together, and pruned ones that are written with them."""

    tile: int
    rows: slice
    outputs: IntArray
    steps: int
    pruned: IntArray


def _blocks(tiles: Sequence[TileColumns], channels: int, bn: int, bk: int) -> list[_Block]:
    """Cuts tiles into blocks, longest first; the last, if need be, are of pruned outputs alone."""
    cuts = [
        (index, slice(first, min(first + bn, tile.outputs.size)))
        for index, tile in enumerate(tiles)
        for first in range(0, tile.outputs.size, bn)
    ]
    outputs = [tiles[index].outputs[rows] for index, rows in cuts]
    beside, spare = _pruned(outputs, channels, _PRUNED_PER_BLOCK * bn)
    none = np.zeros(0, dtype=np.int32)
    found = [
        _Block(index, rows, mine, -(-tiles[index].channel.size // bk), pruned)
        for (index, rows), mine, pruned in zip(cuts, outputs, beside, strict=True)
    ]
    found += [_Block(-1, slice(0, 0), none, 0, pruned) for pruned in spare]
    return sorted(found, key=lambda block: -block.steps)


def _pruned(
    outputs: Sequence[IntArray], channels: int, most: int
) -> tuple[list[IntArray], list[IntArray]]:
    """Shares pruned outputs out among the blocks that surround them.

    Returns:
        Of each block; and what is left over, in pieces.
    """
    gone = np.ones(channels, dtype=bool)
    for each in outputs:
        gone[each] = False
    pruned = np.flatnonzero(gone).astype(np.int32)
    if not outputs:
        return [], [pruned[first : first + most] for first in range(0, pruned.size, most)]
    firsts = np.array([each[0] for each in outputs])
    order = np.argsort(firsts)
    owner = order[np.maximum(np.searchsorted(firsts[order], pruned, side="right") - 1, 0)]
    shares = [pruned[owner == block] for block in range(len(outputs))]
    spare = [share[first : first + most] for share in shares for first in range(most, share.size, most)]
    return [share[:most] for share in shares], spare


def _lists(
    tiles: Sequence[TileColumns], geometry: Geometry, bk: int, run: int
) -> tuple[IntArray, IntArray, list[int]]:
    """Gives entries and taps of all tiles, and the step that each tile's start at.

    One step more follows the last, as kernels ask for entries a step early.
    """
    entries, taps, first = [], [], [0]
    for tile in tiles:
        down, across, channel = tile.down[::run], tile.across[::run], tile.channel[::run]
        width, size = geometry.input[1:]
        distance = (down.astype(np.int64) * width + across) * size + channel
        steps = -(-tile.channel.size // bk)
        entries.append(_filled((distance // run).astype(np.int32), steps * (bk // run)))
        taps.append(_filled(down | across << 16, steps * (bk // run)))
        first.append(first[-1] + steps)
    ahead = np.full(bk // run, -1, dtype=np.int32)
    return (
        np.concatenate([*entries, ahead]).reshape(-1, bk // run),
        np.concatenate([*taps, ahead]).reshape(-1, bk // run),
        first,
    )


def _filled(values: IntArray, size: int) -> IntArray:
    """Fills up with -1."""
    return np.concatenate([values, np.full(size - values.size, -1)]).astype(np.int32)


def _table(blocks: Sequence[_Block], first_entry: Sequence[int], out_run: int) -> IntArray:
    table = np.zeros((len(blocks), BLOCK_FIELDS), dtype=np.int32)
    weights = listed = 0
    for row, block in zip(table, blocks, strict=True):
        if block.outputs.size:
            row[:3] = block.steps, weights, first_entry[block.tile]
            row[3:5] = block.outputs[0] // out_run, block.outputs.size // out_run
        row[5:7] = listed, listed + block.pruned.size
        weights += block.steps
        listed += block.pruned.size
    return table


def _source(
    tiles: Sequence[TileColumns], blocks: Sequence[_Block], bn: int, bk: int
) -> NDArray[np.signedinteger]:
    steps = sum(block.steps for block in blocks)
    largest = max((int(t.of_output.max() + t.of_column.max()) for t in tiles), default=0)
    source = np.full((steps, bn, bk), -1, dtype=np.int32 if largest < 1 << 31 else np.int64)
    first = 0
    for block in blocks:
        if block.outputs.size:
            places = tiles[block.tile].source(block.rows)
            full = np.full((bn, block.steps * bk), -1, dtype=source.dtype)
            full[: places.shape[0], : places.shape[1]] = places
            source[first : first + block.steps] = full.reshape(bn, -1, bk).transpose(1, 0, 2)
        first += block.steps
    return source
