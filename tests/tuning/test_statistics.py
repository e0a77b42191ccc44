from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats

from autosparse.errors import UsageError
from autosparse.statistics import FEWEST_FOR_INTERVAL, interval_rank, median_ci


@pytest.mark.parametrize("count", [6, 7, 9, 10, 15, 20, 51, 100, 333, 1000, 1001, 2500])
def test_rank_is_the_largest_with_95_percent(count: int) -> None:
    rank = interval_rank(count)
    below = scipy.stats.binom.cdf([rank - 1, rank], count, 0.5) * 2
    assert below[0] <= 0.0505  # the normal approximation above 1000 may miss by a hair
    assert below[1] > 0.049


def test_known_small_tables() -> None:
    # Ranks as printed in textbook tables of the sign test's interval.
    assert [interval_rank(n) for n in (6, 8, 9, 10, 12, 15, 20, 25)] == [1, 1, 2, 2, 3, 4, 6, 8]
    assert median_ci([5, 1, 4, 2, 3, 6]) == (3.5, 1.0, 6.0)
    assert median_ci([7.0]) == (7.0, 7.0, 7.0)
    assert FEWEST_FOR_INTERVAL == 6


@pytest.mark.parametrize("count", [8, 21, 60])
@pytest.mark.parametrize(
    ("draw", "truth"),
    [
        (lambda g, s: g.normal(10, 2, s), 10.0),
        (lambda g, s: g.exponential(1.0, s), math.log(2)),
        (lambda g, s: 5 + g.standard_cauchy(s), 5.0),
        (lambda g, s: g.lognormal(0, 1.5, s), 1.0),
    ],
)
def test_interval_covers_the_true_median(draw, truth: float, count: int) -> None:
    samples = draw(np.random.default_rng(count), (2000, count))
    hits = sum(low <= truth <= high for _, low, high in map(median_ci, samples))
    # Three standard errors of 2000 draws at 95 % are 1.5 points.
    assert hits / 2000 >= 0.935


def test_interval_narrows_with_the_root_of_the_count() -> None:
    generator = np.random.default_rng(1)
    _, low, high = median_ci(generator.normal(0, 1, 400))
    _, low4, high4 = median_ci(generator.normal(0, 1, 6400))
    assert 2 < (high - low) / (high4 - low4) < 8


@pytest.mark.parametrize("bad", [[], [1.0, math.nan], [math.inf]])
def test_refuses_what_has_no_median(bad: list[float]) -> None:
    with pytest.raises(UsageError, match="at least one sample"):
        median_ci(bad)
