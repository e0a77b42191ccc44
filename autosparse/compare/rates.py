"""Operations per second of whole runs, and their share of what this machine was measured to do."""

from __future__ import annotations

from collections.abc import Iterable

from autosparse.compare.records import Rates
from autosparse.devices.layer import BYTES
from autosparse.engine import LayerReport
from autosparse.records import CpuProfile, LayerInfo


def dense_flops(layers: Iterable[LayerInfo]) -> int:
    """Gives the operations of one run without zeros, in layers whose shape is known."""
    return sum(layer.shape.flops for layer in layers if layer.shape is not None)


def kept_flops(layers: Iterable[LayerReport]) -> int:
    """Gives the operations of the blocks that a compiled model keeps, in layers of known shape."""
    known = (layer for layer in layers if layer.shape is not None)
    return sum(round(layer.shape.flops * (1 - layer.sparsity)) for layer in known if layer.shape)


def dense_weights(layers: Iterable[LayerInfo]) -> int:
    """Gives the weight elements of such layers without zeros."""
    return sum(layer.shape.weights for layer in layers if layer.shape is not None)


def weight_share(weight_bytes: int, dense_weights: int, dtype: str) -> float:
    """Gives what weights take of what they would without zeros, in the same type.

    Biases and index lists count in the first; a kernel that stores transformed weights may hold more
    than there are.
    """
    return weight_bytes / (BYTES[dtype] * dense_weights)


def rates(kept: int, dense: int, median_us: float, limit_gflops: float | None) -> Rates:
    """Gives the rates of one run.

    Args:
        kept: operations of the blocks that are kept; all of them for a dense engine.
        dense: operations without zeros.
        median_us: time of one run.
        limit_gflops: what the machine can do; None if unknown.
    """
    kept_gflops = kept / median_us / 1e3
    return Rates(
        kept_gflops=kept_gflops,
        dense_gflops=dense / median_us / 1e3,
        limit_gflops=limit_gflops,
        limit_share=kept_gflops / limit_gflops if limit_gflops else None,
    )


def limit_gflops(cpu: CpuProfile, dtype: str, threads: int) -> float | None:
    """Gives what so many cores were measured to do in a type; None where it was never measured.

    Between one core and all usable ones nothing was measured: there it is so many times one core, but
    no more than all of them did together.
    """
    core, every = {
        "f32": (cpu.f32_gflops_core, cpu.f32_gflops_all),
        "bf16": (cpu.bf16_gflops_core, cpu.bf16_gflops_all),
    }.get(dtype, (None, None))
    if core is None or every is None:
        return None
    if threads >= cpu.cores_usable:
        return every
    return core if threads == 1 else min(threads * core, every)
