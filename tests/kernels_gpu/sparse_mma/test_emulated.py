"""The kernels' own arithmetic, thread by thread on the emulated machine, against float64."""

from __future__ import annotations

import ctypes
import dataclasses

import numpy as np
import pytest

from autosparse.kernels.gpu.method import GivenLayer
from autosparse.patterns.tile_structure import TileStructure
from autosparse.records import Activation
from tests.kernels_gpu.emulated import POLICIES
from tests.kernels_gpu.sparse_mma.emulated import Emulator, args_bytes, name_of
from tests.kernels_gpu.sparse_mma.layers import activated, expected
from tests.kernels_gpu.sparse_mma.situations import MMA, VARIANTS, WGMMA, Situation, two_of_four


def assert_close(got: np.ndarray, wanted: np.ndarray, dtype: str) -> None:
    """Compares values rounded to 16 bits with exact ones: by half of the last bit, and float32 sums."""
    bits = 8 if dtype == "bf16" else 11
    slack = np.abs(wanted) * 2.0**-bits + 2e-5 * np.abs(wanted).max() + 1e-6
    wrong = ~(np.abs(got - wanted) <= slack)
    assert not wrong.any(), (
        f"{wrong.sum()} of {wrong.size} differ, first {np.argwhere(wrong)[:3].tolist()}"
    )


def check(emulator: Emulator, situation: Situation, layer: GivenLayer | None = None) -> None:
    layer = layer or situation.layer()
    x, residual = situation.input(), situation.residual()
    wanted = expected(layer, x, residual)
    for policy in POLICIES:
        got = emulator.run(situation.variant, layer, x, residual, grid=situation.grid, policy=policy)
        assert_close(got, wanted, situation.dtype)


BOTH = pytest.mark.parametrize("situations", [MMA, WGMMA], ids=["mma", "wgmma"])


@pytest.mark.parametrize("name", MMA)
def test_layers_by_mma(emulator: Emulator, name: str) -> None:
    check(emulator, MMA[name])


@pytest.mark.parametrize("name", WGMMA)
def test_layers_by_wgmma(emulator: Emulator, name: str) -> None:
    check(emulator, WGMMA[name])


@pytest.mark.smoke
def test_sizes_are_those_of_the_sources(emulator: Emulator) -> None:
    assert len(set(args_bytes(emulator))) == 1
    for variant in VARIANTS:
        assert emulator.sizes(name_of(variant)) == (variant.threads, variant.shared_bytes)


@BOTH
@pytest.mark.parametrize("grid", [1, 5, 40])
def test_any_number_of_blocks(emulator: Emulator, situations: dict[str, Situation], grid: int) -> None:
    check(emulator, dataclasses.replace(situations["3x3"], grid=grid))


@BOTH
def test_a_tile_that_keeps_nothing_and_one_that_keeps_all(
    emulator: Emulator, situations: dict[str, Situation]
) -> None:
    situation = situations["3x3"]
    layer = situation.layer()
    assert layer.structure is not None
    weight = layer.weight.copy()
    weight[layer.structure.tiles[0].outputs] = 0
    # Outputs of a tile whose weights have died stay in it, and read nothing.
    tiles = list(layer.structure.tiles)
    tiles[0] = dataclasses.replace(tiles[0], units=tiles[0].units[:0])
    structure = dataclasses.replace(layer.structure, tiles=tuple(tiles))
    check(emulator, situation, dataclasses.replace(layer, weight=weight, structure=structure))
    full = TileStructure.dense(weight.shape, 32, 8)
    check(emulator, situation, dataclasses.replace(layer, weight=weight, structure=full))


@BOTH
def test_sparsity_one_leaves_bias_residual_and_activation(
    emulator: Emulator, situations: dict[str, Situation]
) -> None:
    situation = situations["3x3"]
    layer = situation.layer()
    dead = np.zeros_like(layer.weight)
    structure = TileStructure.from_weight(dead, layer.pattern)
    check(emulator, situation, dataclasses.replace(layer, weight=dead, structure=structure))


@BOTH
def test_two_of_four_alone(emulator: Emulator, situations: dict[str, Situation]) -> None:
    situation = situations["strided"]
    check(emulator, situation, two_of_four(situation.shape, "bf16"))


@BOTH
def test_what_no_tile_keeps_is_never_read(emulator: Emulator, situations: dict[str, Situation]) -> None:
    situation = situations["linear"]
    layer = situation.layer()
    assert layer.structure is not None
    weight = layer.weight.copy()
    weight[:, 64:128] = 0
    structure = TileStructure.from_weight(weight, layer.pattern)
    layer = dataclasses.replace(layer, weight=weight, structure=structure)
    x = situation.input()
    wanted = expected(layer, x)
    x[..., 64:128] = np.nan
    for policy in POLICIES:
        assert_close(emulator.run(situation.variant, layer, x, policy=policy), wanted, "bf16")


@BOTH
def test_runs_give_the_same_bits_twice(emulator: Emulator, situations: dict[str, Situation]) -> None:
    situation = situations["strided"]
    layer, x = situation.layer(), situation.input()
    first, second = (emulator.run(situation.variant, layer, x, grid=grid) for grid in (1, 4))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize("activation", Activation)
def test_activations(emulator: Emulator, activation: Activation) -> None:
    function = emulator.native.emulated_activation
    function.restype, function.argtypes = ctypes.c_float, (ctypes.c_int, ctypes.c_float)
    x = np.linspace(-8, 8, 161, dtype=np.float32)
    got = [function(list(Activation).index(activation), value) for value in x]
    np.testing.assert_allclose(got, activated(x.astype(np.float64), activation), rtol=2e-6, atol=2e-7)


def test_the_machine_rounds_as_numpy_does(emulator: Emulator) -> None:
    from tests.kernels_gpu.sparse_mma.layers import rounded

    native = emulator.native
    native.emulated_pair.argtypes = (ctypes.c_int, ctypes.c_float, ctypes.c_float)
    native.emulated_pair.restype = ctypes.c_uint
    native.emulated_widened.restype = ctypes.c_float
    random = np.random.default_rng(0)
    values = random.standard_normal(4000) * 10.0 ** random.integers(-8, 5, 4000)
    for is_f16, dtype in enumerate(("bf16", "f16")):
        for value, wanted in zip(values, rounded(values, dtype), strict=True):
            pair = native.emulated_pair(is_f16, value, -value)
            assert native.emulated_widened(is_f16, pair & 0xFFFF) == wanted, value
            assert native.emulated_widened(is_f16, pair >> 16) == -wanted, value
