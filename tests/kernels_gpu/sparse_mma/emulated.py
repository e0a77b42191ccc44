"""Layers on the emulated machine."""

from __future__ import annotations

import ctypes

import numpy as np

from autosparse.kernels.gpu.method import GivenLayer
from autosparse.kernels.gpu.methods.sparse_mma.arguments import Args, args_of
from autosparse.kernels.gpu.methods.sparse_mma.packing import pack, to_bits
from autosparse.kernels.gpu.methods.sparse_mma.variants import Variant
from tests.kernels_gpu.emulated import (
    Machine,
    Policy,
    aligned,
    guarded,
    inside,
    poisoned,
    values_of,
    written,
)

KERNELS = {"mma": "Mma", "wgmma": "Wgmma"}


class Emulator(Machine):
    """Variants of the sparse kernels."""

    def run(
        self,
        variant: Variant,
        layer: GivenLayer,
        x: np.ndarray,
        residual: np.ndarray | None = None,
        *,
        grid: int = 3,
        policy: Policy | None = None,
        space: str = "sound",
    ) -> np.ndarray:
        """Computes a layer: ``[pixels, outputs]``, from values that the dtype can hold.

        `grid` counts clusters where blocks come in such, `space` is the sources' namespace.

        Raises:
            AssertionError: the machine stopped, or something outside of the output was written.
        """
        packed = pack(layer, variant.dtype, variant.launch.bn, image=variant.instruction == "wgmma")
        args = args_of(layer.shape, len(packed.parts), variant.launch.bm * variant.cluster)
        names = ("blocks", "runs", "parts", "outputs", "bias")
        arrays = {name: aligned(getattr(packed, name)) for name in names}
        for name, array in arrays.items():
            setattr(args, name, array.ctypes.data)
        inputs = guarded(to_bits(x, variant.dtype))
        added = guarded(to_bits(np.zeros(1) if residual is None else residual, variant.dtype))
        out = poisoned(args.pixels * args.out_channels)
        args.x, args.residual, args.out = inside(inputs), inside(added), inside(out)
        self.launch(name_of(variant, space), args, grid * variant.cluster, variant.cluster, policy)
        return values_of(written(out), variant.dtype).reshape(args.pixels, -1)


def name_of(variant: Variant, space: str = "sound") -> str:
    return f"{space} {KERNELS[variant.instruction]} {variant.arguments}"


def entry(variant: Variant, space: str = "sound") -> str:
    """Gives the line that makes a variant an entry."""
    return f"AS_ENTRY({space}, {KERNELS[variant.instruction]}, {variant.arguments})"


def args_bytes(emulator: Emulator) -> tuple[int, int]:
    """Gives the size of the arguments as the source and as Python have it."""
    return emulator.native.emulated_args_bytes(), ctypes.sizeof(Args)
