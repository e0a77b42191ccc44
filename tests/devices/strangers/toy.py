"""A device that the project does not have; a launch parameter of its kernel is how often it works."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from autosparse.devices.device import Bounds, Built, Device, Kernel, register
from autosparse.devices.layer import FloatArray, Layer
from autosparse.devices.verify import largest_error, reference
from autosparse.errors import NoKernel, UsageError
from autosparse.measuring.stopwatch import MeasurementPolicy, Runner
from autosparse.progress import Progress
from autosparse.records import HardwareProfile, LayerShape, Pattern


@dataclass(frozen=True)
class ToyKernel:
    name: str = "f32_toy"
    dtype: str = "f32"
    tier: str = "toy"
    tier_rank: int = 0
    rate: float = 1.0
    expands_weights: bool = False


class Unbounded:
    def bound_us(self, shape: LayerShape, kept: int, kernel: Kernel | None = None) -> float:
        return 0.0


class ToyLayer(Built):
    def __init__(self, layer: Layer, repeats: int, copies: int) -> None:
        self._layer, self._repeats, self._copies = layer, repeats, copies

    @property
    def weight_bytes(self) -> int:
        return self._copies * self._layer.weight.nbytes

    def run(self, inputs: Sequence[FloatArray], output: FloatArray) -> None:
        layer = self._layer
        for _ in range(self._repeats):
            output[...] = reference(layer.shape, inputs[0], layer.weight, layer.bias, None)

    def runner(self, inputs: Sequence[FloatArray]) -> Runner:
        output = np.empty(self._layer.shape.output_shape, np.float32)

        def run(count: int) -> NDArray[Any]:
            taken = []
            for _ in range(count):
                begun = time.perf_counter_ns()
                self.run(inputs, output)
                taken.append(time.perf_counter_ns() - begun)
            return np.array(taken)

        return run

    def close(self) -> None:
        pass


@register
class Toy(Device):
    id = "toy-0"
    name = "A toy"
    most_threads = 1
    cache_bytes = 0
    has_limits = True

    @classmethod
    def of(cls, host: HardwareProfile) -> tuple[Self, ...]:
        return (cls(),)

    def with_limits(self, progress: Progress | None = None) -> Self:
        return self

    def why_no_dtype(self, dtype: str) -> str:
        return "" if dtype == "f32" else "toys compute in f32"

    def kernels_for(self, shape: LayerShape, pattern: Pattern, dtype: str) -> Sequence[Kernel]:
        if shape.residual:
            raise NoKernel("toys add nothing", {})
        return (ToyKernel(),)

    @classmethod
    def source_hashes(cls) -> Mapping[str, str]:
        return {"f32_toy": "toy"}

    def configs(self, kernel: Kernel, shape: LayerShape, pattern: Pattern) -> Sequence[str]:
        return ("repeats=8", "repeats=1", "repeats=0")

    def bounds(self, threads: int, policy: MeasurementPolicy, dtype: str) -> Bounds:
        return Unbounded()

    @classmethod
    def build(
        cls,
        layer: Layer,
        kernel: str,
        threads: int,
        *,
        config: str = "",
        copies: int = 1,
        writes_inputs: bool = False,
    ) -> Built:
        if kernel != "f32_toy":
            raise UsageError(f"a toy has no kernel {kernel}")
        return ToyLayer(layer, int(config.removeprefix("repeats=")), copies)

    @classmethod
    def dtype_of(cls, kernel: str) -> str:
        return "f32"

    @classmethod
    def tolerance(cls, layer: Layer, kernel: str, magnitude: float) -> float:
        return largest_error(layer.shape, layer.kept * layer.shape.taps, magnitude)
