"""Sparse tensor cores: the method, its kernels, and what they can run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from autosparse.kernels.gpu import nvrtc, resources
from autosparse.kernels.gpu.chips import Chip
from autosparse.kernels.gpu.method import (
    GivenLayer,
    GpuKernel,
    Method,
    Prepared,
    Resources,
    register,
)
from autosparse.kernels.gpu.methods.sparse_mma import build
from autosparse.kernels.gpu.methods.sparse_mma.launches import launches, parsed
from autosparse.kernels.gpu.methods.sparse_mma.packing import RUN
from autosparse.kernels.gpu.methods.sparse_mma.variants import variant_of
from autosparse.patterns.pattern import Pattern
from autosparse.records import LayerShape

if TYPE_CHECKING:
    import torch

_HALF = (2, 4)
_INSTRUCTIONS = ("mma", "wgmma")
_MOST_EXTENT = 1 << 15  # rows and columns of an image are told in 16 bits, with a sign
_MOST_ELEMENTS = 1 << 31


@register
class SparseMma(Method):
    """Layers of tiles with 2:4 inside, and of 2:4 alone, linear or convolutions."""

    needs: ClassVar[Mapping[str, str]] = {"cuda": "cuda-bindings", "torch": "torch"}

    def kernels(self) -> tuple[GpuKernel, ...]:
        """Lists tiles with 2:4 (``tvw``) and 2:4 alone (``nm24``), by instruction and type."""
        return tuple(
            GpuKernel(
                name=f"{dtype}_{kind}__cuda_{instruction}",
                method=self.name,
                dtype=dtype,
                contract=contract,
                nm=_HALF,
            )
            for instruction in _INSTRUCTIONS
            for kind, contract in (("tvw", "tw"), ("nm24", "nm"))
            for dtype in ("bf16", "f16")
        )

    @property
    def missing(self) -> tuple[str, ...]:
        """The compiler is a distribution without a module of its own."""
        return super().missing + nvrtc.missing()

    def facts(self) -> str:
        """Adds the compiler's version."""
        return f"{super().facts()}, {nvrtc.facts()}"

    def why_not(self, kernel: GpuKernel, shape: LayerShape, pattern: Pattern, chip: Chip) -> str:
        """Refuses what cannot be gathered 16 bytes at a time, groups, and what 32 bits do not count."""
        if chip.sparse_factor < 2:
            return f"{chip.name} has no sparse tensor cores"
        if _instruction(kernel) == "wgmma" and not chip.has_wgmma:
            return f"{chip.name} has no wgmma"
        if shape.groups != 1:
            return f"it runs convolutions without groups, but got {shape.groups}"
        if shape.in_channels % RUN:
            return f"inputs must be a multiple of {RUN}, 16 bytes, but got {shape.in_channels}"
        if kernel.contract == "tw" and pattern.unit_in % RUN:
            return f"runs of inputs must be a multiple of {RUN}, 16 bytes, but got {pattern.unit_in}"
        return _too_large(shape)

    def launches(
        self, kernel: GpuKernel, shape: LayerShape, pattern: Pattern, chip: Chip
    ) -> tuple[str, ...]:
        """Lists launch parameters that fit on a chip, most promising first."""
        return launches(_instruction(kernel), kernel.dtype, shape, pattern, chip)

    def prepare(
        self, kernel: GpuKernel, layer: GivenLayer, launch: str, device: torch.device
    ) -> Prepared:
        """Packs a layer and puts it on a GPU; there is nothing that would run it on a CPU."""
        from autosparse.kernels.gpu.methods.sparse_mma.run import SparseLayer

        variant = variant_of(_instruction(kernel), kernel.dtype, layer.shape, parsed(launch))
        return SparseLayer(variant, layer, device)

    def compiled(
        self, kernel: GpuKernel, shape: LayerShape, pattern: Pattern, launch: str, chip: Chip
    ) -> Resources:
        """Compiles a kernel for a layer, whatever its weights."""
        variant = variant_of(_instruction(kernel), kernel.dtype, shape, parsed(launch))
        return resources.of_cubin(
            nvrtc.cubin(build.source_of(variant), chip.target),
            threads=variant.threads,
            dynamic_bytes=variant.shared_bytes,
            function=build.FUNCTION,
        )

    def sources(self) -> tuple[Path, ...]:
        """Gives the kernels, and what packs for them and launches them."""
        here = Path(__file__).parent
        names = ("arguments", "build", "metadata", "packing", "run", "variants")
        shared = sorted(nvrtc.SHARED_HEADERS.glob("*.cuh"))
        return (*shared, *sorted((here / "cuda").iterdir()), *(here / f"{name}.py" for name in names))


def _instruction(kernel: GpuKernel) -> str:
    return kernel.name.rpartition("_")[2]


def _too_large(shape: LayerShape) -> str:
    reach = [dilation * extent for dilation, extent in zip(shape.dilation, shape.kernel, strict=True)]
    longest = max(shape.in_height, shape.in_width, *reach, *shape.padding)
    is_pointwise = shape.kernel == shape.stride == (1, 1) and shape.padding == (0, 0)
    if longest >= _MOST_EXTENT and not is_pointwise:
        return f"extents must be below {_MOST_EXTENT}, but got {longest}"
    inputs = shape.batch_size * shape.in_height * shape.in_width * shape.in_channels
    outputs = shape.batch_size * shape.out_height * shape.out_width * shape.out_channels
    if max(inputs, outputs) >= _MOST_ELEMENTS:
        return f"tensors must be below 2^31 elements, but got {max(inputs, outputs)}"
    return ""
