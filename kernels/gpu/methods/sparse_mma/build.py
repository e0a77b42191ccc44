"""Sources of the kernels as they are compiled, for a variant of them."""

from __future__ import annotations

import functools
from pathlib import Path

from autosparse.kernels.gpu.methods.sparse_mma.variants import Variant
from autosparse.kernels.gpu.nvrtc import SHARED_HEADERS, Source

FOLDER = Path(__file__).parent / "cuda"
FUNCTION = "sparse_layer"


@functools.lru_cache(maxsize=64)
def source_of(variant: Variant) -> Source:
    """Gives what is compiled for a variant."""
    shared = [SHARED_HEADERS / "primitives.cuh", SHARED_HEADERS / "activations.cuh"]
    headers: list[Path | tuple[str, str]] = [*shared, FOLDER / "layer.cuh"]
    if variant.instruction == "wgmma":
        pixels = variant.launch.bm if variant.launch.bn >= 128 else variant.launch.bm // 2
        headers.append(("multiply.cuh", multiply_source(variant.dtype, pixels)))
    return Source.read(FOLDER / f"{variant.instruction}.cu", headers, variant.arguments)


def multiply_source(dtype: str, pixels: int) -> str:
    """Writes the one instruction that names as many registers as its shape has.

    Source: NVIDIA, PTX ISA 9.1, "wgmma.mma_async.sp" (9.7.15.6.3): sums, descriptors of A and B, words
    and selector; adds to the sums; negates and transposes neither.
    """
    count = pixels // 2
    sums = ", ".join(f"%{at}" for at in range(count))
    registers = ", ".join(f'"+f"(d[{at}])' for at in range(count))
    return f"""#pragma once

template <class T, int PIXELS, int SELECTOR>
DEVICE void multiply_sparse(float (&d)[PIXELS / 2], u64 a, u64 b, u32 words) {{
    static_assert(PIXELS == {pixels}, "written for another shape");
    asm volatile(
        "wgmma.mma_async.sp.sync.aligned.m64n{pixels}k32.f32.{dtype}.{dtype} "
        "{{{sums}}}, %{count}, %{count + 1}, %{count + 2}, %{count + 3}, 1, 1, 1, 0, 0;"
        : {registers}
        : "l"(a), "l"(b), "r"(words), "n"(SELECTOR));
}}
"""
