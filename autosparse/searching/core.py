"""Shrinks a multiple-choice knapsack before the solver sees it: what no optimum can contain goes.

For a price on latency, choosing in every layer the option of least cost plus price times latency bounds
the optimum from below. An option whose choice would lift this bound above the cost of a plan already in
hand is in no optimum. The best price leaves a handful of options per layer, often one.

Source: Lagrangian reduction, Pisinger, "A minimal algorithm for the multiple-choice knapsack problem",
1995, section 4. Differs: all layers at once with numpy, and no expanding core: the rest goes to HiGHS.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_HALVINGS = 60


def reduce(
    costs: Sequence[Floats], latencies: Sequence[Floats], capacity: float
) -> list[NDArray[np.bool_]]:
    """Says which options may be in an optimum.

    Args:
        costs: per layer, the cost of each option.
        latencies: per layer, the latency of each option.
        capacity: what the chosen latencies may sum to; some choice meets it.

    Returns:
        Per layer a mask of the options to keep; every optimum, ties included, lies within.
    """
    cost, latency = _padded(costs, np.inf), _padded(latencies, 0.0)
    price = _best_price(cost, latency, capacity)
    priced = cost + price * latency
    bound = float(priced.min(axis=1).sum()) - price * capacity
    # What is in hand must meet the capacity however the caller rounds its sums.
    inside = capacity * (1 - 1e-12)
    in_hand = _improved(cost, latency, inside, _feasible_picks(cost, latency, inside, price))
    lift = priced - priced.min(axis=1, keepdims=True)
    # The allowance covers the rounding of sums; it only ever keeps more.
    limit = in_hand - bound + 1e-9 * (abs(in_hand) + abs(bound) + price * capacity) + 1e-9
    return [lift[row, : len(options)] <= limit for row, options in enumerate(costs)]


def _padded(rows: Sequence[Floats], fill: float) -> Floats:
    table = np.full((len(rows), max(map(len, rows))), fill)
    for index, row in enumerate(rows):
        table[index, : len(row)] = row
    return table


def _total(table: Floats, picks: NDArray[np.int64]) -> float:
    return float(table[np.arange(len(table)), picks].sum())


def _best_price(cost: Floats, latency: Floats, capacity: float) -> float:
    """Finds the least price, to many digits, at which the cheapest choice meets the capacity."""
    low, high = 0.0, 1.0
    while _total(latency, (cost + high * latency).argmin(axis=1)) > capacity and high < 1e15:
        low, high = high, high * 4
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _total(latency, (cost + middle * latency).argmin(axis=1)) > capacity:
            low = middle
        else:
            high = middle
    return high


def _feasible_picks(cost: Floats, latency: Floats, capacity: float, price: float) -> NDArray[np.int64]:
    picks: NDArray[np.int64] = (cost + price * latency).argmin(axis=1)
    if _total(latency, picks) > capacity:
        picks = np.where(np.isinf(cost), np.inf, latency).argmin(axis=1)
    return picks


def _improved(cost: Floats, latency: Floats, capacity: float, picks: NDArray[np.int64]) -> float:
    """Spends what is left of the capacity, the best single swap at a time; gives the cost reached."""
    rows = np.arange(len(cost))
    while True:
        now_cost, now_latency = cost[rows, picks], latency[rows, picks]
        slack = capacity - float(now_latency.sum())
        gain = now_cost[:, None] - cost
        gain[latency - now_latency[:, None] > slack] = 0.0
        row, column = np.unravel_index(int(gain.argmax()), gain.shape)
        if gain[row, column] <= 0:
            return float(now_cost.sum())
        picks = picks.copy()
        picks[row] = column
