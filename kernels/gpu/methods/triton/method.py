"""Tiles by Triton: the method, its kernels, and what they can run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from autosparse.errors import NoKernel
from autosparse.kernels.gpu.chips import Chip
from autosparse.kernels.gpu.launch import Launch
from autosparse.kernels.gpu.method import (
    GivenLayer,
    GpuKernel,
    Method,
    Prepared,
    Resources,
    register,
)
from autosparse.kernels.gpu.methods.triton.geometry import of_layer, taps_of
from autosparse.patterns.pattern import Pattern
from autosparse.records import LayerShape

if TYPE_CHECKING:
    import torch


@register
class TritonTiles(Method):
    """Layers of tiles, and dense ones as a single tile, by kernels written in Triton."""

    needs: ClassVar[Mapping[str, str]] = {"triton": "triton", "torch": "torch"}

    def kernels(self) -> tuple[GpuKernel, ...]:
        """Lists tiles and dense layers in bfloat16 and float16, and tiles in 8-bit floats."""
        kinds = [("bf16", "tw"), ("f16", "tw"), ("bf16", "dense"), ("f16", "dense"), ("fp8", "tw")]
        return tuple(
            GpuKernel(
                name=f"{dtype}_{kind}__cuda_{self.name}",
                method=self.name,
                dtype=dtype,
                contract=kind,
            )
            for dtype, kind in kinds
        )

    def why_not(self, kernel: GpuKernel, shape: LayerShape, pattern: Pattern, chip: Chip) -> str:
        """Refuses convolutions in groups, chips without a type, and what 32 bits do not count."""
        if kernel.dtype == "fp8" and not chip.fp8_factor:
            return f"it multiplies 8-bit floats, which {chip.name} ({chip.target}) does not"
        if shape.groups != 1:
            return f"tiles are of convolutions without groups, but got {shape.groups}"
        try:
            of_layer(shape)
            taps_of(shape)
        except NoKernel as error:
            return str(error)
        return ""

    def launches(
        self, kernel: GpuKernel, shape: LayerShape, pattern: Pattern, chip: Chip
    ) -> tuple[str, ...]:
        """Lists launch parameters that fit on a chip, most promising first."""
        from autosparse.kernels.gpu.methods.triton.launches import launches

        return launches(shape, pattern, chip, element_bytes=1 if kernel.dtype == "fp8" else 2)

    def prepare(
        self, kernel: GpuKernel, layer: GivenLayer, launch: str, device: torch.device
    ) -> Prepared:
        """Packs a layer for a GPU or, on the CPU, for Triton's interpreter."""
        from autosparse.kernels.gpu.methods.triton.layer import DTYPES, TileWiseLayer

        return TileWiseLayer(layer, DTYPES[kernel.dtype], Launch.parse(launch), device)

    def compiled(
        self, kernel: GpuKernel, shape: LayerShape, pattern: Pattern, launch: str, chip: Chip
    ) -> Resources:
        """Compiles a kernel for a layer of a pattern, whatever its weights."""
        from autosparse.kernels.gpu.methods.triton.typical import typical_call

        return typical_call(kernel, shape, pattern, Launch.parse(launch)).compiled(chip).resources

    def sources(self) -> tuple[Path, ...]:
        """Gives the device's code, and what packs for it and launches it."""
        here = Path(__file__).parent
        return tuple(sorted((*here.glob("device/*.py"), *(here / f"{name}.py" for name in _DECIDE))))


_DECIDE = ("call", "geometry", "layer", "packing", "product")
