"""Robust statistics of repeated timings: medians with intervals that assume no distribution."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autosparse.errors import UsageError

Samples = Sequence[float] | NDArray[Any]

# Fewer samples than this cannot carry a 95 % interval of the median: 1 - 2 * 0.5**5 = 93.75 %.
FEWEST_FOR_INTERVAL = 6
# Above this many samples the normal approximation of the binomial gives the same ranks.
_EXACT_UP_TO = 1000


@functools.lru_cache(maxsize=4096)
def interval_rank(count: int) -> int:
    """Gives the rank k such that the k-th smallest and k-th largest sample enclose the median.

    The largest k >= 1 with ``2 * P(Binomial(count, 1/2) < k) <= 0.05``; 1 where there is none.
    """
    if count > _EXACT_UP_TO:
        return math.floor(count / 2 - 1.959964 * math.sqrt(count) / 2 + 0.5)
    # Twice the lower tail in units of 2**-count, kept below 1/20 of the whole, in exact integers.
    tail, rank = 0, 0
    while True:
        tail += math.comb(count, rank)
        if 40 * tail > 1 << count:
            return max(rank, 1)
        rank += 1


def median_ci(samples: Samples) -> tuple[float, float, float]:
    """Gives the median and its distribution-free 95 % confidence interval.

    The interval runs between two order statistics, so it holds for any continuous distribution of
    independent samples. With fewer than `FEWEST_FOR_INTERVAL` samples it is the whole range, which
    covers less than 95 %.

    Args:
        samples: at least one finite number, any unit.

    Returns:
        Median, lower end, upper end, in the unit of the samples.

    Raises:
        UsageError: no samples, or one that is not finite.

    Source: Conover, "Practical Nonparametric Statistics", 3rd ed., section 3.2, for the quantile 1/2.
    """
    ordered = np.sort(np.asarray(samples, dtype=np.float64).ravel())
    if ordered.size == 0 or not np.isfinite(ordered).all():
        raise UsageError(
            f"a median needs at least one sample, all finite, but got {ordered.size} "
            f"({ordered.size - int(np.isfinite(ordered).sum())} not finite)"
        )
    rank = interval_rank(int(ordered.size))
    middle = ordered.size // 2
    median = ordered[middle] if ordered.size % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    return float(median), float(ordered[rank - 1]), float(ordered[-rank])
