"""Limits of this machine, measured by running."""

from __future__ import annotations

from autosparse.errors import UsageError
from autosparse.kernels.native import UNSUPPORTED, native


def _probe(value: float, what: str) -> float:
    if value < 0:
        raise UsageError(
            f"{what}: threads must lie in 1..1024 and seconds in 0.01..60 (status {value:g})"
        )
    return value


def probe_f32_gflops(threads: int, seconds: float) -> float:
    """Measures fused multiply-adds on `threads` pinned threads, GFLOP/s in all."""
    return _probe(native().as_probe_f32_gflops(threads, seconds), "probe_f32_gflops")


def probe_bf16_gflops(threads: int, seconds: float) -> float | None:
    """Measures bf16 dot products, GFLOP/s in all; None where the CPU has none."""
    value = native().as_probe_bf16_gflops(threads, seconds)
    return None if value == UNSUPPORTED else _probe(value, "probe_bf16_gflops")


def probe_read_bytes_per_s(buffer_bytes: int, seconds: float) -> float:
    """Measures one thread reading a buffer of `buffer_bytes` (1 KiB to 8 GiB) over and over."""
    value: float = native().as_probe_read_bytes_per_s(buffer_bytes, seconds)
    if value < 0:
        raise UsageError(
            "buffer_bytes must lie in 2^10..2^33 and seconds in 0.01..60, "
            f"but got {buffer_bytes} and {seconds}"
        )
    return value
