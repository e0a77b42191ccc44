from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from autosparse.errors import MissingMeasurement
from autosparse.kernels.spec import KernelSpec
from autosparse.tuning.roofline import MARGIN, Roofline, kept_flops
from autosparse.tuning.stopwatch import LAYERS

sys.path.insert(0, str(Path(__file__).parent))
from tuning_layers import CPU, conv, linear


def kernel(isa: str, method: str = "px", block_n: int = 0) -> KernelSpec:
    values = {"family": "f", "tile_out": 8, "tile_pixels": 16, "row": 0}
    return KernelSpec(name="k", isa=isa, method=method, block_n=block_n, **values)


COLD = replace(LAYERS, reuse_bytes=16 << 20)


def test_kept_flops() -> None:
    shape = conv(64, 28)
    assert kept_flops(shape, -1) == shape.flops == 2 * 28 * 28 * 64 * 64 * 9
    assert kept_flops(shape, 16) * 4 == shape.flops
    assert kept_flops(shape, 0) == 0
    # A short last group keeps the same inputs as the others.
    assert kept_flops(conv(10, 5, out_channels=7), 3) == 2 * 25 * 7 * 3 * 9


def test_a_convolution_is_bound_by_arithmetic() -> None:
    shape = conv(64, 56)
    assert Roofline(CPU, 1, COLD).bound_us(shape, -1) == pytest.approx(MARGIN * shape.flops / 100e3)
    assert Roofline(CPU, 2, COLD).bound_us(shape, -1) == pytest.approx(MARGIN * shape.flops / 200e3)
    assert Roofline(CPU, 1, COLD).bound_us(shape, 16) == pytest.approx(MARGIN * shape.flops / 400e3)


def test_the_portable_baseline_has_half_the_peak_at_most() -> None:
    roofline = Roofline(CPU, 1, COLD)
    shape = conv(64, 56)
    generic, narrow, wide = kernel("generic"), kernel("avx2"), kernel("avx512")
    assert roofline.bound_us(shape, -1, generic) == pytest.approx(2 * roofline.bound_us(shape, -1))
    assert roofline.bound_us(shape, -1, narrow) == roofline.bound_us(shape, -1, wide)
    arm = Roofline(replace(CPU, architecture="aarch64"), 1, COLD)
    assert arm.bound_us(shape, -1, generic) == arm.bound_us(shape, -1)


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
    assert got == pytest.approx(max(waste * flops_us, roofline.bound_us(shape, -1)))


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
