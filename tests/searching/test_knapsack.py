"""The exact solver against brute force."""

from __future__ import annotations

import dataclasses
import itertools
import math

import numpy as np
import pytest

from autosparse.errors import BudgetInfeasible, UsageError
from autosparse.plans.plan import Plan
from autosparse.records import LatencyOption, LayerChoice, onexn
from autosparse.searching import knapsack
from autosparse.searching.problem import Problem, plan_labels, prepare


def random_problem(seed: int, layers: int = 5, sparse_options: int = 5) -> Problem:
    """Gives options of which some are dominated, some tie, and some are slower than dense."""
    random = np.random.default_rng(seed)
    names = tuple(f"l{i}" for i in range(layers))
    options, losses = {}, {}
    for name in names:
        dense_us = float(random.uniform(50, 200))
        found = [_option(LayerChoice(), dense_us)]
        losses[name] = {}
        for index in range(sparse_options):
            choice = LayerChoice(pattern=onexn(2 ** (index % 6)), sparsity=0.5 + index / 100)
            found.append(_option(choice, float(random.uniform(0.1, 1.1) * dense_us)))
            # Few distinct values, so that ties are common; zero among them.
            losses[name][choice.label] = float(random.integers(0, 4)) / 100
        options[name] = tuple(found)
    return Problem(
        model="m",
        layers=names,
        options=options,
        losses=losses,
        overhead_us=float(random.uniform(0, 30)),
        correction=float(random.uniform(0.9, 1.2)),
    )


def _option(choice: LayerChoice, us: float) -> LatencyOption:
    return LatencyOption(choice=choice, median_us=us, ci_low_us=us, ci_high_us=us, flops_kept=1)


def assignments(problem: Problem) -> list[tuple[float, float, int, Plan]]:
    """Gives latency, loss, sparse layers and plan of every assignment there is."""
    menus = [problem.options[layer] for layer in problem.layers]
    found = []
    for picks in itertools.product(*menus):
        us = problem.overhead_us + problem.correction * math.fsum(o.median_us for o in picks)
        loss = math.fsum(
            problem.losses[name].get(o.choice.label, 0.0)
            for name, o in zip(problem.layers, picks, strict=True)
        )
        sparse = sum(not o.choice.pattern.is_dense for o in picks)
        layers = {name: o.choice for name, o in zip(problem.layers, picks, strict=True)}
        found.append((us, loss, sparse, Plan(model="m", layers=layers)))
    return found


@pytest.mark.smoke
@pytest.mark.parametrize("seed", range(25))
def test_optimum_equals_brute_force_with_fewest_sparse_layers(seed: int) -> None:
    problem = random_problem(seed)
    every = assignments(problem)
    low, high = min(us for us, *_ in every), max(us for us, *_ in every)
    for share in (0.0, 0.07, 0.3, 0.6):
        budget = low + share * (high - low)
        plan = knapsack.solve(problem, budget)
        best = min((round(loss, 9), sparse) for us, loss, sparse, _ in every if us <= budget)
        assert problem.predicted_us(plan) <= budget
        assert (round(problem.predicted_loss(plan), 9), len(plan_labels(plan))) == best


