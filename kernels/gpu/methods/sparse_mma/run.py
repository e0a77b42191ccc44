"""A layer on a GPU: packed weights and a loaded kernel."""

from __future__ import annotations

import numpy as np
import torch

from autosparse.kernels.gpu import driver
from autosparse.kernels.gpu.method import GivenLayer
from autosparse.kernels.gpu.methods.sparse_mma.arguments import Args, args_of
from autosparse.kernels.gpu.methods.sparse_mma.build import FUNCTION, source_of
from autosparse.kernels.gpu.methods.sparse_mma.packing import Packed, pack
from autosparse.kernels.gpu.methods.sparse_mma.variants import Variant

_ARRAYS = ("blocks", "runs", "parts", "outputs", "bias")


class SparseLayer:
    """Weights on a device, and a kernel for them. Calls can be captured in a graph."""

    def __init__(self, variant: Variant, layer: GivenLayer, device: torch.device) -> None:
        """Packs a layer, copies it to a device and loads its kernel.

        Args:
            variant: the kernel.
            layer: what it computes.
            device: a GPU.

        Raises:
            NoKernel: it is no GPU, or one that the kernel was not made for, or the weight is not 2:4.
        """
        index, launch = driver.device_index(device), variant.launch
        packed = pack(layer, variant.dtype, launch.bn, image=variant.instruction == "wgmma")
        self.weight_bytes = packed.bytes
        self._arrays = _on(packed, device)
        self._args = args_of(layer.shape, len(packed.parts), launch.bm * variant.cluster)
        for name, array in self._arrays.items():
            setattr(self._args, name, array.data_ptr())
        items = self._args.part_count * self._args.pixel_blocks
        clusters = min(items, driver.multiprocessors(index) * launch.ctas // variant.cluster)
        self._grid = clusters * variant.cluster
        self._function = driver.load(
            source_of(variant), FUNCTION, index, variant.threads, variant.shared_bytes
        )

    def __call__(self, x: torch.Tensor, residual: torch.Tensor | None, out: torch.Tensor) -> None:
        """Computes the layer on the current stream.

        Raises:
            UsageError: a tensor is not contiguous, or does not start at a multiple of 16 bytes.
        """
        args = Args.from_buffer_copy(self._args)
        args.x, args.out = driver.address(x), driver.address(out)
        args.residual = None if residual is None else driver.address(residual)
        self._function.launch(self._grid, args)


def _on(packed: Packed, device: torch.device) -> dict[str, torch.Tensor]:
    """Copies all arrays; what a kernel has nothing of needs an address all the same."""
    arrays = {name: getattr(packed, name) for name in _ARRAYS}
    filled = {name: a if a.size else np.zeros(16, a.dtype) for name, a in arrays.items()}
    return {name: torch.from_numpy(array).to(device) for name, array in filled.items()}
