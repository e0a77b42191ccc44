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


def probe_handover_ns(threads: int, slices: int = 64) -> float:
    """Measures how long a cache line takes from one processor to the next, nanoseconds.

    As many pinned threads as asked for hand it round; the median counts, over slices of some
    microseconds each. With two threads twice this figure is what is called the round trip.

    Raises:
        UsageError: fewer than two threads, or fewer than nine slices.
    """
    value: float = native().as_probe_handover_ns(threads, slices)
    if value < 0:
        raise UsageError(
            f"threads must lie in 2..1024 and slices in 9..10^6, but got {threads} and {slices}"
        )
    return value


def probe_slowest_gflops(threads: int, slices: int = 9) -> float:
    """Measures fused multiply-adds on pinned threads that compute at once, GFLOP/s of the slowest.

    Each thread counts by its median over slices of some ten microseconds.

    Raises:
        UsageError: no threads, or no slices.
    """
    return _slowest(native().as_probe_slowest_gflops(threads, slices), threads, slices)


def probe_slowest_integers_per_s(threads: int, slices: int = 9) -> float:
    """Measures integer instructions on pinned threads that compute at once, per second of the slowest.

    They are as many and as independent as a core can start, so that another thread of the same core
    shows, whatever it computes.

    Raises:
        UsageError: no threads, or no slices.
    """
    return _slowest(native().as_probe_slowest_integers_per_s(threads, slices), threads, slices)


def _slowest(value: float, threads: int, slices: int) -> float:
    if value < 0:
        raise UsageError(
            f"threads must lie in 1..1024 and slices in 1..10^6, but got {threads} and {slices}"
        )
    return value


def probe_slowest_read_bytes_per_s(threads: int, buffer_bytes: int, slices: int = 9) -> float:
    """Measures pinned threads that each read a buffer of their own at once, bytes/s of the slowest.

    Raises:
        UsageError: no threads, no slices, or a buffer below 1 KiB or above 16 MiB.
    """
    value: float = native().as_probe_slowest_read_bytes_per_s(threads, slices, buffer_bytes)
    if value < 0:
        raise UsageError(
            "threads must lie in 1..1024, slices in 1..10^6 and buffer_bytes in 2^10..2^24, "
            f"but got {threads}, {slices} and {buffer_bytes}"
        )
    return value


def probe_read_bytes_per_s(buffer_bytes: int, seconds: float) -> float:
    """Measures one thread reading a buffer of `buffer_bytes` (1 KiB to 8 GiB) over and over."""
    value: float = native().as_probe_read_bytes_per_s(buffer_bytes, seconds)
    if value < 0:
        raise UsageError(
            "buffer_bytes must lie in 2^10..2^33 and seconds in 0.01..60, "
            f"but got {buffer_bytes} and {seconds}"
        )
    return value
