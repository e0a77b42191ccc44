"""The exact optimum of the additive table: one option per layer, least loss within a latency budget.

A multiple-choice knapsack, solved to proven optimality by HiGHS (`scipy.optimize.milp`). Options that
another option of the same layer dominates are left out first, then those that bounds exclude (`core`);
no optimum needs them.

Source: the integer program over a latency table is that of hardware-aware pruning by knapsack
(Shen et al., "Structural Pruning via Latency-Saliency Knapsack", 2022, equation 5).
Differs: solved exactly instead of by a greedy dynamic program, over (block size, sparsity) options
instead of channel groups.
"""

from __future__ import annotations

import ctypes
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, OptimizeResult, milp
from scipy.sparse import csr_array

from autosparse.errors import AutosparseError, BudgetInfeasible, UsageError
from autosparse.plans.plan import Plan
from autosparse.records import LatencyOption, Record
from autosparse.searching import core
from autosparse.searching.problem import Problem
from autosparse.units import format_duration

# Losses are scaled so that the greatest is this, and a sparse layer costs the tie-break in addition:
# well above the solver's absolute tolerance of 1e-6 and the rounding of sums of doubles (some 1e-8),
# and a billionth of the greatest loss, far below what any data set can resolve.
_LOSS_SCALE = 1e6
_TIE_BREAK = 1e-3
# The budget row is scaled to this right-hand side: the solver's absolute tolerance of 1e-6 then admits
# plans over budget by one part in 1e10, which the exact check afterwards rejects and cuts off.
_ROW_SCALE = 1e4
_MAX_CUTS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Feasibility(Record):
    """What latencies the table can reach: the certificate that a budget can or cannot be met.

    Attributes:
        fastest_us: the fastest assignment.
        dense_us: everything dense, in f32 where the table has it.
        slowest_us: the slowest assignment.
        smallest_feasible_us: the least budget that some assignment meets; no smaller one can be met.
        budget_us: the budget asked for, None without one.
        feasible: whether it can be met.
    """

    fastest_us: float
    dense_us: float
    slowest_us: float
    smallest_feasible_us: float
    budget_us: float | None
    feasible: bool


@dataclass(frozen=True, slots=True)
class FrontPoint:
    """One point of the predicted front."""

    plan: Plan
    us: float
    loss: float


@dataclass(frozen=True, slots=True)
class _Item:
    """One option with its cost in solver units."""

    option: LatencyOption
    us: float
    cost: float


def solve(problem: Problem, budget_us: float, *, note: str = "knapsack") -> Plan:
    """Finds the plan of least predicted loss within a budget.

    Of plans with equal loss (to a billionth of the greatest single loss per layer) it takes one with
    the fewest sparse layers. Every dtype of the table is solved by itself, so that no plan mixes two;
    the better plan wins, of equally good ones the faster.

    Args:
        problem: measured options and losses.
        budget_us: latency that the predicted one must not exceed.
        note: what the plan's note shall say.

    Raises:
        BudgetInfeasible: no assignment meets the budget; carries the smallest that one does.
    """
    certificate = feasibility(problem, budget_us)
    if not certificate.feasible:
        raise infeasible(certificate)
    parts = [problem.of(dtype) for dtype in problem.dtypes]
    solved = [
        (part, _solve_one_dtype(part, budget_us, note))
        for part in parts
        if feasibility(part, budget_us).feasible
    ]
    if len(solved) == 1:
        return solved[0][1]
    scale = _loss_scale(problem)
    return min(solved, key=lambda pair: _price(pair[0], pair[1], scale))[1]


def _price(problem: Problem, plan: Plan, scale: float) -> tuple[float, float]:
    """Prices a whole plan as the solver does its layers; then by latency."""
    sparse = sum(not choice.pattern.is_dense for choice in plan.layers.values())
    cost = scale * problem.predicted_loss(plan) + sparse * _TIE_BREAK
    return cost, problem.predicted_us(plan)


