"""Layers in Triton's interpreter are right, in all kinds of situations, and touch nothing else."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from autosparse.errors import NoKernel, UsageError
from autosparse.kernels.gpu.launch import Launch
from autosparse.kernels.gpu.methods.triton import product
from autosparse.patterns.families.tw import tw
from autosparse.patterns.pattern import Pattern
from autosparse.patterns.tile_structure import Tile, TileStructure
from autosparse.records import DENSE, Activation, LayerShape
from tests.kernels_gpu.triton.tile_cases import SMALL, convolved, kept_of, make


def linear(rows: int, inputs: int, outputs: int, **more: object) -> LayerShape:
    return LayerShape(
        op="linear", batch_size=1, in_height=rows, in_channels=inputs, out_channels=outputs, **more
    )


def conv(inputs: int, outputs: int, height: int, width: int, **more: object) -> LayerShape:
    return LayerShape(
        op="conv2d", batch_size=2, in_height=height, in_width=width, in_channels=inputs,
        out_channels=outputs, **{"kernel": (3, 3), "padding": (1, 1), **more},
    )  # fmt: skip


LAYERS = [
    # rows below, at and above a block; inputs and outputs with tails
    (linear(5, 32, 16), DENSE, 0.0),
    (linear(16, 40, 24), DENSE, 0.0),
    (linear(33, 70, 21), DENSE, 0.0),
    (linear(37, 64, 64), tw(32, 8), 0.5),
    (linear(19, 40, 70), tw(32, 16), 0.5),
    (linear(19, 128, 48), tw(16, 64), 0.5),
    (linear(19, 33, 50), tw(16, 1), 0.75),
    (linear(19, 36, 50), tw(16, 6, split="inputs"), 0.5),
    (linear(19, 64, 96), tw(64, 8, uniform=False), 0.6),
    (linear(19, 64, 40), tw(8, 8), 0.5),
    (linear(19, 48, 40), tw(32, 8), 0.0),
    (linear(19, 48, 40), tw(32, 8), 1.0),
    (conv(8, 16, 5, 6), DENSE, 0.0),
    (conv(24, 40, 7, 6, stride=(2, 1)), tw(16, 8), 0.5),
    (conv(16, 24, 9, 8, kernel=(3, 2), padding=(2, 0), stride=(1, 3), dilation=(2, 1)), tw(16, 8), 0.5),
    (conv(20, 24, 6, 5), tw(16, 1), 0.75),
    (conv(64, 16, 4, 4), tw(16, 64), 0.5),
    (conv(16, 24, 8, 8, kernel=(5, 5), padding=(2, 2)), tw(16, 16, split="inputs"), 0.75),
    (conv(16, 32, 7, 7, kernel=(1, 1), padding=(0, 0)), tw(16, 8), 0.5),
    (conv(16, 32, 7, 7, kernel=(1, 1), padding=(0, 0), stride=(2, 2)), tw(16, 8), 0.5),
    (conv(16, 32, 6, 6, kernel=(1, 1), padding=(1, 1)), tw(16, 8), 0.5),
    (conv(16, 32, 8, 8, padding=(0, 0)), tw(16, 8), 0.5),
    (conv(3, 8, 9, 9, kernel=(7, 7), padding=(3, 3), stride=(2, 2)), DENSE, 0.0),
]


@pytest.mark.parametrize("index", range(len(LAYERS)))
def test_layers(index: int) -> None:
    shape, pattern, sparsity = LAYERS[index]
    make(shape, pattern, sparsity, ("bf16", "f16")[index % 2], bias=index % 5 != 0).check()


@pytest.mark.smoke
def test_a_layer_with_all_that_follows() -> None:
    shape = conv(16, 24, 5, 5, activation=Activation.RELU, residual=True)
    make(shape, tw(16, 8), 0.5).check()


@pytest.mark.parametrize("activation", list(Activation))
def test_activations_of_pruned_outputs_too(activation: Activation) -> None:
    shape = linear(17, 32, 40, activation=activation, residual=True)
    case = make(shape, tw(16, 8), 0.75, "f16")
    case.residual *= 4
    case.check()


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize(
    ("shape", "pattern"),
    [
        (linear(35, 96, 40, activation=Activation.GELU, residual=True), tw(16, 16)),
        (linear(35, 72, 48), tw(16, 8, split="inputs")),
        (conv(32, 24, 5, 4, residual=True, stride=(2, 2)), tw(16, 32)),
    ],
)
def test_floats_of_8_bits_and_their_scales(shape: LayerShape, pattern: Pattern, parts: int) -> None:
    make(shape, pattern, 0.5, "fp8").check(dataclasses.replace(SMALL, split_k=parts))


@pytest.mark.parametrize("parts", [2, 3])
@pytest.mark.parametrize(
    ("shape", "pattern"),
    [
        (linear(35, 96, 40, activation=Activation.GELU, residual=True), tw(16, 8, uniform=False)),
        (linear(35, 96, 48), tw(16, 8, split="inputs")),
        (conv(32, 24, 5, 4, residual=True), tw(16, 16)),
        (linear(3, 64, 24, activation=Activation.SIGMOID), None),
    ],
)
def test_sums_in_parts(shape: LayerShape, pattern: Pattern | None, parts: int) -> None:
    none = TileStructure(
        (shape.out_channels, shape.in_channels, *shape.kernel), 16, 8, (),
        np.arange(shape.out_channels, dtype=np.int32),
    )  # fmt: skip
    structure = none if pattern is None else None
    case = make(shape, pattern or tw(16, 8), 0.5, structure=structure)
    case.check(dataclasses.replace(SMALL, split_k=parts))


@pytest.mark.parametrize(
    "launch",
    [
        Launch(bm=64, bn=32, bk=16, warps=4, stages=3, ctas=2),
        Launch(bm=32, bn=64, bk=64, warps=8, stages=4),
        Launch(bm=16, bn=16, bk=128, warps=4, stages=2, ctas=3),
    ],
)
def test_launch_parameters_change_nothing(launch: Launch) -> None:
    make(linear(70, 80, 100, residual=True), tw(64, 8), 0.5).check(launch)
    make(conv(24, 64, 6, 6), tw(64, 8), 0.6, "f16").check(launch)


def test_tiles_may_be_empty_or_interleaved() -> None:
    def ints(*values: int) -> np.ndarray:
        return np.array(values, dtype=np.int32)

    tiles = (Tile(ints(0, 2, 9), ints(1, 2)), Tile(ints(1, 5), ints()), Tile(ints(3, 4, 8), ints(0, 4)))
    structure = TileStructure((11, 40, 1, 1), 4, 8, tiles, ints(6, 7, 10))
    make(linear(18, 40, 11, residual=True), tw(4, 8), structure=structure).check()


@pytest.mark.parametrize(
    "shape", [linear(21, 48, 64), conv(48, 64, 4, 4, kernel=(3, 1), padding=(1, 0))]
)
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_what_a_tile_does_not_keep_does_not_reach_it(shape: LayerShape, value: float) -> None:
    case = make(shape, tw(16, 8, split="inputs"), 0.6)
    kept = kept_of(case.structure)
    somewhere = kept.any(axis=(2, 3))
    channel = int(np.argmax(somewhere.any(axis=0) & ~somewhere.all(axis=0)))
    expected, bad = case.expected(), np.zeros(case.x.shape)
    bad[..., channel] = 1.0
    is_reached = convolved(bad, kept.astype(float), shape) > 0
    case.x[..., channel] = value
    got = case.run(SMALL).double().numpy()
    assert is_reached.any()
    np.testing.assert_array_equal(np.isfinite(got), ~is_reached)
    np.testing.assert_allclose(got[~is_reached], expected[~is_reached], atol=0.05)


def test_rows_of_other_images_do_not_reach_a_pixel() -> None:
    case = make(conv(16, 16, 4, 4), tw(16, 8), 0.3)
    expected = case.expected()
    case.x[1] = math.nan
    got = case.run(SMALL).double().numpy()
    np.testing.assert_allclose(got[0], expected[0], atol=0.05)
    assert np.isnan(got[1][..., kept_of(case.structure).any(axis=(1, 2, 3))]).any()


@pytest.mark.parametrize("launch", [SMALL, dataclasses.replace(SMALL, split_k=2)])
@pytest.mark.parametrize("fewest", [1, 2, 5])
def test_groups_of_rows_change_nothing(
    fewest: int, launch: Launch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(product, "_L2_BYTES", 0)
    monkeypatch.setattr(product, "_FEWEST_ROW_BLOCKS", fewest)
    make(linear(77, 64, 40, residual=True), tw(16, 8), 0.5).check(launch)


def test_twice_gives_the_same_bits() -> None:
    case = make(linear(35, 96, 40), tw(16, 8), 0.5)
    launch = dataclasses.replace(SMALL, split_k=2)
    assert torch.equal(case.run(launch), case.run(launch))


def test_what_does_not_fit_is_refused() -> None:
    case = make(linear(16, 32, 24), tw(16, 8), 0.5)
    with pytest.raises(NoKernel, match="bn must be at most 16"):
        case.layer(dataclasses.replace(SMALL, bn=32))
    with pytest.raises(NoKernel, match="must be powers of two"):
        case.layer(dataclasses.replace(SMALL, bk=48))
    with pytest.raises(NoKernel, match="bk from 16 on"):
        case.layer(dataclasses.replace(SMALL, bk=8))
    other = dataclasses.replace(case, shape=linear(16, 64, 24))
    with pytest.raises(UsageError, match="tiles must be of"):
        other.layer(SMALL)
    layer, out = case.layer(SMALL), torch.empty(case.out_extents, dtype=torch.bfloat16)
    with pytest.raises(UsageError, match="x must be 512 contiguous elements"):
        layer(case.x[:, :8], None, out)
    with pytest.raises(UsageError, match="out must be"):
        layer(case.x, None, out.transpose(1, 3))
    with pytest.raises(UsageError, match="from a multiple of 16 bytes on"):
        layer(torch.zeros(513, dtype=torch.bfloat16)[1:], None, out)


def test_bytes_of_weights_and_lists_are_counted() -> None:
    case = make(linear(16, 64, 32), DENSE)
    layer = case.layer(SMALL)
    weights = 2 * 2 * 16 * 32 * 2  # blocks, steps, outputs, columns, bytes
    assert weights < layer.weight_bytes < weights + 600