@pytest.mark.parametrize("seed", range(10))
def test_a_budget_at_exactly_an_assignments_latency_is_met(seed: int) -> None:
    problem = random_problem(seed, layers=4)
    every = sorted(assignments(problem), key=lambda entry: entry[0])
    for us, *_ in every[:: len(every) // 5]:
        best = min(round(other, 9) for at, other, *_ in every if at <= us)
        plan = knapsack.solve(problem, us)
        assert problem.predicted_us(plan) <= us
        assert round(problem.predicted_loss(plan), 9) == best


def test_a_hair_below_an_optimum_gives_the_next() -> None:
    problem = random_problem(3)
    plan = knapsack.solve(problem, 300.0)
    us = problem.predicted_us(plan)
    below = math.nextafter(us, 0)
    assert problem.predicted_us(knapsack.solve(problem, below)) <= below


@pytest.mark.parametrize("seed", range(10))
def test_certificate_equals_brute_force(seed: int) -> None:
    problem = random_problem(seed)
    every = [us for us, *_ in assignments(problem)]
    certificate = knapsack.feasibility(problem, min(every) * 0.999)
    assert certificate.smallest_feasible_us == pytest.approx(min(every), rel=1e-12)
    assert certificate.slowest_us == pytest.approx(max(every), rel=1e-12)
    assert certificate.dense_us == pytest.approx(problem.predicted_us(problem.dense_plan()), rel=1e-12)
    assert not certificate.feasible
    with pytest.raises(BudgetInfeasible) as caught:
        knapsack.solve(problem, min(every) * 0.999)
    assert caught.value.smallest_feasible_ms == pytest.approx(min(every) / 1e3, rel=1e-12)
    plan = knapsack.solve(problem, certificate.smallest_feasible_us)
    assert problem.predicted_us(plan) == pytest.approx(min(every), rel=1e-12)


def test_the_problems_own_budget_is_the_default() -> None:
    problem = dataclasses.replace(random_problem(0), budget_us=1.0)
    assert not knapsack.feasibility(problem).feasible
    assert knapsack.feasibility(random_problem(0)).feasible


@pytest.mark.parametrize("seed", range(5))
def test_fastest(seed: int) -> None:
    problem = random_problem(seed)
    plan, us = knapsack.fastest(problem)
    assert us == pytest.approx(min(at for at, *_ in assignments(problem)), rel=1e-12)
    assert us == problem.predicted_us(plan)


@pytest.mark.parametrize("seed", range(8))
def test_front_is_monotone_and_optimal_at_every_point(seed: int) -> None:
    problem = random_problem(seed)
    every = assignments(problem)
    points = knapsack.front(problem, 12)
    assert 2 <= len(points) <= 12
    assert points[0].us == pytest.approx(min(us for us, *_ in every), rel=1e-12)
    assert points[-1].loss == pytest.approx(min(loss for _, loss, *_ in every), abs=1e-9)
    for one, other in itertools.pairwise(points):
        assert one.us < other.us
        assert one.loss > other.loss
    for point in points:
        assert point.loss == pytest.approx(
            min(loss for us, loss, *_ in every if us <= point.us), abs=1e-9
        )


def test_a_front_needs_two_points() -> None:
    with pytest.raises(UsageError, match="2 points"):
        knapsack.front(random_problem(0), 1)


def test_no_layer_ends_sparse_where_dense_is_as_fast() -> None:
    problem = prepare(random_problem(1)).problem
    for point in knapsack.front(problem, 8):
        for layer in problem.layers:
            chosen = problem.option(layer, point.plan.choice(layer))
            assert chosen.choice.pattern.is_dense or (
                chosen.ci_high_us < problem.dense_option(layer).ci_low_us
            )


def test_everything_dense_when_nothing_can_be_sparse() -> None:
    problem = Problem(model="m", layers=("a",), options={"a": (_option(LayerChoice(), 5.0),)})
    assert plan_labels(knapsack.solve(problem, 5.0)) == {}
    (point,) = knapsack.front(problem, 4)
    assert point.us == 5.0


def test_a_large_table_is_solved_quickly_and_within_budget() -> None:
    problem = random_problem(11, layers=54, sparse_options=30)
    certificate = knapsack.feasibility(problem)
    budget = 0.5 * (certificate.fastest_us + certificate.dense_us)
    assert problem.predicted_us(knapsack.solve(problem, budget)) <= budget


def test_the_solver_writes_nothing_to_standard_output(capfd: pytest.CaptureFixture[str]) -> None:
    problem = random_problem(11, layers=54, sparse_options=30)
    knapsack.front(problem, 6)
    print("still open")
    assert capfd.readouterr().out == "still open\n"
