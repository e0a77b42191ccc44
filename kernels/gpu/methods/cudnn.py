"""Dense convolutions by cuDNN through torch, channels last: the one to beat.

``epilogue=after`` convolves into the output and finishes it there in one pass, whatever the epilogue
(`finishing`). ``epilogue=fused`` has cuDNN add bias and residual and apply ReLU itself; torch gives
that no place to put the result, so that it is copied, which costs as much as the pass it saves.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from autosparse.errors import UsageError
from autosparse.kernels.gpu import nvrtc
from autosparse.kernels.gpu.chips import Chip
from autosparse.kernels.gpu.method import GivenLayer, GpuKernel, Method, Prepared, register
from autosparse.patterns.pattern import Pattern
from autosparse.records import Activation, LayerShape

if TYPE_CHECKING:
    import torch

AFTER, FUSED = "epilogue=after", "epilogue=fused"


@register
class Cudnn(Method):
    """Dense convolutions, in groups or not."""

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

    def facts(self) -> str:
        """Adds the library's version, if this torch has it."""
        import torch

        library: Any = torch.backends.cudnn
        version = library.version() if library.is_available() else "missing"
        return f"{super().facts()}, cudnn {version}"

    def why_not(self, kernel: GpuKernel, shape: LayerShape, pattern: Pattern, chip: Chip) -> str:
        """Refuses linear layers."""
        return "" if shape.op == "conv2d" else "it runs convolutions"

    def launches(
        self, kernel: GpuKernel, shape: LayerShape, pattern: Pattern, chip: Chip
    ) -> tuple[str, ...]:
        """Lists where the epilogue may be computed."""
        return (AFTER, FUSED) if shape.activation is Activation.RELU else (AFTER,)

    def prepare(
        self, kernel: GpuKernel, layer: GivenLayer, launch: str, device: torch.device
    ) -> Prepared:
        """Puts the weight on a device, and has cuDNN choose its algorithm; on the CPU torch computes.

        Raises:
            UsageError: no such launch parameter.
        """
        if launch not in (AFTER, FUSED):
            raise UsageError(f"launch parameters must be {AFTER} or {FUSED}, but got {launch!r}")
        return _Convolution(kernel.dtype, layer, device, is_fused=launch == FUSED)

    def sources(self) -> tuple[Path, ...]:
        """Gives this file, and what finishes convolutions."""
        return (Path(__file__), *nvrtc.finishing_sources())


class _Convolution:
    def __init__(self, dtype: str, layer: GivenLayer, device: torch.device, *, is_fused: bool) -> None:
        import torch

        from autosparse.kernels.gpu.finishing import DTYPES, Finish

        self._shape, self._is_fused = layer.shape, is_fused
        weight = torch.from_numpy(np.ascontiguousarray(layer.weight)).to(device, DTYPES[dtype])
        self._weight = weight.contiguous(memory_format=torch.channels_last)
        shape = layer.shape
        bias = np.zeros(shape.out_channels, np.float32) if layer.bias is None else layer.bias
        self._bias = torch.from_numpy(bias).to(device, DTYPES[dtype])
        is_whole = layer.bias is None and shape.activation is Activation.NONE and not shape.residual
        self._finish: Finish | None = None
        if not is_fused and not is_whole:
            self._finish = Finish(
                dtype, bias, device, activation=shape.activation, residual=shape.residual
            )
        if device.type == "cuda":
            self._choose(DTYPES[dtype], device)

    @property
    def weight_bytes(self) -> int:
        return self._weight.nbytes + self._bias.nbytes

    def __call__(self, x: torch.Tensor, residual: torch.Tensor | None, out: torch.Tensor) -> None:
        image, result = x.permute(0, 3, 1, 2), out.permute(0, 3, 1, 2)
        if self._is_fused:
            added = None if residual is None else residual.permute(0, 3, 1, 2)
            result.copy_(self._fused(image, added))
            return
        self._convolve(image, result)
        if self._finish is not None:
            self._finish(out.view(-1, out.shape[-1]), residual, out)

    def _convolve(self, image: torch.Tensor, result: torch.Tensor) -> None:
        import torch

        if not image.is_cuda:
            result.copy_(torch.nn.functional.conv2d(image, self._weight, None, **self._geometry()))
            return
        search, deterministic, tf32 = True, False, True
        shape = self._shape
        torch.ops.aten.cudnn_convolution.out(
            image, self._weight, shape.padding, shape.stride, shape.dilation, shape.groups,
            search, deterministic, tf32, out=result,
        )  # fmt: skip

    def _fused(self, image: torch.Tensor, added: torch.Tensor | None) -> torch.Tensor:
        import torch

        geometry = self._geometry()
        if not image.is_cuda:
            sums = torch.nn.functional.conv2d(image, self._weight, self._bias, **geometry)
            return torch.relu(sums if added is None else sums + added)
        if added is None:
            return torch.cudnn_convolution_relu(image, self._weight, self._bias, **geometry)
        return torch.cudnn_convolution_add_relu(image, self._weight, added, 1.0, self._bias, **geometry)

    def _geometry(self) -> dict[str, Any]:
        shape = self._shape
        names = ("stride", "padding", "dilation", "groups")
        return {name: getattr(shape, name) for name in names}

    def _choose(self, dtype: torch.dtype, device: torch.device) -> None:
        """Runs once: algorithms are searched by running them, which a captured graph does not allow."""
        import torch

        n, c, h, w = self._shape.input_shape
        x = torch.zeros(n, h, w, c, dtype=dtype, device=device)
        n, c, h, w = self._shape.output_shape
        out = torch.zeros(n, h, w, c, dtype=dtype, device=device)
        before = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = True  # of fused convolutions, which are given no flag
        try:
            self(x, torch.zeros_like(out) if self._shape.residual else None, out)
        finally:
            torch.backends.cudnn.benchmark = before
