"""No kernel is faster than its lower bound: not where it can run here, nor where it was recorded."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from autosparse import hardware
from autosparse.devices.kinds.cpu.program import LayerOnCpu
from autosparse.devices.kinds.cpu.roofline import Roofline
from autosparse.devices.layer import random_layer
from autosparse.errors import NoKernel
from autosparse.kernels import spec
from autosparse.kernels.spec import KernelSpec
from autosparse.measuring import limits
from autosparse.measuring.stopwatch import LAYERS
from autosparse.progress import Progress
from autosparse.records import DENSE, CpuProfile, LayerShape, Pattern, kept_blocks, onexn
from autosparse.storage.files import read_json

sys.path.insert(0, str(Path(__file__).parent))
from tuning_layers import conv, linear

RECORDED = sorted((Path(__file__).parents[2] / "results" / "reference").glob("bench-*/bench.json"))
SPARSITY = 0.75
WARM = replace(LAYERS, name="warm", max_copies=1)
# One of every kind of window, small; some fill vectors badly.
LAYER_SHAPES = (
    conv(32, 16),
    conv(64, 7),
    conv(48, 14, kernel=(1, 1), padding=(0, 0)),
    conv(32, 15, stride=(2, 2)),
    conv(3, 56, out_channels=32, kernel=(7, 7), stride=(2, 2), padding=(3, 3)),
    linear(256, 100),
)
PATTERNS = (DENSE, *map(onexn, (1, 2, 4, 8, 16, 32, 64)))


@cache
def cpu() -> CpuProfile:
    found = hardware.detect().cpu
    measured = limits.measure(found, Progress())
    return replace(found, **measured.to_json())


def raised(one: CpuProfile) -> CpuProfile:
    """Limits are maxima: another look can only raise them."""
    again = limits.measure(one, Progress()).to_json()
    rates = {
        level: max(rate, one.read_gbytes_per_s[level])
        for level, rate in again["read_gbytes_per_s"].items()
    }
    peak = max(again["f32_gflops_core"], one.f32_gflops_core or 0.0)
    return replace(one, f32_gflops_core=peak, read_gbytes_per_s=rates)


def least_us(shape: LayerShape, pattern: Pattern, kernel: KernelSpec) -> float:
    layer = random_layer(shape, pattern, SPARSITY, kernel.dtype)
    with LayerOnCpu(layer, kernel, 1) as built:
        _, op_ns = built.program.time(layer.inputs, 12, per_op=True)
        assert op_ns is not None
        return float(op_ns.min()) / 1e3


@pytest.mark.parametrize("dtype", ["f32", "bf16"])
@pytest.mark.parametrize("shape", LAYER_SHAPES, ids=lambda shape: shape.key)
def test_no_kernel_here_beats_its_bound(shape: LayerShape, dtype: str) -> None:
    ran = 0
    for pattern in PATTERNS:
        kept = -1 if pattern.is_dense else kept_blocks(shape.in_channels, SPARSITY)
        try:
            kernels = spec.kernels_for(shape, pattern, dtype)
        except NoKernel:
            continue
        for kernel in kernels:
            took = least_us(shape, pattern, kernel)
            bound = Roofline(cpu(), 1, WARM, dtype).bound_us(shape, kept, kernel)
            if took < bound:
                bound = Roofline(raised(cpu()), 1, WARM, dtype).bound_us(shape, kept, kernel)
            assert bound <= took, kernel.name
            assert Roofline(cpu(), 1, WARM, dtype).bound_us(shape, kept) <= bound * (1 + 1e-9)
            ran += 1
    assert ran >= 1


def recorded_rows(path: Path) -> Iterator[tuple[CpuProfile, int, dict[str, Any], dict[str, Any]]]:
    document = read_json(path)
    profile = CpuProfile.from_json(document["hardware"]["cpu"])
    for session in document["sessions"]:
        for result in session["results"]:
            for layer in result.get("layers") or ():
                if layer["alone_us"] is not None:
                    yield profile, session["threads"], result, layer


def shape_of(key: str) -> LayerShape:
    linear_layer = re.match(r"linear_b(\d+)_i(\d+)x1x1_o(\d+)", key)
    if linear_layer:
        batch, inputs, outputs = map(int, linear_layer.groups())
        return LayerShape(op="linear", batch_size=batch, in_channels=inputs, out_channels=outputs)
    pair = r"(\d+)x(\d+)"
    found = re.match(rf"conv2d_b(\d+)_i(\d+)x{pair}_o(\d+)_k{pair}_s{pair}_p{pair}_d{pair}_g1", key)
    assert found, key
    batch, inputs, height, width, outputs, *pairs = map(int, found.groups())
    names = ("kernel", "stride", "padding", "dilation")
    return LayerShape(
        op="conv2d",
        batch_size=batch,
        in_channels=inputs,
        out_channels=outputs,
        in_height=height,
        in_width=width,
        residual=key.endswith("_res"),
        **dict(zip(names, zip(pairs[::2], pairs[1::2], strict=True), strict=True)),
    )


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.parent.name)
def test_no_recorded_kernel_beat_its_bound(path: Path) -> None:
    known = {kernel.name: kernel for kernel in spec.all_kernels()}
    seen = set()
    if not (rows := list(recorded_rows(path))):
        pytest.skip("its layers were not timed alone")
    for profile, threads, result, layer in rows:
        kernel, shape = known[layer["kernel"]], shape_of(layer["shape"])
        dense = layer["pattern"] == "dense"
        kept = -1 if dense else kept_blocks(shape.in_channels, layer["sparsity"])
        roofline = Roofline(profile, threads, LAYERS, result["contestant"]["dtype"])
        assert roofline.bound_us(shape, kept, kernel) <= layer["alone_us"], (kernel.name, layer["name"])
        seen.add(kernel.method)
    assert len(seen) >= 2


def test_every_method_but_matrix_tiles_was_recorded_or_runs_here() -> None:
    known = {kernel.name: kernel.method for kernel in spec.all_kernels()}
    methods = {known[layer["kernel"]] for path in RECORDED for *_, layer in recorded_rows(path)}
    assert methods >= {"px", "oc", "wg", "wf", "wp"}
