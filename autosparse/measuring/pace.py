"""How fast the processors in use are at this moment, as three probes of some hundred microseconds tell.

A guest of a hypervisor may share its cores with other guests, or its own processors may be two threads
of one core for a while. Nothing in the machine says so, and no counter does: time passes as ever, but
whatever runs takes up to twice as long. Arithmetic on vectors does not tell: it tells how the core is
clocked, but a neighbour seldom wants the same units. He may want the core's caches, and what he always
takes is a share of the instructions that it starts. In twenty seconds on a Xeon with AMX, ResNet-20 on
one thread took at the median 1.6 (f32) and 2.0 (bf16) times as long as at its best; beside it vectors
kept 92 % of their best rate, the cache 80 %, and integer instructions 64 %.
So all three are probed, on all threads at once, and the slowest thread counts, as in a model
whose threads wait for each other.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from autosparse.hardware.caches import told_cache_sizes
from autosparse.hardware.cores import affinity
from autosparse.kernels.probes import (
    probe_slowest_gflops,
    probe_slowest_integers_per_s,
    probe_slowest_read_bytes_per_s,
)
from autosparse.storage.serial import Record, added

RAMP_S = 0.012
"""Processors that have rested need up to so long before they are as fast as they can be."""

SLOWED = 0.9
"""Processors that do less than this much of what they were seen to do are slowed by somebody."""

# Of the figures that a host was seen with, the one that counts as what it can do: the very best may be
# a lucky one, and a host that is slowed for most of the time still shows it now and then.
_FULL_QUANTILE = 0.95
# More than a half, so that a neighbour who shares the cache shows, and less than all of it.
_NEAR_SHARE = 5 / 8
_NEAR_BYTES = (16 << 10, 1 << 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace(Record):
    """What the slowest of the threads in use does while all of them work.

    Attributes:
        gflops: GFLOP/s of fused multiply-adds.
        gbytes_per_s: GB/s of reading from its core's second-level cache.
        gintegers_per_s: integer instructions per nanosecond; 0 where that was not looked at.
    """

    gflops: float
    gbytes_per_s: float
    gintegers_per_s: float = added(0.0)

    @property
    def figures(self) -> tuple[float, float, float]:
        """All of them, in the order of the fields."""
        return self.gflops, self.gbytes_per_s, self.gintegers_per_s

    def best(self, other: Pace) -> Pace:
        """Gives the better figures of two."""
        return Pace.of(map(max, self.figures, other.figures))

    def over(self, full: Pace) -> float:
        """Gives the least of the figures over what it can be, of those that are known of both."""
        pairs = zip(self.figures, full.figures, strict=True)
        return min(own / possible for own, possible in pairs if own > 0 and possible > 0)

    @classmethod
    def of(cls, figures: Iterable[float]) -> Pace:
        """Makes a pace of figures in the order of the fields."""
        gflops, gbytes_per_s, gintegers_per_s = figures
        return cls(gflops=gflops, gbytes_per_s=gbytes_per_s, gintegers_per_s=gintegers_per_s)


UNLIMITED = Pace(gflops=0.0, gbytes_per_s=0.0)
"""Of a host of which nothing is known but its own probes."""

PaceProbe = Callable[[int], Pace]
"""Takes a number of threads."""


def probe_pace(threads: int) -> Pace:
    """Probes this host on so many threads; under a millisecond."""
    return Pace(
        gflops=probe_slowest_gflops(threads),
        gbytes_per_s=probe_slowest_read_bytes_per_s(threads, _near_bytes()) / 1e9,
        gintegers_per_s=probe_slowest_integers_per_s(threads) / 1e9,
    )


def full_pace(paces: Sequence[Pace]) -> Pace | None:
    """Gives what a host can do by what it was seen to do; None if it was never seen."""
    if not paces:
        return None
    columns = zip(*(pace.figures for pace in paces), strict=True)
    known = ([figure for figure in column if figure > 0] for column in columns)
    return Pace.of(float(np.quantile(column, _FULL_QUANTILE)) if column else 0.0 for column in known)


@functools.cache
def _near_bytes() -> int:
    least, most = _NEAR_BYTES
    level1, level2, _ = told_cache_sizes(affinity()[0])
    return min(max(int(_NEAR_SHARE * (level2 or 2 * level1)), least), most)
