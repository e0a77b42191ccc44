"""What is packed is what tiles hold, whatever the sizes, and every output is written once."""

from __future__ import annotations

import numpy as np
import pytest

from autosparse.kernels.gpu.methods.triton.geometry import of_layer, taps_of
from autosparse.kernels.gpu.methods.triton.packing import Packing, pack, run_of, tile_columns
from autosparse.patterns import family_of
from autosparse.patterns.families.tw import tw
from autosparse.patterns.tile_structure import Tile, TileStructure
from autosparse.records import LayerShape
from tests.kernels_gpu.triton.tile_cases import kept_of

CONV = LayerShape(
    op="conv2d", batch_size=1, in_channels=24, out_channels=40, in_height=9, in_width=7,
    kernel=(3, 2), dilation=(2, 1),
)  # fmt: skip


def linear(inputs: int, outputs: int) -> LayerShape:
    return LayerShape(op="linear", batch_size=1, in_channels=inputs, out_channels=outputs, in_height=4)


def packed(structure: TileStructure, shape: LayerShape, bn: int = 16, bk: int = 32) -> Packing:
    run = run_of(structure.unit_in, shape.in_channels, element_bytes=2, limit=bk)
    tiles = tile_columns(structure, shape)
    return pack(tiles, of_layer(shape), bn=bn, bk=bk, run=run)


def unpacked(packing: Packing, values: np.ndarray, shape: LayerShape) -> np.ndarray:
    """Spreads condensed weights over OIHW by following the lists, as kernels do."""
    weight = np.zeros((shape.out_channels, shape.in_channels, *shape.kernel), dtype=np.float32)
    taps = {place: divmod(index, shape.kernel[1]) for index, place in enumerate(taps_of(shape))}
    _, width, channels = of_layer(shape).input
    for block, outputs in zip(packing.blocks, packing.columns, strict=True):
        steps, first, entry = block[:3]
        for step in range(steps):
            for k in range(values.shape[2]):
                at = entry + step, k // packing.run
                distance, tap = packing.entries[at] * packing.run + k % packing.run, packing.taps[at]
                if packing.entries[at] < 0:
                    assert not values[first + step, :, k].any(), "padded columns have weights"
                    continue
                place = (int(tap) & 0xFFFF, int(tap) >> 16)
                channel = distance - (place[0] * width + place[1]) * channels
                assert 0 <= channel < channels, "an entry and its tap disagree"
                live = outputs >= 0
                weight[outputs[live], channel, *taps[place]] = values[first + step, live, k]
                assert not values[first + step, ~live, k].any(), "too many outputs"
    return weight


SITUATIONS = [
    (linear(40, 72), tw(32, 8), 0.5),
    (linear(40, 70), tw(32, 16), 0.5),  # short units, a short tile
    (linear(33, 50), tw(16, 1), 0.75),  # single columns
    (linear(33, 50), tw(16, 8, split="inputs"), 0.5),  # units of 8 inputs, but pixels of 33
    (linear(64, 24), tw(64, 64), 0.5),  # units as wide as two steps
    (linear(64, 64), tw(16, 12, uniform=False), 0.6),
    (linear(16, 40), tw(8, 8), 0.0),
    (linear(16, 40), tw(8, 8), 1.0),
    (CONV, tw(16, 8), 0.6),
    (CONV, tw(8, 16, split="inputs"), 0.75),
]


@pytest.mark.parametrize(("shape", "pattern", "sparsity"), SITUATIONS)
def test_lists_lead_back_to_the_weight(shape: LayerShape, pattern: object, sparsity: float) -> None:
    rng = np.random.default_rng(0)
    extents = (shape.out_channels, shape.in_channels, *shape.kernel)
    mask = family_of(pattern).random(pattern, extents, sparsity, rng)
    structure = TileStructure.from_weight(mask.astype(float), pattern)
    packing = packed(structure, shape)
    weight = rng.standard_normal(extents).astype(np.float32)
    found = unpacked(packing, packing.values(weight), shape)
    np.testing.assert_array_equal(found, weight * kept_of(structure))
    check_outputs(packing, shape.out_channels)


