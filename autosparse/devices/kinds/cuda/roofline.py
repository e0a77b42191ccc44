"""Lower bounds on latency that no kernel on a GPU can beat, from its measured limits."""

from __future__ import annotations

from dataclasses import dataclass

from autosparse.devices.device import Kernel
from autosparse.devices.layer import BYTES, elements_touched
from autosparse.errors import MissingMeasurement
from autosparse.measuring.stopwatch import MeasurementPolicy
from autosparse.records import GpuProfile, LayerShape

# The limits are measured too: under a load that may lower the clocks, of which a short layer knows
# nothing, or while the GPU was slower than it can be. A bound this much lower still holds then.
MARGIN = 0.8
# Data that twice the cache's bytes of others follow are no longer found there.
_EVICTS = 2


@dataclass(frozen=True, slots=True)
class Roofline:
    """Bounds for one GPU and measurement policy.

    Args:
        gpu: with measured limits.
        policy: tells how far away the weights lie.
        dtype: type of weights and activations.

    Raises:
        MissingMeasurement: the GPU's limits were never measured, or not in this type.

    Source: Williams, Waterman, Patterson, "Roofline", CACM 52(4), 2009.
    Differs: nothing is shorter than the shortest kernel in a graph. With 2:4 a sparse tensor core does
    no more of the operations that are left than a dense one, in the time of a dense one: twice the
    rate of which data sheets speak is that of the layer as it was.
    """

    gpu: GpuProfile
    policy: MeasurementPolicy
    dtype: str = "bf16"

    def __post_init__(self) -> None:
        if not (self._tflops and self.gpu.copy_gbytes_per_s and self.gpu.node_us):
            raise MissingMeasurement(
                f"a roofline needs the measured limits of {self.gpu.name} in {self.dtype}, but this "
                "profile has none; run autosparse profile where the GPU is"
            )

    @property
    def _tflops(self) -> float | None:
        rates = {"bf16": self.gpu.bf16_tflops, "f16": self.gpu.f16_tflops}
        return rates.get(self.dtype)

    def bound_us(self, shape: LayerShape, kept: int, kernel: Kernel | None = None) -> float:
        """Gives the least time a layer can take.

        Args:
            shape: the layer.
            kept: inputs kept per output on average; -1 for all.
            kernel: what runs it; all are bounded alike.
        """
        assert self._tflops and self.gpu.copy_gbytes_per_s and self.gpu.node_us
        flops = shape.kept_flops(kept)
        weights = shape.weights if kept < 0 else shape.out_channels * shape.taps * kept
        touched = BYTES[self.dtype] * elements_touched(shape, with_input=kept != 0)
        touched += self._cold_bytes(BYTES[self.dtype] * weights, shape)
        return MARGIN * max(
            flops / (self._tflops * 1e6),
            touched / (self.gpu.copy_gbytes_per_s * 1e3),
            self.gpu.node_us,
        )

    def _cold_bytes(self, weight_bytes: int, shape: LayerShape) -> int:
        """Gives the bytes of weights that must come from memory: none if they may be in the cache."""
        copy_bytes = weight_bytes + BYTES["f32"] * shape.weights  # as the tuner counts them
        copies = min(self.policy.max_copies, self.policy.max_copies_bytes // copy_bytes)
        distance = min(self.policy.reuse_bytes, copies * weight_bytes)
        is_cold = self.gpu.l2_bytes and distance >= _EVICTS * self.gpu.l2_bytes
        return weight_bytes if is_cold else 0
