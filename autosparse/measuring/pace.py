"""How fast the processors in use are at this moment, as two probes of some hundred microseconds tell.

A guest of a hypervisor may share its cores with other guests, or its own processors may be two threads
of one core for a while. Nothing in the machine says so, and no counter does: time passes as ever, but
whatever runs takes up to twice as long. Arithmetic alone does not tell either, as a neighbour seldom
wants the same units; it does want the core's caches. So both are probed, on all threads at once, and
the slowest thread counts, as in a model whose threads wait for each other.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from autosparse.hardware.caches import told_cache_sizes
from autosparse.hardware.cores import affinity
from autosparse.kernels.probes import probe_slowest_gflops, probe_slowest_read_bytes_per_s
from autosparse.storage.serial import Record

RAMP_S = 0.012
"""Processors that have rested need up to so long before they are as fast as they can be."""

SLOWED = 0.9
"""Processors that do less than this much of what they were seen to do are slowed by somebody."""

# Of the figures that a host was seen with, the one that counts as what it can do: the very best may be
# a lucky one, and a host that is slowed for most of the time still shows it now and then.
_FULL_QUANTILE = 0.9
# More than a half, so that a neighbour who shares the cache shows, and less than all of it.
_NEAR_SHARE = 5 / 8
_NEAR_BYTES = (16 << 10, 1 << 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace(Record):
    """What the slowest of the threads in use does while all of them work.

    Attributes:
        gflops: GFLOP/s of fused multiply-adds.
        gbytes_per_s: GB/s of reading from its core's second-level cache.
    """

    gflops: float
    gbytes_per_s: float

    def with_gflops(self, gflops: float) -> Pace:
        """Gives this pace with other arithmetic."""
        return dataclasses.replace(self, gflops=gflops)

    def best(self, other: Pace) -> Pace:
        """Gives the better figures of two."""
        return Pace(
            gflops=max(self.gflops, other.gflops),
            gbytes_per_s=max(self.gbytes_per_s, other.gbytes_per_s),
        )

    def over(self, full: Pace) -> float:
        """Gives the lesser of both figures over what they can be."""
        return min(self.gflops / full.gflops, self.gbytes_per_s / full.gbytes_per_s)


PaceProbe = Callable[[int], Pace]
"""Takes a number of threads."""


def probe_pace(threads: int) -> Pace:
    """Probes this host on so many threads; under a millisecond."""
    return Pace(
        gflops=probe_slowest_gflops(threads),
        gbytes_per_s=probe_slowest_read_bytes_per_s(threads, _near_bytes()) / 1e9,
    )


def full_pace(paces: Sequence[Pace]) -> Pace | None:
    """Gives what a host can do by what it was seen to do; None if it was never seen."""
    if not paces:
        return None
    return Pace(
        gflops=float(np.quantile([pace.gflops for pace in paces], _FULL_QUANTILE)),
        gbytes_per_s=float(np.quantile([pace.gbytes_per_s for pace in paces], _FULL_QUANTILE)),
    )


@functools.cache
def _near_bytes() -> int:
    least, most = _NEAR_BYTES
    level1, level2, _ = told_cache_sizes(affinity()[0])
    return min(max(int(_NEAR_SHARE * (level2 or 2 * level1)), least), most)
