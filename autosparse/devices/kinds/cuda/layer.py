"""A layer on a GPU, timed as a compiled model runs it: kernels one after another in a CUDA graph.

Nothing that a run reads or writes was touched lately: as many runs on other memory lie between two uses
of the same as put twice the bytes of the L2 cache there (`places_for`). So weights are as cold as in a
model, which reads all others in between, and inputs are as cold as those of large batches, which have
left the cache before they are read. Inputs of small batches, which a model still finds in the cache,
are faster there; that holds for all kernels of a layer alike.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import numpy as np
import torch

from autosparse.devices.device import Built
from autosparse.devices.kinds.cuda.clock import runner_of
from autosparse.devices.kinds.cuda.faults import named
from autosparse.devices.layer import FloatArray, Layer
from autosparse.errors import NoKernel
from autosparse.kernels.gpu.finishing import DTYPES
from autosparse.kernels.gpu.method import GivenLayer, GpuKernel, Prepared, method_of
from autosparse.measuring.stopwatch import Runner
from autosparse.patterns import family_of
from autosparse.patterns.tile_structure import TileStructure

MOST_PLACES = 1024
"""Inputs and outputs at most: those of layers so small that more were needed are a few megabytes."""


class LayerOnGpu(Built):
    """Layers that all compute the same, each with its own weights.

    Args:
        layer: what they compute.
        kernel: computes it.
        launch: its launch parameters.
        device: a GPU; or the CPU, on which some kernels can be checked, but not timed.
        copies: how many.

    Raises:
        NoKernel: the kernel cannot run there; the message says why.
        UsageError: it has no such launch parameters.
        MemoryError: the GPU has not enough memory.
        DeviceLost: the GPU gave the process up.
    """

    def __init__(
        self, layer: Layer, kernel: GpuKernel, launch: str, device: torch.device, *, copies: int = 1
    ) -> None:
        if kernel.dtype not in DTYPES:
            raise NoKernel(
                f"layers by themselves are run in {' and '.join(DTYPES)}, but {kernel.name} computes "
                f"in {kernel.dtype}: their inputs need a scale, which only a model knows",
                {},
            )
        self._shape, self._device, self._dtype = layer.shape, device, DTYPES[kernel.dtype]
        parameters = f"[{launch}]" if launch else ""
        self._what = f"{kernel.name}{parameters} on {layer.shape.key} {layer.pattern.name}"
        given = GivenLayer(
            shape=layer.shape,
            weight=layer.weight,
            bias=layer.bias,
            pattern=layer.pattern,
            structure=_structure(layer),
        )
        method = method_of(kernel)
        with named(self._what, device):
            self._prepared: list[Prepared] = [
                method.prepare(kernel, given, launch, device) for _ in range(copies)
            ]

    @property
    def weight_bytes(self) -> int:
        """Of weights and lists on the device."""
        return sum(each.weight_bytes for each in self._prepared)

    def run(self, inputs: Sequence[FloatArray], output: FloatArray) -> None:
        """Runs the first of the layers once; what it does not write is NaN."""
        with named(self._what, self._device):
            x, residual = self._on_device(inputs)
            out = self._new_output()
            self._prepared[0](x, residual, out)
            output[...] = out.permute(0, 3, 1, 2).float().cpu().numpy()

    def runner(self, inputs: Sequence[FloatArray]) -> Runner:
        """Times all of them in turn, by the GPU's clock."""
        if self._device.type != "cuda":
            raise NoKernel(f"the clock is a GPU's, but {self._what} is on the {self._device}", {})
        with named(self._what, self._device):
            calls = self._calls(inputs)
        return runner_of(calls, self._device, self._what)

    def close(self) -> None:
        """Frees its memory on the device."""
        self._prepared = []
        if self._device.type == "cuda":
            torch.cuda.empty_cache()

    def _calls(self, inputs: Sequence[FloatArray]) -> list[Callable[[], None]]:
        """Gives runs until both weights and places are those of the first again."""
        x, residual = self._on_device(inputs)
        copies = len(self._prepared)
        run_bytes = x.nbytes + self._new_output().nbytes * (1 + self._shape.residual)
        run_bytes += self.weight_bytes // copies if copies > 1 else 0
        count = places_for(copies, run_bytes, l2_bytes(self._device))
        places = [
            (x.clone(), None if residual is None else residual.clone(), self._new_output())
            for _ in range(count)
        ]
        return [
            functools.partial(self._prepared[number % copies], *places[number % count])
            for number in range(math.lcm(copies, count))
        ]

    def _on_device(self, inputs: Sequence[FloatArray]) -> tuple[torch.Tensor, torch.Tensor | None]:
        moved = [self._channels_last(each) for each in inputs]
        return moved[0], moved[1] if self._shape.residual else None

    def _channels_last(self, image: FloatArray) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(image)).to(self._device)
        return tensor.permute(0, 2, 3, 1).to(self._dtype).contiguous()

    def _new_output(self) -> torch.Tensor:
        batch, channels, height, width = self._shape.output_shape
        size = (batch, height, width, channels)
        return torch.full(size, math.nan, dtype=self._dtype, device=self._device)


def l2_bytes(device: torch.device) -> int:
    """Gives the size of a GPU's L2 cache; 0 for the CPU."""
    if device.type != "cuda":
        return 0
    return int(torch.cuda.get_device_properties(device).L2_cache_size)


def places_for(copies: int, run_bytes: int, cache_bytes: int) -> int:
    """Gives how many inputs and outputs to rotate through.

    Runs take weights and places in turn. Of numbers that are large enough, up to twice the least, the
    one is taken after which both begin anew soonest, so that graphs are short.

    Args:
        copies: of the weights.
        run_bytes: that one run touches.
        cache_bytes: of the L2 cache.
    """
    least = min(2 * cache_bytes // max(run_bytes, 1) + 1, MOST_PLACES)
    return min(range(least, 2 * least + 1), key=lambda count: (math.lcm(copies, count), count))


# A layer is built twice or more per kernel, and its kernels follow each other.
@functools.lru_cache(maxsize=2)
def _structure(layer: Layer) -> TileStructure | None:
    if family_of(layer.pattern).contract(layer.pattern).kind != "tw":
        return None
    return TileStructure.from_weight(layer.weight, layer.pattern)
