"""The reduction: no optimum may be lost."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from autosparse.searching import core


@pytest.mark.parametrize("seed", range(30))
def test_every_optimum_survives(seed: int) -> None:
    random = np.random.default_rng(seed)
    sizes = random.integers(1, 6, size=5)
    # Small whole numbers, so that several optima tie.
    costs = [random.integers(0, 6, n).astype(float) for n in sizes]
    latencies = [random.integers(1, 9, n).astype(float) for n in sizes]
    least = sum(row.min() for row in latencies)
    for extra in (0, 3, 9):
        capacity = float(least + extra)
        found = [
            (sum(costs[row][i] for row, i in enumerate(picks)), picks)
            for picks in itertools.product(*(range(n) for n in sizes))
            if sum(latencies[row][i] for row, i in enumerate(picks)) <= capacity
        ]
        best = min(cost for cost, _ in found)
        kept = core.reduce(costs, latencies, capacity)
        for cost, picks in found:
            if cost == best:
                assert all(kept[row][i] for row, i in enumerate(picks))


def test_most_options_go() -> None:
    random = np.random.default_rng(0)
    sparsity = np.linspace(0, 1, 30)
    frailty = random.uniform(0.5, 2, 50)
    costs = [f * sparsity**3 * random.uniform(0.95, 1.05, 30) for f in frailty]
    latencies = [1.05 - sparsity for _ in frailty]
    kept = core.reduce(costs, latencies, 25.0)
    assert [len(mask) for mask in kept] == [30] * 50
    assert sum(int(mask.sum()) for mask in kept) < 0.2 * 50 * 30
