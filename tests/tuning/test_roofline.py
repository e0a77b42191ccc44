from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from autosparse.devices.kinds.cpu.method_work import DIRECT, FILTERINGS
from autosparse.devices.kinds.cpu.roofline import MARGIN, Roofline
from autosparse.errors import MissingMeasurement
from autosparse.kernels.spec import KernelSpec, all_kernels
from autosparse.measuring.stopwatch import LAYERS

sys.path.insert(0, str(Path(__file__).parent))
from tuning_layers import CPU, LANES, conv, linear


def kernel(isa: str, method: str = "px", block_n: int = 0) -> KernelSpec:
    values = {"family": "f", "isa_rank": 0, "tile_out": 8, "tile_pixels": 16, "row": 0}
    vectors = {"lanes": LANES[isa], "fuses": isa != "generic"}
    return KernelSpec(name="k", isa=isa, method=method, block_n=block_n, **values, **vectors)


COLD = replace(LAYERS, reuse_bytes=16 << 20)


def test_kept_flops() -> None:
    shape = conv(64, 28)
    assert shape.kept_flops(-1) == shape.flops == 2 * 28 * 28 * 64 * 64 * 9
    assert shape.kept_flops(16) * 4 == shape.flops
    assert shape.kept_flops(0) == 0
    # A short last group keeps the same inputs as the others.
    assert conv(10, 5, out_channels=7).kept_flops(3) == 2 * 25 * 7 * 3 * 9


def test_a_convolution_is_bound_by_arithmetic() -> None:
    shape = conv(64, 56, kernel=(5, 5), padding=(2, 2))
    assert Roofline(CPU, 1, COLD).bound_us(shape, -1) == pytest.approx(MARGIN * shape.flops / 100e3)
    assert Roofline(CPU, 2, COLD).bound_us(shape, -1) == pytest.approx(MARGIN * shape.flops / 200e3)
    assert Roofline(CPU, 1, COLD).bound_us(shape, 16) == pytest.approx(MARGIN * shape.flops / 400e3)


def test_the_portable_baseline_has_half_the_peak_at_most() -> None:
    roofline = Roofline(CPU, 1, COLD)
    shape = conv(64, 56, kernel=(5, 5), padding=(2, 2))
    generic, narrow, wide = kernel("generic"), kernel("avx2"), kernel("avx512")
    assert roofline.bound_us(shape, -1, generic) == pytest.approx(2 * roofline.bound_us(shape, -1))
    assert roofline.bound_us(shape, -1, narrow) == roofline.bound_us(shape, -1, wide)
    fused = replace(generic, fuses=True)
    assert roofline.bound_us(shape, -1, fused) == roofline.bound_us(shape, -1)
    # The machine's rate is that of the baseline where nothing is wider.
    plain = Roofline(replace(CPU, simd_width_bits=128), 1, COLD)
    assert plain.bound_us(shape, -1, generic) == plain.bound_us(shape, -1)


@pytest.mark.parametrize(
    ("shape", "isa", "method", "block_n", "waste"),
    [
        (conv(64, 56), "avx512", "px", 0, 1.0),
        (conv(64, 7), "avx512", "px", 16, 64 / 49),
        (conv(64, 7), "avx2", "px", 16, 56 / 49),
        (conv(64, 1), "avx512", "px", 8, 16.0),
        (conv(64, 7), "avx512", "oc", 0, 1.0),
        (conv(64, 7, out_channels=70), "avx512", "oc", 0, 80 / 70),
        (conv(64, 7), "avx512", "oc", 8, 2.0),
        (conv(64, 7, out_channels=40), "avx512", "oc", 32, 48 / 40),
    ],
)
def test_idle_lanes_count(shape, isa, method, block_n, waste) -> None:
    roofline = Roofline(CPU, 1, replace(LAYERS, max_copies=1))
    got = roofline.bound_us(shape, -1, kernel(isa, method, block_n))
    flops_us = MARGIN * shape.flops / 100e3
    assert got == pytest.approx(waste * flops_us)


