"""Lower bounds on latency that no kernel on this machine can beat, from its measured limits."""

from __future__ import annotations

import math
from dataclasses import dataclass

from autosparse.errors import MissingMeasurement
from autosparse.kernels.spec import KernelSpec
from autosparse.records import CpuProfile, LayerShape
from autosparse.tuning.stopwatch import MeasurementPolicy

# The limits are measured too, possibly while the machine was busy and slower than it can be. A bound
# this much lower still holds then.
MARGIN = 0.8
# The portable baseline on x86-64 multiplies and adds four floats apart; any wider set fuses eight.
_BASELINE_SHARE = 0.5
_LANES = {"generic": 4, "avx2": 8, "avx512": 16, "avx512bf16": 16, "amx": 16}  # floats per vector
BYTES = {"f32": 4, "bf16": 2}
"""Bytes of one element, by arithmetic type."""


def kept_flops(shape: LayerShape, kept: int) -> int:
    """Gives the operations of a layer whose output groups keep `kept` inputs; all of them for -1."""
    if kept < 0:
        return shape.flops
    return shape.flops // (shape.in_channels // shape.groups) * kept


@dataclass(frozen=True, slots=True)
class Roofline:
    """Bounds for one CPU, thread count and measurement policy.

    Args:
        cpu: with measured limits.
        threads: worker threads.
        policy: tells how far away the weights lie.
        dtype: type of weights and activations.

    Raises:
        MissingMeasurement: the CPU's limits were never measured.

    Source: Williams, Waterman, Patterson, "Roofline", CACM 52(4), 2009.
    Differs: weights and activations are bounded apart, each by the memory level where it lies, and the
    greatest of the three bounds counts. Arithmetic includes lanes of a kernel's vectors that must stay
    idle: a layer of one pixel fills one of sixteen where vectors lie along pixels.
    """

    cpu: CpuProfile
    threads: int
    policy: MeasurementPolicy
    dtype: str = "f32"

    def __post_init__(self) -> None:
        if not self.cpu.f32_gflops_core or not self.cpu.read_gbytes_per_s:
            raise MissingMeasurement(
                "a roofline needs the machine's measured limits, but this profile has none; "
                "call autosparse.limits.profile()"
            )

    def bound_us(self, shape: LayerShape, kept: int, kernel: KernelSpec | None = None) -> float:
        """Gives the least time a layer can take.

        Args:
            shape: the layer.
            kept: inputs kept per output group; -1 for all.
            kernel: what runs it; None bounds all kernels.
        """
        flops = kept_flops(shape, kept)
        gflops = self._gflops(kernel.isa if kernel else "")
        arithmetic_us = flops / (gflops * 1e3) * (_lane_waste(shape, kernel) if kernel else 1.0)
        weight_bytes = (
            BYTES[self.dtype] * flops // (2 * shape.batch_size * shape.out_height * shape.out_width)
        )
        distance = min(self.policy.reuse_bytes, self.policy.max_copies * weight_bytes)
        weights_us = weight_bytes / self._bytes_per_us(max(distance, weight_bytes))
        touched = BYTES[self.dtype] * _activations(shape, with_input=kept != 0)
        return MARGIN * max(arithmetic_us, weights_us, touched / self._bytes_per_us(touched))

    def _gflops(self, isa: str) -> float:
        narrow = isa == "generic" and self.cpu.architecture == "x86_64"
        share = _BASELINE_SHARE if narrow and self.cpu.simd_width_bits > 128 else 1.0
        # bf16 without an instruction of its own is computed in float.
        peaks = [self.cpu.f32_gflops_core] + [self.cpu.bf16_gflops_core] * (self.dtype == "bf16")
        return max(peak or 0.0 for peak in peaks) * self.threads * share

    def _bytes_per_us(self, distance: int) -> float:
        """Read rate, all threads together, of data that `distance` bytes of others follow."""
        rates = self.cpu.read_gbytes_per_s
        sizes = (
            ("l1", self.cpu.l1d_bytes * self.threads),
            ("l2", self.cpu.l2_bytes * self.threads),
            ("l3", self.cpu.l3_bytes),
        )
        for level, size in sizes:
            # Up to twice a cache's size a part of the data is still found in it.
            if level in rates and distance <= 2 * size:
                return rates[level] * 1e3 * self.threads
        return min(rates.values()) * 1e3 * self.threads


def _lane_waste(shape: LayerShape, kernel: KernelSpec) -> float:
    """Gives the least ratio of lanes computed to lanes of use, 1 or more."""
    lanes = _LANES.get(kernel.isa, 1)
    outputs = shape.out_channels
    if kernel.method == "px":
        pixels = shape.out_height * shape.out_width
        return math.ceil(pixels / lanes) * lanes / pixels
    if kernel.method == "oc":
        block_n = kernel.block_n or outputs
        groups, rest = divmod(outputs, block_n)
        vectors = groups * math.ceil(block_n / lanes) + math.ceil(rest / lanes)
        return vectors * lanes / outputs
    return 1.0


def _activations(shape: LayerShape, *, with_input: bool) -> int:
    out = shape.batch_size * shape.out_channels * shape.out_height * shape.out_width
    # A stride may step over inputs; no more are needed than outputs times taps.
    pixels = min(shape.in_height * shape.in_width, shape.out_height * shape.out_width * shape.taps)
    read = shape.batch_size * shape.in_channels * pixels if with_input else 0
    return out + read + (out if shape.residual else 0)