def _solve_one_dtype(problem: Problem, budget_us: float, note: str) -> Plan:
    scale = _loss_scale(problem)
    menus = [_menu(problem, layer, scale) for layer in problem.layers]
    best = [len(menu) - 1 for menu in menus]  # the slowest of an undominated menu costs the least
    if _total_us(problem, menus, best) > budget_us:
        best = _solve_exactly(problem, menus, budget_us)
    chosen = {
        layer: menu[pick].option.choice
        for layer, menu, pick in zip(problem.layers, menus, best, strict=True)
    }
    return problem.plan(chosen, note)


def fastest(problem: Problem) -> tuple[Plan, float]:
    """Finds the fastest plan, and of equally fast ones the most accurate.

    Returns:
        The plan and its predicted latency in microseconds.
    """
    found = [_fastest_in_one_dtype(problem.of(dtype)) for dtype in problem.dtypes]
    plan = min(found, key=lambda plan: (problem.predicted_us(plan), problem.predicted_loss(plan)))
    return plan, problem.predicted_us(plan)


def _fastest_in_one_dtype(problem: Problem) -> Plan:
    scale = _loss_scale(problem)
    chosen = {layer: _menu(problem, layer, scale)[0].option.choice for layer in problem.layers}
    return problem.plan(chosen, "fastest")


def feasibility(problem: Problem, budget_us: float | None = None) -> Feasibility:
    """Says what the table can reach, and if a budget (by default the problem's own) is in reach."""
    budget = problem.budget_us if budget_us is None else budget_us
    parts = [problem.of(dtype) for dtype in problem.dtypes]
    least = min(_sum_us(part, min) for part in parts)
    return Feasibility(
        fastest_us=least,
        dense_us=problem.predicted_us(problem.dense_plan()),
        slowest_us=max(_sum_us(part, max) for part in parts),
        smallest_feasible_us=least,
        budget_us=budget,
        feasible=budget is None or least <= budget,
    )


def infeasible(certificate: Feasibility) -> BudgetInfeasible:
    """Makes the error for a budget out of reach."""
    asked = format_duration(certificate.budget_us or 0.0)
    least = format_duration(certificate.smallest_feasible_us, up=True)
    return BudgetInfeasible(
        f"a latency budget must be within reach of the measured options, but got {asked}: the fastest "
        f"assignment takes {least} (dense {format_duration(certificate.dense_us)}); ask for {least} or "
        "more, or widen the search space",
        certificate.smallest_feasible_us / 1e3,
    )


def front(problem: Problem, points: int) -> tuple[FrontPoint, ...]:
    """Finds exact optima at a sweep of budgets from the fastest plan to the most accurate one.

    The budgets are equally spaced; one that an optimum found at a larger budget already meets needs no
    solving of its own.

    Args:
        problem: measured options and losses. Its budget plays no part.
        points: budgets, at least 2.

    Returns:
        Plans that no other of them dominates, fastest first; at most `points`.

    Raises:
        UsageError: fewer than two points.
    """
    if points < 2:
        raise UsageError(f"a front must have at least 2 points, but got {points}")
    found = [_point(problem, solve(problem, math.inf))]
    low, high = feasibility(problem).fastest_us, found[0].us
    for budget in np.linspace(high, low, points)[1:]:
        # The last one is the fastest itself: linspace may round it below what is reachable.
        budget = max(float(budget), low)
        if found[-1].us > budget:
            found.append(_point(problem, solve(problem, budget)))
    ordered = sorted(found, key=lambda point: (point.us, point.loss))
    return tuple(p for p, before in zip(ordered, [None, *ordered], strict=False) if _gains(p, before))


def _gains(point: FrontPoint, before: FrontPoint | None) -> bool:
    return before is None or point.loss < before.loss


def _point(problem: Problem, plan: Plan) -> FrontPoint:
    return FrontPoint(plan, problem.predicted_us(plan), problem.predicted_loss(plan))


def _sum_us(problem: Problem, pick: Callable[[Iterable[float]], float]) -> float:
    """Composes the fastest or slowest options of one dtype."""
    return problem.total_us(
        [pick(option.median_us for option in problem.options[layer]) for layer in problem.layers]
    )


def _menu(problem: Problem, layer: str, scale: float) -> list[_Item]:
    """Prices one layer's options and leaves out the dominated ones, fastest first."""
    items = []
    for option in problem.options[layer]:
        tie = 0.0 if option.choice.pattern.is_dense else _TIE_BREAK
        cost = scale * problem.loss(layer, option.choice) + tie
        items.append(_Item(option, option.median_us, cost))
    return undominated(items)