def check_outputs(packing: Packing, outputs: int) -> None:
    """Every output is in one block or pruned, and pruned ones are shared out once."""
    mine = packing.columns[packing.columns >= 0]
    pruned = packing.pruned[: packing.pruned_count]
    assert sorted([*mine, *pruned]) == list(range(outputs))
    bounds = packing.blocks[:, 5:7]
    assert (bounds[1:, 0] == bounds[:-1, 1]).all()
    assert (bounds[0, 0], bounds[-1, 1]) == (0, packing.pruned_count)
    assert (np.diff(packing.blocks[:, 0]) <= 0).all(), "the longest come first"


def test_runs_divide_units_and_pixels() -> None:
    runs = {
        (8, 64): 8, (64, 64): 8, (16, 40): 8, (12, 24): 4, (8, 36): 4, (6, 30): 2, (1, 64): 1,
        (8, 3): 1,
    }  # fmt: skip
    assert {key: run_of(*key, element_bytes=2, limit=32) for key in runs} == runs
    assert run_of(64, 64, element_bytes=1, limit=32) == 16


def test_blocks_of_a_tile_share_a_list() -> None:
    packing = packed(TileStructure.dense((48, 64), 48, 64), linear(64, 48))
    assert packing.blocks[:, 2].tolist() == [0, 0, 0]
    assert packing.entries.shape == (2 + 1, 32 // 8)
    assert packing.is_contiguous
    assert packing.out_run == 8


def test_empty_tiles_and_no_tiles_leave_outputs_to_be_written() -> None:
    units = np.array([1], dtype=np.int32)
    tiles = (
        Tile(np.arange(0, 8, dtype=np.int32), units[:0]),
        Tile(np.arange(8, 12, dtype=np.int32), units),
    )
    structure = TileStructure((14, 16), 8, 8, tiles, np.array([12, 13], dtype=np.int32))
    packing = packed(structure, linear(16, 14))
    assert packing.columns[packing.columns >= 0].tolist() == [8, 9, 10, 11]
    check_outputs(packing, 14)
    none = TileStructure((14, 16), 8, 8, (), np.arange(14, dtype=np.int32))
    packing = packed(none, linear(16, 14))
    assert packing.source.shape == (0, 16, 32)
    check_outputs(packing, 14)


def test_many_pruned_outputs_get_blocks_of_their_own() -> None:
    tile = Tile(np.arange(3, 5, dtype=np.int32), np.zeros(1, dtype=np.int32))
    pruned = np.setdiff1d(np.arange(300), tile.outputs).astype(np.int32)
    packing = packed(TileStructure((300, 8), 16, 8, (tile,), pruned), linear(8, 300))
    sizes = np.diff(packing.blocks[:, 5:7], axis=1)[:, 0]
    assert sizes.max() <= 4 * 16
    assert (packing.columns[1:] == -1).all()
    check_outputs(packing, 300)


def test_outputs_side_by_side_are_told_from_scattered_ones() -> None:
    def block(*outputs: int) -> TileStructure:
        mine = np.array(outputs, dtype=np.int32)
        rest = np.setdiff1d(np.arange(32), mine).astype(np.int32)
        return TileStructure((32, 8), 16, 8, (Tile(mine, np.zeros(1, dtype=np.int32)),), rest)

    aligned = packed(block(*range(8, 24)), linear(8, 32))
    assert (aligned.is_contiguous, aligned.out_run) == (True, 8)
    shifted = packed(block(*range(6, 18)), linear(8, 32))
    assert (shifted.is_contiguous, shifted.out_run) == (True, 2)
    scattered = packed(block(1, 2, 4), linear(8, 32))
    assert not scattered.is_contiguous
