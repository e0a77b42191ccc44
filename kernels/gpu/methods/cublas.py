"""Dense linear layers, and convolutions that are such, by cuBLAS through torch: the one to beat.

Bias, and ReLU with it, are fused by cublasLt. A residual or another activation follow in one pass
(`finishing`), as the library has neither (its GELU is another function than the exact one).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from autosparse.kernels.gpu import nvrtc
from autosparse.kernels.gpu.chips import Chip
from autosparse.kernels.gpu.method import GivenLayer, GpuKernel, Method, Prepared, register
from autosparse.patterns.pattern import Pattern
from autosparse.records import Activation, LayerShape

if TYPE_CHECKING:
    import torch


@register
class Cublas(Method):
    """Dense products of matrices."""

    needs: ClassVar[Mapping[str, str]] = {"torch": "torch", "cuda": "cuda-bindings"}
    rounds_sums = True

    def kernels(self) -> tuple[GpuKernel, ...]:
        """Lists one per type."""
        return tuple(
            GpuKernel(
                name=f"{dtype}_dense__cuda_{self.name}", method=self.name, dtype=dtype, contract="dense"
            )
            for dtype in ("bf16", "f16")
        )

    @property
    def missing(self) -> tuple[str, ...]:
        """What compiles the pass that follows is needed too."""
        return super().missing + nvrtc.missing()

    def why_not(self, kernel: GpuKernel, shape: LayerShape, pattern: Pattern, chip: Chip) -> str:
        """Refuses what is no product of two matrices as they lie."""
        return "" if is_product(shape) else "it runs linear layers and 1x1 convolutions of stride 1"

    def launches(
        self, kernel: GpuKernel, shape: LayerShape, pattern: Pattern, chip: Chip
    ) -> tuple[str, ...]:
        """The library chooses."""
        return ("",)

    def prepare(
        self, kernel: GpuKernel, layer: GivenLayer, launch: str, device: torch.device
    ) -> Prepared:
        """Puts the weight on a device; on the CPU torch computes, for checking."""
        return _Linear(kernel.dtype, layer, device)

    def sources(self) -> tuple[Path, ...]:
        """Gives this file, and what finishes products."""
        return (Path(__file__), *nvrtc.finishing_sources())


def is_product(shape: LayerShape) -> bool:
    """Whether a layer multiplies the matrix of its inputs as it lies."""
    is_pointwise = shape.kernel == shape.stride == (1, 1) and shape.padding == (0, 0)
    return is_pointwise and shape.groups == 1


class _Linear:
    def __init__(self, dtype: str, layer: GivenLayer, device: torch.device) -> None:
        import torch

        from autosparse.kernels.gpu.finishing import DTYPES, Finish

        shape = layer.shape
        flat = torch.from_numpy(np.ascontiguousarray(layer.weight.reshape(shape.out_channels, -1)))
        self._weight = flat.to(device, DTYPES[dtype]).t()
        bias = np.zeros(shape.out_channels, np.float32) if layer.bias is None else layer.bias
        self._has_relu = shape.activation is Activation.RELU and not shape.residual
        is_whole = self._has_relu or (shape.activation is Activation.NONE and not shape.residual)
        self._bias = torch.from_numpy(bias).to(device, DTYPES[dtype])
        if not self._has_relu and (layer.bias is None or not is_whole):
            self._bias = self._bias[:0]  # none that the library would add
        self._finish: Finish | None = None
        if not is_whole:
            self._finish = Finish(
                dtype, bias, device, activation=shape.activation, residual=shape.residual
            )

    @property
    def weight_bytes(self) -> int:
        return self._weight.nbytes + self._bias.nbytes + (self._finish.bytes if self._finish else 0)

    def __call__(self, x: torch.Tensor, residual: torch.Tensor | None, out: torch.Tensor) -> None:
        import torch

        rows, sums = x.view(-1, x.shape[-1]), out.view(-1, out.shape[-1])
        if self._has_relu:
            torch.ops.aten._addmm_activation.out(self._bias, rows, self._weight, out=sums)
        elif self._bias.numel():
            torch.addmm(self._bias, rows, self._weight, out=sums)
        else:
            torch.mm(rows, self._weight, out=sums)
        if self._finish is not None:
            self._finish(sums, residual, out)
