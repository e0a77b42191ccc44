"""Measured limits of this machine: arithmetic and bandwidth that no kernel can exceed."""

from __future__ import annotations

import logging
from collections.abc import Callable

from autosparse import hardware
from autosparse.hardware import MachineLimits
from autosparse.kernels import binding
from autosparse.measuring.lock import measuring
from autosparse.progress import Progress
from autosparse.records import CpuProfile, HardwareProfile
from autosparse.storage import paths

logger = logging.getLogger(__name__)

PROBE_S = 0.05
REPEATS = 3  # the best of these counts: a limit is what the machine can do, not what it did meanwhile
_LEAST_DRAM_BYTES = 128 << 20
_MOST_DRAM_BYTES = 512 << 20


def profile(
    *, refresh: bool = False, keep: bool = True, progress: Progress | None = None
) -> HardwareProfile:
    """Describes this host with its measured limits; they are measured once per `hardware_id` and kept.

    Args:
        refresh: measure again even where figures exist.
        keep: write new figures to the home folder; False writes nothing at all.
        progress: told of each probe.

    Raises:
        RunError: the home folder cannot be made or written.
        MissingDependency: the compiled kernels cannot be loaded.
        Stopped: a stop was requested.
    """
    known = hardware.detect()
    if known.cpu.f32_gflops_core is not None and not refresh:
        return known
    if keep:
        paths.home()  # refused before anything is measured
    progress = progress or Progress()
    with measuring("the limits of the machine", progress):
        limits = measure(known.cpu, progress)
    if keep:
        hardware.save_limits(known.hardware_id, limits)
    return limits.apply(known)


def measure(cpu: CpuProfile, progress: Progress) -> MachineLimits:
    """Measures arithmetic on one core and on all usable ones, and reading from each memory level."""
    sizes = buffer_sizes(cpu)
    with progress.step("measuring machine limits", 4 + len(sizes)) as step:

        def best(probe: Callable[[], float | None]) -> float | None:
            figures = [figure for _ in range(REPEATS) if (figure := probe()) is not None]
            step.advance()
            return max(figures, default=None)

        core, every = 1, cpu.cores_usable
        f32_core = best(lambda: binding.probe_f32_gflops(core, PROBE_S))
        f32_all = best(lambda: binding.probe_f32_gflops(every, PROBE_S))
        bf16_core = best(lambda: binding.probe_bf16_gflops(core, PROBE_S))
        bf16_all = best(lambda: binding.probe_bf16_gflops(every, PROBE_S))
        reads = {level: best(lambda: _read_gbytes_per_s(size)) for level, size in sizes.items()}  # noqa: B023
    assert f32_core is not None
    assert f32_all is not None
    logger.info("measured %.1f GFLOP/s (f32, one core), %.1f on %d", f32_core, f32_all, every)
    return MachineLimits(
        f32_gflops_core=f32_core,
        f32_gflops_all=f32_all,
        bf16_gflops_core=bf16_core,
        bf16_gflops_all=bf16_all,
        read_gbytes_per_s={level: rate for level, rate in reads.items() if rate is not None},
    )


def _read_gbytes_per_s(size_bytes: int) -> float:
    return binding.probe_read_bytes_per_s(size_bytes, PROBE_S) / 1e9


def buffer_sizes(cpu: CpuProfile) -> dict[str, int]:
    """Gives a buffer size per memory level: half of it, and well beyond the level above."""
    largest = max(cpu.l3_bytes, cpu.l2_bytes)
    sizes = {
        "l1": cpu.l1d_bytes // 2,
        "l2": cpu.l2_bytes // 2,
        "l3": cpu.l3_bytes // 2,
        "dram": min(max(4 * largest, _LEAST_DRAM_BYTES), _MOST_DRAM_BYTES),
    }
    present = {level: size for level, size in sizes.items() if size > 0}
    if (
        present.get("l3", cpu.l2_bytes) < cpu.l2_bytes
    ):  # an L3 no larger than L2 holds nothing of its own
        del present["l3"]
    return present
