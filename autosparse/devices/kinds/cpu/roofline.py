"""Lower bounds on latency that no kernel on this machine can beat, from its measured limits."""

from __future__ import annotations

import math
from dataclasses import dataclass

from autosparse.devices.device import Kernel
from autosparse.devices.kinds.cpu.method_work import DIRECT, work_of, works_of
from autosparse.devices.layer import BYTES, elements_touched
from autosparse.errors import MissingMeasurement
from autosparse.kernels.spec import KernelSpec
from autosparse.measuring.stopwatch import MeasurementPolicy
from autosparse.records import CpuProfile, LayerShape

# The limits are measured too, possibly while the machine was busy and slower than it can be. A bound
# this much lower still holds then.
MARGIN = 0.8
# Of the machine's rate, for kernels that multiply and add apart where others fuse.
_UNFUSED_SHARE = 0.5


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
    greatest of the three bounds counts. Arithmetic and weights are those of a kernel's method:
    Winograd's filtering multiplies less, transforms, and reads more weights. Arithmetic includes lanes
    of a kernel's vectors that must stay idle: a layer of one pixel fills one of sixteen where vectors
    lie along pixels.
    """

    cpu: CpuProfile
    threads: int
    policy: MeasurementPolicy
    dtype: str = "f32"

    def __post_init__(self) -> None:
        if not self.cpu.f32_gflops_core or not self.cpu.read_gbytes_per_s:
            raise MissingMeasurement(
                "a roofline needs the machine's measured limits, but this profile has none; "
                "call autosparse.measuring.limits.profile()"
            )

    def bound_us(self, shape: LayerShape, kept: int, kernel: Kernel | None = None) -> float:
        """Gives the least time a layer can take.

        Args:
            shape: the layer.
            kept: inputs kept per output group; -1 for all.
            kernel: what runs it; None bounds all kernels.
        """
        assert kernel is None or isinstance(kernel, KernelSpec)
        waste = _lane_waste(shape, kernel) if kernel else 1.0
        works = [work_of(shape, kept, kernel.method)] if kernel else works_of(shape, kept, self.dtype)
        touched = BYTES[self.dtype] * elements_touched(shape, with_input=kept != 0)
        activations_us = touched / self._bytes_per_us(touched)
        return MARGIN * min(
            max(
                work.flops / (self._gflops(kernel) * 1e3) * waste,
                self._weights_us(BYTES[self.dtype] * work.weights),
                activations_us,
            )
            for work in works
        )

    def _weights_us(self, weight_bytes: int) -> float:
        distance = min(self.policy.reuse_bytes, self.policy.max_copies * weight_bytes)
        return weight_bytes / self._bytes_per_us(max(distance, weight_bytes))

    def _gflops(self, kernel: KernelSpec | None) -> float:
        # The machine's rate was measured with its widest vectors.
        is_wider = kernel is not None and self.cpu.simd_width_bits > 32 * kernel.lanes
        share = _UNFUSED_SHARE if kernel is not None and is_wider and not kernel.fuses else 1.0
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
    lanes = kernel.lanes
    outputs = shape.out_channels
    if kernel.method == "px" or kernel.method not in DIRECT:
        # Pixels, or tiles of several.
        units = work_of(shape, -1, kernel.method).units
        return math.ceil(units / lanes) * lanes / units
    if kernel.method == "oc":
        block_n = kernel.block_n or outputs
        groups, rest = divmod(outputs, block_n)
        vectors = groups * math.ceil(block_n / lanes) + math.ceil(rest / lanes)
        return vectors * lanes / outputs
    return 1.0
