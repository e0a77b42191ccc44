"""Sources of the kernels as they are compiled, for a variant of them."""

from __future__ import annotations

from pathlib import Path

from autosparse.kernels.gpu.methods.sparse_mma.variants import Variant
from autosparse.kernels.gpu.nvrtc import SHARED_HEADERS, Source

FOLDER = Path(__file__).parent / "cuda"
FUNCTION = "sparse_layer"


def source_of(variant: Variant) -> Source:
    """Gives what is compiled for a variant."""
    headers = [
        SHARED_HEADERS / "primitives.cuh",
        SHARED_HEADERS / "activations.cuh",
        FOLDER / "layer.cuh",
    ]
    return Source.read(FOLDER / f"{variant.instruction}.cu", headers, variant.arguments)