# What F(2x2) and F(4x4) multiply for one pair of channels, and transform for one channel, per tile.
@pytest.mark.parametrize(
    ("method", "tiles", "positions", "forward", "inverse"),
    [("wg", 28 * 28, 16, 24, 24), ("wf", 14 * 14, 36, 120, 120)],
)
def test_a_filtering_multiplies_less_and_transforms(method, tiles, positions, forward, inverse) -> None:
    roofline = Roofline(CPU, 1, replace(LAYERS, max_copies=1))
    shape = conv(64, 56)
    for kept in (-1, 16):
        inputs = 64 if kept < 0 else kept
        flops = 2 * tiles * (positions * inputs * 64 + forward * inputs + inverse * 64)
        got = roofline.bound_us(shape, kept, kernel("avx512", method))
        waste = -(-tiles // 16) * 16 / tiles
        assert got == pytest.approx(MARGIN * waste * flops / 100e3)
        assert got < roofline.bound_us(shape, kept, kernel("avx512", "px"))
        assert roofline.bound_us(shape, kept) <= got


def test_a_filtering_reads_more_weights() -> None:
    roofline = Roofline(CPU, 1, replace(LAYERS, reuse_bytes=1 << 30))
    shape = conv(512, 7)
    direct, more = (roofline.bound_us(shape, 64, kernel("avx512", name)) for name in ("oc", "wf"))
    assert more == pytest.approx(36 / 9 * MARGIN * 4 * 9 * 64 * 512 / 10e3)
    assert direct < more


def test_the_stem_is_filtered_by_phases() -> None:
    roofline = Roofline(CPU, 1, replace(LAYERS, max_copies=1))
    shape = conv(3, 224, out_channels=64, kernel=(7, 7), stride=(2, 2), padding=(3, 3))
    flops = 2 * 28 * 28 * (49 * 4 * 3 * 64 + 11 * (27 * 4 * 3 + 14 * 64))
    assert roofline.bound_us(shape, -1, kernel("avx2", "wp")) == pytest.approx(MARGIN * flops / 100e3)


def test_a_bound_of_all_kernels_lies_below_every_method_that_fits() -> None:
    roofline = Roofline(CPU, 1, COLD)
    strided = conv(64, 56, stride=(2, 2))
    assert roofline.bound_us(strided, -1) == pytest.approx(MARGIN * strided.flops / 100e3)
    narrow = Roofline(replace(CPU, bf16_gflops_core=100.0), 1, COLD, "bf16")
    assert narrow.bound_us(conv(64, 56), -1) == pytest.approx(MARGIN * conv(64, 56).flops / 100e3)


def test_a_linear_layer_is_bound_by_reading_its_cold_weights() -> None:
    shape = linear(4096, 1024)
    cold = Roofline(CPU, 1, COLD).bound_us(shape, -1)
    assert cold == pytest.approx(MARGIN * 4 * 4096 * 1024 / 40e3)  # 16 MiB of them, from L3
    far = Roofline(CPU, 1, replace(LAYERS, reuse_bytes=1 << 30)).bound_us(shape, -1)
    assert far == pytest.approx(MARGIN * 4 * 4096 * 1024 / 10e3)
    assert Roofline(CPU, 2, COLD).bound_us(shape, -1) == pytest.approx(cold / 2)


def test_few_copies_of_a_small_layer_stay_in_a_nearer_cache() -> None:
    roofline = Roofline(CPU, 1, replace(COLD, max_copies=2))
    shape = linear(256, 256)  # 256 KiB each
    assert roofline.bound_us(shape, -1) == pytest.approx(MARGIN * 4 * 256 * 256 / 100e3)


def test_an_empty_layer_still_writes_its_output() -> None:
    shape = conv(64, 56)
    assert Roofline(CPU, 1, COLD).bound_us(shape, 0) == pytest.approx(MARGIN * 4 * 64 * 56 * 56 / 100e3)


def test_bounds_fall_with_sparsity() -> None:
    roofline = Roofline(CPU, 1, COLD)
    for shape in (conv(64, 56), conv(512, 7), linear(512, 1000)):
        bounds = [roofline.bound_us(shape, kept) for kept in range(0, shape.in_channels + 1, 8)]
        assert bounds == sorted(bounds)
        assert bounds[-1] == pytest.approx(roofline.bound_us(shape, -1))


def test_no_bounds_without_measured_limits() -> None:
    with pytest.raises(MissingMeasurement, match=r"limits\.profile"):
        Roofline(replace(CPU, f32_gflops_core=None), 1, COLD)


def test_every_method_of_the_library_is_known_here() -> None:
    windows = {kernel.method: (kernel.window_in, kernel.window_out) for kernel in all_kernels()}
    filterings = {name: (how.inputs, how.outputs) for name, how in FILTERINGS.items()}
    assert windows == {**dict.fromkeys(DIRECT, (1, 1)), **filterings}
