"""Layers, a host and kernels for tests of the tuner."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autosparse.devices.device import Kernel
from autosparse.devices.kinds.cpu import Cpu
from autosparse.kernels import binding
from autosparse.kernels.spec import KernelSpec
from autosparse.records import CpuProfile, HardwareProfile, LayerInfo, LayerShape, Pattern

CPU = CpuProfile(
    model="test",
    vendor="test",
    architecture="x86_64",
    isa_cpu=("avx512f",),
    isa_usable=("avx512f",),
    simd_width_bits=512,
    cores_physical=2,
    cores_logical=2,
    cores_usable=2,
    affinity=(0, 1),
    l1d_bytes=48 << 10,
    l2_bytes=1 << 20,
    l3_bytes=32 << 20,
    f32_gflops_core=100.0,
    f32_gflops_all=200.0,
    read_gbytes_per_s={"l1": 400.0, "l2": 100.0, "l3": 40.0, "dram": 10.0},
)
HOST = HardwareProfile(hardware_id="test-host", cpu=CPU)


def conv(channels: int = 64, size: int = 28, **changes: Any) -> LayerShape:
    values = {
        "op": "conv2d",
        "batch_size": 1,
        "in_channels": channels,
        "out_channels": channels,
        "in_height": size,
        "in_width": size,
        "kernel": (3, 3),
        "padding": (1, 1),
    }
    return LayerShape(**{**values, **changes})


def linear(inputs: int = 64, outputs: int = 32, **changes: Any) -> LayerShape:
    return LayerShape(op="linear", batch_size=1, in_channels=inputs, out_channels=outputs, **changes)


def info(name: str, shape: LayerShape | None, *why_dense: str) -> LayerInfo:
    return LayerInfo(name=name, shape=shape, why_dense=why_dense)


LANES = {"generic": 4, "avx2": 8, "avx512": 16}


def fake_kernels(shape: LayerShape, pattern: Pattern, dtype: str = "f32") -> tuple[KernelSpec, ...]:
    """Gives made-up kernels: five along pixels for every pattern, one along outputs for dense."""
    variants = [("avx512", "px", 8), ("avx512", "px", 16), ("avx512", "px", 32), ("avx2", "px", 8)]
    variants += [("generic", "px", 4)] + [("avx512", "oc", 32)] * pattern.is_dense
    family = "dense" if pattern.is_dense else f"onexn{pattern.group_out}"
    return tuple(
        KernelSpec(
            name=f"f32_conv_{family}__{isa}_{method}{tile}x48",
            family=family,
            method=method,
            isa=isa,
            isa_rank=binding.isa_names().index(isa),
            lanes=LANES[isa],
            fuses=isa != "generic",
            block_n=pattern.group_out,
            tile_out=tile,
            tile_pixels=48,
            row=row,
        )
        for row, (isa, method, tile) in enumerate(variants)
    )


@dataclass(frozen=True)
class MadeUp(Cpu):
    """A processor with made-up kernels, all of one source but those that are named."""

    hashes: Mapping[str, str] = field(default_factory=dict)

    def kernels_for(self, shape: LayerShape, pattern: Pattern, dtype: str) -> tuple[KernelSpec, ...]:
        return fake_kernels(shape, pattern, dtype)

    def source_hash(self, kernel: Kernel) -> str:
        return self.hashes.get(kernel.name, "h1")


DEVICE = MadeUp(HOST)
"""The made-up host's processor with made-up kernels."""
