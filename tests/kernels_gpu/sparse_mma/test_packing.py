"""What is packed, read by hand: blocks give the weights again, runs the inputs that they are for."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from autosparse.errors import NoKernel
from autosparse.kernels.gpu.method import GivenLayer
from autosparse.kernels.gpu.methods.sparse_mma import metadata as md
from autosparse.kernels.gpu.methods.sparse_mma import packing
from autosparse.kernels.gpu.methods.sparse_mma.packing import NOWHERE, Packed, pack
from autosparse.patterns.families.nm import nm
from autosparse.patterns.tile_structure import TileStructure
from autosparse.records import LayerShape
from tests.kernels_gpu.sparse_mma.layers import conv, expected, linear, rounded, tvw_layer

LAYERS = {
    "linear": (linear(5, 192, 100), {"group_out": 64}),
    "one tile": (linear(3, 64, 48), {"group_out": 256, "split": "inputs", "sparsity": 0.5}),
    "3x3": (conv(2, 24, 72, (5, 6), kernel=(3, 3), padding=(1, 1)), {"group_out": 32}),
    "strided": (
        conv(1, 16, 40, (9, 7), kernel=(3, 2), stride=(2, 3), padding=(2, 0), dilation=(2, 1)),
        {"group_out": 16, "unit_in": 16, "sparsity": 0.8},
    ),
}


def layer_of(name: str, dtype: str = "bf16") -> GivenLayer:
    shape, options = LAYERS[name]
    return tvw_layer(shape, dtype=dtype, **options)  # type: ignore[arg-type]


def values_of(bits: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "f16":
        return bits.view(np.float16).astype(np.float32)
    return (bits.astype(np.uint32) << 16).view(np.float32)


def rows_of(block: np.ndarray, bn: int, dtype: str, *, image: bool) -> np.ndarray:
    """Reads the ``[bn, 64]`` weights of one block as the instructions' manual says they lie."""
    values = values_of(block[: bn * 64].view(np.uint16), dtype)
    words = block[bn * 64 :].view(np.uint32).reshape(-1, 1, 32)
    if image:
        places = md.swizzled(np.arange(0, bn * 64, 2), 64) // 2
        kept = values[places].reshape(bn, 32)
    else:
        fragments = values.reshape(bn // 16, 2, 32, 8)
        halves = [
            np.concatenate([md.from_fragments(f, md.a_fragments, (16, 16)) for f in pair], axis=1)
            for pair in fragments
        ]
        kept = np.concatenate(halves)
    return md.expand(kept, md.unpack(words))


def computed(
    packed: Packed, layer: GivenLayer, x: np.ndarray, bn: int, dtype: str, image: bool
) -> np.ndarray:
    """Computes a layer from what was packed, gathering run by run: ``[pixels, outputs]``."""
    shape, flat = layer.shape, x.reshape(-1).astype(np.float64)
    pixels = shape.batch_size * shape.out_height * shape.out_width
    out = np.full((pixels, shape.out_channels), np.nan)
    for part, (steps, block, run, _) in enumerate(packed.parts):
        sums = np.zeros((pixels, bn))
        for step in range(steps):
            inputs = gathered(packed.runs[run + 8 * step : run + 8 * step + 8], shape, flat)
            sums += inputs @ rows_of(packed.blocks[block + step], bn, dtype, image=image).T
        there = packed.outputs[part] >= 0
        assert np.isnan(out[:, packed.outputs[part][there]]).all(), "an output is computed twice"
        out[:, packed.outputs[part][there]] = (sums + packed.bias[part])[:, there]
    return out


def gathered(runs: np.ndarray, shape: LayerShape, flat: np.ndarray) -> np.ndarray:
    batch, row, column = np.indices((shape.batch_size, shape.out_height, shape.out_width)).reshape(
        3, -1
    )
    top = row * shape.stride[0] - shape.padding[0]
    left = column * shape.stride[1] - shape.padding[1]
    base = ((batch * shape.in_height + top) * shape.in_width + left) * shape.in_channels
    found = np.zeros((base.size, 64))
    for number, (offset, shift) in enumerate(runs):
        y, x = top + (shift >> 16), left + (shift & 0xFFFF)
        inside = (y >= 0) & (y < shape.in_height) & (x >= 0) & (x < shape.in_width)
        at = (base + offset)[inside, None] + np.arange(8)
        found[inside, 8 * number : 8 * number + 8] = flat[at]
    return found


@pytest.mark.parametrize("image", [False, True], ids=["fragments", "image"])
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_from_what_is_packed(name: str, image: bool) -> None:
    layer = layer_of(name)
    x = np.random.default_rng(1).standard_normal(
        (layer.shape.batch_size, layer.shape.in_height, layer.shape.in_width, layer.shape.in_channels)
    )
    packed = pack(layer, "bf16", 32, image=image)
    got = computed(packed, layer, x, 32, "bf16", image)
    np.testing.assert_allclose(got, expected(layer, x), rtol=1e-6, atol=1e-6)


@pytest.mark.smoke
def test_parts_stand_longest_first_and_hold_every_output_once() -> None:
    layer = layer_of("3x3")
    packed = pack(layer, "bf16", 32, image=False)
    steps = packed.parts[:, 0]
    assert (np.diff(steps) <= 0).all()
    assert steps[0] > steps[-1] == 0, "pruned outputs are parts without steps"
    there = packed.outputs[packed.outputs >= 0]
    np.testing.assert_array_equal(np.sort(there), np.arange(layer.shape.out_channels))
    assert len(packed.blocks) == steps.sum()
    assert packed.blocks.shape[1] == 32 * packing.BYTES_PER_OUTPUT == 32 * 72
    assert packed.bytes > packed.blocks.nbytes


def test_parts_of_one_tile_share_its_list() -> None:
    layer = layer_of("one tile")
    packed = pack(layer, "bf16", 16, image=False)
    assert len(packed.parts) == 3
    assert (packed.parts[:, 2] == 0).all()
    assert len(packed.runs) == packed.parts[0, 0] * 8


def test_a_column_that_no_output_of_a_tile_keeps_shifts_no_group() -> None:
    # Unit 1 of tile 0 dies; the groups of four of what follows stay together, and a column that dies
    # inside a unit that lives keeps its place.
    layer = tvw_layer(linear(2, 64, 32), group_out=16, split="inputs", sparsity=0.5)
    weight = layer.weight.copy()
    weight[:16, 8:16] = 0
    weight[:16, 21] = 0
    structure = TileStructure.from_weight(weight, layer.pattern)
    assert 1 not in structure.tiles[0].units and 2 in structure.tiles[0].units
    changed = dataclasses.replace(layer, weight=weight, structure=structure)
    x = np.random.default_rng(2).standard_normal((1, 2, 1, 64))
    got = computed(pack(changed, "bf16", 16, image=False), changed, x, 16, "bf16", False)
    np.testing.assert_allclose(got, expected(changed, x), rtol=1e-6, atol=1e-6)


def test_a_layer_of_two_of_four_alone_keeps_all_inputs() -> None:
    shape = conv(1, 16, 24, (4, 4), kernel=(3, 3), padding=(1, 1))
    weight = rounded(np.random.default_rng(3).standard_normal(shape.weight_shape), "f16")
    order = np.abs(weight).reshape(24, 4, 4, 9).argsort(axis=2).argsort(axis=2)
    weight = np.where(order.reshape(weight.shape) < 2, 0, weight)
    layer = GivenLayer(shape=shape, weight=weight, bias=None, pattern=nm(2, 4))
    packed = pack(layer, "f16", 32, image=True)
    assert (packed.parts[0, 0], packed.parts[0, 3]) == (3, 1)  # 144 columns, 24 outputs in a row
    assert (packed.runs[18:, 1] == NOWHERE).all()
    x = np.random.default_rng(4).standard_normal((1, 4, 4, 16))
    got = computed(packed, layer, x, 32, "f16", True)
    np.testing.assert_allclose(got, expected(layer, x), rtol=1e-6, atol=1e-6)


def test_sparsity_one_leaves_the_bias() -> None:
    layer = layer_of("linear")
    dead = np.zeros_like(layer.weight)
    structure = TileStructure.from_weight(dead, layer.pattern)
    packed = pack(dataclasses.replace(layer, weight=dead, structure=structure), "bf16", 32, image=False)
    assert packed.blocks.size == 0 and (packed.parts[:, 0] == 0).all()
    there = packed.outputs >= 0
    np.testing.assert_array_equal(packed.bias[there], layer.bias[packed.outputs[there]])


def test_what_is_not_two_of_four_is_refused() -> None:
    layer = layer_of("linear")
    weight = layer.weight.copy()
    tile = layer.structure.tiles[0]  # type: ignore[union-attr]
    weight[tile.outputs[3], layer.structure.columns(tile)[:4]] = 1  # type: ignore[union-attr]
    with pytest.raises(NoKernel, match="at most 2 of 4 consecutive kept columns"):
        pack(dataclasses.replace(layer, weight=weight), "bf16", 32, image=False)


def test_outputs_side_by_side_are_known() -> None:
    layer = layer_of("one tile")
    assert pack(layer, "bf16", 16, image=False).parts[:, 3].tolist() == [1, 1, 1]
    assert not pack(layer_of("linear"), "bf16", 32, image=False).parts[:, 3].all()