def undominated(items: Sequence[_Item]) -> list[_Item]:
    """Keeps the items that are cheaper than every faster one, fastest first."""
    kept: list[_Item] = []
    for item in sorted(items, key=lambda item: (item.us, item.cost)):
        if not kept or item.cost < kept[-1].cost:
            kept.append(item)
    return kept


def _loss_scale(problem: Problem) -> float:
    losses = (abs(loss) for table in problem.losses.values() for loss in table.values())
    return _LOSS_SCALE / (max(losses, default=0.0) or 1.0)


def _total_us(problem: Problem, menus: list[list[_Item]], picks: Sequence[int]) -> float:
    return problem.total_us([menu[pick].us for menu, pick in zip(menus, picks, strict=True)])


def _solve_exactly(problem: Problem, menus: list[list[_Item]], budget_us: float) -> list[int]:
    """Leaves to the solver what bounds cannot settle, and gives the picks of the whole."""
    terms = problem.terms_of(problem.dtypes[0])
    capacity = (budget_us - terms.overhead_us) / terms.correction
    kept = core.reduce(
        [np.array([item.cost for item in menu]) for menu in menus],
        [np.array([item.us for item in menu]) for menu in menus],
        capacity,
    )
    places = [np.flatnonzero(mask) for mask in kept]
    smaller = [[menu[i] for i in where] for menu, where in zip(menus, places, strict=True)]
    if all(len(menu) == 1 for menu in smaller):
        picks = [0] * len(smaller)
    else:
        picks = _solve_rest(problem, smaller, budget_us, capacity)
    return [int(where[pick]) for where, pick in zip(places, picks, strict=True)]


def _solve_rest(
    problem: Problem, menus: list[list[_Item]], budget_us: float, capacity: float
) -> list[int]:
    """Solves, and cuts off and solves again while the optimum is over budget by a solver tolerance."""
    starts = np.cumsum([0] + [len(menu) for menu in menus])
    costs = np.array([item.cost for menu in menus for item in menu])
    latency = np.array([item.us for menu in menus for item in menu]) * (_ROW_SCALE / capacity)
    owner = np.repeat(np.arange(len(menus)), np.diff(starts))
    one_each = csr_array((np.ones(len(costs)), (owner, np.arange(len(costs)))))
    limits = [LinearConstraint(one_each, 1, 1), LinearConstraint(latency[None, :], ub=_ROW_SCALE)]
    for _ in range(_MAX_CUTS):
        solution = _optimum(costs, limits)
        picks = [int(np.argmax(solution[low:high])) for low, high in itertools.pairwise(starts)]
        if _total_us(problem, menus, picks) <= budget_us:
            return picks
        limits.append(_forbid(starts[:-1] + picks, len(costs)))
    raise AutosparseError(
        f"no exact optimum at {budget_us} us after {_MAX_CUTS} cuts; report this table"
    )


def _optimum(costs: np.ndarray, limits: list[LinearConstraint]) -> np.ndarray:
    with _quiet_standard_output():
        result: OptimizeResult = milp(
            costs,
            constraints=limits,
            integrality=np.ones_like(costs),
            bounds=Bounds(0, 1),
            options={"mip_rel_gap": 0.0},
        )
    if result.status != 0:
        raise AutosparseError(f"the knapsack solver failed on a feasible table: {result.message}")
    return np.asarray(result.x)


@contextmanager
def _quiet_standard_output() -> Iterator[None]:
    """Sends what native code prints to nowhere.

    HiGHS 1.12, in SciPy 1.17, prints a line of its own debugging while it solves. Standard output
    belongs to results, so it has to go; this may go as well once the solver no longer does it.
    """
    libc = ctypes.CDLL(None)
    libc.fflush(None)
    kept = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        libc.fflush(None)
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _forbid(chosen: np.ndarray, width: int) -> LinearConstraint:
    """Excludes one assignment, and no other."""
    row = np.zeros((1, width))
    row[0, chosen] = 1
    return LinearConstraint(row, ub=len(chosen) - 1)
