"""Tables of several dtypes: no plan ever mixes two, and the better one wins."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from pathlib import Path

import analytic
import numpy as np
import optuna
import pytest

from autosparse.errors import (
    BudgetInfeasible,
    MissingMeasurement,
    PlanError,
    RunError,
    Stopped,
    UsageError,
)
from autosparse.plans.plan import Plan
from autosparse.progress import Progress
from autosparse.records import Accuracy, LatencyOption, LayerChoice, onexn
from autosparse.searching import knapsack
from autosparse.searching.knobs import Knobs
from autosparse.searching.pool import SerialPool
from autosparse.searching.problem import Problem, Terms, option_key, plan_labels, prepare
from autosparse.searching.storage import JOURNAL
from autosparse.searching.study import run_study
from autosparse.searching.trials import StudyResult, StudySettings


def random_problem(seed: int, layers: int = 4) -> Problem:
    """A small table in which now one dtype and now the other is faster, layer by layer."""
    random = np.random.default_rng(seed)
    names = tuple(f"l{index}" for index in range(layers))
    options: dict[str, tuple[LatencyOption, ...]] = {}
    losses: dict[str, dict[str, float]] = {}
    for name in names:
        dense_us = float(random.uniform(50, 200))
        choices = [
            LayerChoice(pattern=onexn(2**index), sparsity=0.5 + index / 100) for index in range(1, 4)
        ]
        losses[name] = {choice.label: float(random.integers(0, 4)) / 100 for choice in choices}
        sparse = [option(choice, float(random.uniform(0.1, 1.1)) * dense_us) for choice in choices]
        options[name] = (option(LayerChoice(), dense_us), *sparse)
    problem = Problem(
        model="m",
        layers=names,
        options=options,
        losses=losses,
        overhead_us=float(random.uniform(0, 30)),
        dense_accuracy=0.9,
    )
    return analytic.with_bf16(
        problem,
        lambda _: float(random.uniform(0.6, 1.4)),
        overhead_us=float(random.uniform(0, 30)),
        loss=float(random.choice([0.0, 0.015])),
    )


def option(choice: LayerChoice, us: float) -> LatencyOption:
    return LatencyOption(choice=choice, median_us=us, ci_low_us=us, ci_high_us=us, flops_kept=1)


def assert_one_dtype(plan: Plan, problem: Problem) -> None:
    assert set(plan.layers) == set(problem.layers)
    dtypes = {choice.dtype for choice in plan.layers.values()}
    assert dtypes == {plan.dtype}, plan.layers


def pure_assignments(problem: Problem) -> list[tuple[float, float, int, str]]:
    """Gives latency, loss, sparse layers and dtype of every assignment in one dtype."""
    found = []
    for dtype in problem.dtypes:
        terms = problem.terms_of(dtype)
        menus = [
            [o for o in problem.options[layer] if o.choice.dtype == dtype] for layer in problem.layers
        ]
        for picks in itertools.product(*menus):
            us = terms.overhead_us + terms.correction * math.fsum(o.median_us for o in picks)
            losses = [
                problem.losses[name].get(o.choice.label, 0.0)
                for name, o in zip(problem.layers, picks, strict=True)
            ]
            sparse = sum(not o.choice.pattern.is_dense for o in picks)
            found.append((us, terms.loss + math.fsum(losses), sparse, dtype))
    return found


@pytest.mark.parametrize("seed", range(20))
def test_the_optimum_is_the_best_of_all_plans_in_one_dtype(seed: int) -> None:
    problem = random_problem(seed)
    every = pure_assignments(problem)
    reach = knapsack.feasibility(problem)
    assert reach.fastest_us == pytest.approx(min(us for us, *_ in every))
    assert reach.slowest_us == pytest.approx(max(us for us, *_ in every))
    for budget in np.linspace(reach.fastest_us, reach.slowest_us, 7):
        plan = knapsack.solve(problem, max(float(budget), reach.fastest_us))
        assert_one_dtype(plan, problem)
        best = min((loss, sparse) for us, loss, sparse, _ in every if us <= budget + 1e-9)
        sparse = len(plan_labels(plan))
        assert (problem.predicted_loss(plan), sparse) == (pytest.approx(best[0]), best[1])
        assert problem.predicted_us(plan) <= budget + 1e-9
    plan, us = knapsack.fastest(problem)
    assert_one_dtype(plan, problem)
    assert us == pytest.approx(reach.fastest_us)
    front = knapsack.front(problem, 8)
    for before, after in itertools.pairwise(front):
        assert before.us < after.us and before.loss > after.loss
    for point in front:
        assert_one_dtype(point.plan, problem)
        assert not any(us < point.us - 1e-9 and loss <= point.loss - 1e-9 for us, loss, *_ in every)


@pytest.mark.parametrize("seed", range(20))
def test_no_setting_of_the_knobs_mixes_dtypes(seed: int) -> None:
    problem = prepare(random_problem(seed)).problem
    budget_us = 0.7 * knapsack.feasibility(problem).dense_us
    knobs = Knobs.of(dataclasses.replace(problem, budget_us=budget_us))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    front: list[Plan] = []
    for _ in range(40):
        params = study.ask(knobs.distributions()).params
        plan = knobs.plan(params, front)
        assert_one_dtype(plan, problem)
        assert plan.dtype == params["dtype"]
        front.append(plan)
    for _, params in knobs.seeds(3, (0.51, 0.52)):
        assert knobs.plan(params, ()).dtype == params["dtype"]


def test_a_mixed_plan_is_refused_wherever_one_could_be_made() -> None:
    problem = random_problem(0)
    mixed = {"l0": LayerChoice(dtype="bf16"), "l1": LayerChoice()}
    with pytest.raises(PlanError, match="one dtype"):
        problem.plan(mixed, "x")
    with pytest.raises(PlanError, match="one dtype"):
        problem.plan({"l0": LayerChoice()}, "x", "bf16")
    with pytest.raises(PlanError, match="one dtype"):
        problem.predicted_us(Plan(model="m", layers=mixed))
    with pytest.raises(PlanError, match="one dtype"):
        problem.plan_from_labels({"l0": "dense"}, "x", "bf16")


# ------------------------------------------------------------------------------------ which one wins


@pytest.mark.parametrize(("factor", "winner"), [(0.6, "bf16"), (1.5, "f32")])
def test_the_faster_table_wins_at_equal_losses(factor: float, winner: str) -> None:
    problem = analytic.with_bf16(analytic.problem(), lambda _: factor)
    reach = knapsack.feasibility(problem)
    for share in (0.0, 0.3, 0.6):
        budget = reach.fastest_us + share * (reach.dense_us - reach.fastest_us)
        assert knapsack.solve(problem, budget).dtype == winner
    assert knapsack.fastest(problem)[0].dtype == winner


def test_what_a_dtype_costs_by_itself_is_weighed_against_its_speed() -> None:
    problem = analytic.with_bf16(analytic.problem(), lambda _: 0.6, loss=0.02)
    reach = knapsack.feasibility(problem)
    assert knapsack.solve(problem, reach.dense_us).dtype == "f32"
    assert knapsack.solve(problem, reach.fastest_us).dtype == "bf16"
    plan = problem.dense_plan("bf16")
    assert problem.predicted_loss(plan) == 0.02
    assert problem.predicted_accuracy(plan).value == pytest.approx(0.9)


def test_a_budget_that_one_dtype_misses_is_met_in_the_other() -> None:
    problem = analytic.with_bf16(analytic.problem(), lambda _: 0.5)
    least = knapsack.feasibility(problem.of("f32")).fastest_us
    assert knapsack.solve(problem, 0.9 * least).dtype == "bf16"
    with pytest.raises(BudgetInfeasible):
        knapsack.solve(problem.of("f32"), 0.9 * least)


# ----------------------------------------------------------------------------------------- the table


def test_each_dtype_has_its_own_terms_and_correction() -> None:
    problem = analytic.with_bf16(analytic.problem(), lambda _: 0.5, overhead_us=7.0)
    f32, bf16 = problem.dense_plan(), problem.dense_plan("bf16")
    total = math.fsum(problem.dense_option(layer).median_us for layer in problem.layers)
    assert problem.predicted_us(f32) == pytest.approx(12.0 + 1.04 * total)
    assert problem.predicted_us(bf16) == pytest.approx(7.0 + 1.1 * 0.5 * total)
    later = problem.corrected({"bf16": 1.3})
    assert later.predicted_us(f32) == problem.predicted_us(f32)
    assert later.predicted_us(bf16) == pytest.approx(7.0 + 1.3 * 0.5 * total)
    assert later.terms_of("bf16").loss == problem.terms_of("bf16").loss
    plain = analytic.problem().corrected({"f32": 2.0})
    assert plain.predicted_us(f32) == pytest.approx(12.0 + 2.0 * total)


def test_a_part_is_a_table_of_one_dtype() -> None:
    problem = analytic.with_bf16(analytic.problem(), lambda _: 0.5)
    assert problem.dtypes == ("f32", "bf16")
    part = problem.of("bf16")
    assert part.dtypes == ("bf16",) and part.of("bf16") is part
    assert part.dense_plan() == problem.dense_plan("bf16")
    assert part.dense_plan().dtype == "bf16"
    with pytest.raises(MissingMeasurement, match="got f16; measured: f32, bf16"):
        problem.of("f16")
    with pytest.raises(MissingMeasurement, match="none in f32"):
        part.predicted_us(Plan(model="made-resnet"))
    assert Plan.from_json(part.dense_plan().to_json()) == part.dense_plan()


def test_a_dtype_must_have_a_dense_option_in_every_layer() -> None:
    problem = random_problem(1)
    half = tuple(
        o for o in problem.options["l2"] if o.choice.dtype == "f32" or not o.choice.pattern.is_dense
    )
    with pytest.raises(UsageError, match=r"'l2' has none in bf16"):
        dataclasses.replace(problem, options={**problem.options, "l2": half})
    with pytest.raises(UsageError, match="correction must be positive"):
        Terms(correction=0.0)


def test_options_are_held_against_dense_in_their_own_dtype() -> None:
    # In bf16 dense is twice as fast and sparse is not: no bf16 option survives, all f32 ones do.
    problem = analytic.with_bf16(
        analytic.problem(), lambda o: 0.05 if o.choice.pattern.is_dense else 1.0
    )
    prepared = prepare(problem)
    f32 = prepare(analytic.problem())
    kept = {
        layer: [option_key(o.choice) for o in options if not o.choice.pattern.is_dense]
        for layer, options in prepared.problem.options.items()
    }
    assert not any(key.endswith("/bf16") for keys in kept.values() for key in keys)
    assert prepared.problem.of("f32").options == f32.problem.options
    assert prepare(prepared.problem).problem == prepared.problem
    assert {d.label for d in prepared.dropped if d.label.endswith("/bf16")}


def test_labels_rebuild_plans_of_both_dtypes() -> None:
    problem = random_problem(3)
    for dtype in problem.dtypes:
        for plan in (problem.dense_plan(dtype), problem.uniform_plan(onexn(4), 0.52, dtype)):
            assert plan.dtype == dtype
            assert problem.plan_from_labels(plan_labels(plan), plan.note, dtype) == plan
    assert problem.dense_plan().note == "dense"
    assert problem.dense_plan("bf16").note == "dense in bf16"
    assert problem.uniform_plan(onexn(4), 0.52, "bf16").note == "uniform 1x4@0.52 in bf16"


def test_a_table_of_several_dtypes_travels_as_json_and_an_old_one_still_loads() -> None:
    problem = random_problem(4)
    assert Problem.from_json(json.loads(json.dumps(problem.to_json()))) == problem
    old = analytic.problem().to_json()
    assert old.pop("terms") == {}
    assert Problem.from_json(old) == analytic.problem()
    assert "dtype" not in Knobs.of(Problem.from_json(old)).distributions()


# ----------------------------------------------------------------------------------------- studies


class Costs:
    """Accuracy by the losses, and a little less in bf16."""

    def __init__(self, problem: Problem) -> None:
        self.problem = prepare(problem).problem
        self.seen: list[str] = []

    def __call__(self, plan: Plan) -> Accuracy:
        self.seen.append(plan.id)
        value = max(0.0, 0.9 - self.problem.predicted_loss(plan))
        return Accuracy(value=value, kind="one-shot", split="validation", samples=100, dtype=plan.dtype)


def run(folder: Path, problem: Problem, *, stop_after: int = 10**6, **settings: object) -> StudyResult:
    costs = Costs(problem)
    with SerialPool() as pool:
        return run_study(
            problem,
            StudySettings(**({"trials": 24, "seed": 5, "seed_points": 3} | settings)),
            costs,
            pool=pool,
            folder=folder,
            progress=Progress(should_stop=lambda: len(costs.seen) >= stop_after),
        )


def auto(factor: float, *, loss: float = 0.004) -> Problem:
    problem = analytic.with_bf16(analytic.problem(), lambda _: factor, loss=loss)
    return dataclasses.replace(problem, budget_us=0.5 * knapsack.feasibility(problem).dense_us)


@pytest.mark.parametrize(("factor", "winner"), [(0.5, "bf16"), (1.6, "f32")])
def test_a_study_tries_both_and_its_front_has_the_better(
    tmp_path: Path, factor: float, winner: str
) -> None:
    result = run(tmp_path, auto(factor))
    tried = {trial.dtype for trial in result.trials}
    assert tried == {"f32", "bf16"}
    for trial in result.trials:
        plan = result.plans[trial.plan_id]
        assert_one_dtype(plan, result.problem)
        assert plan.dtype == trial.dtype == trial.params["dtype"]
        assert trial.accuracy is not None and trial.accuracy.dtype == trial.dtype
    assert {plan.dtype for plan in result.front} == {winner}


def test_seeds_come_from_both_dtypes_even_in_a_short_study(tmp_path: Path) -> None:
    result = run(tmp_path, auto(0.9), trials=6)
    kinds = [(trial.kind, trial.dtype) for trial in result.trials[:4]]
    assert kinds == [
        ("dense", "f32"),
        ("dense", "bf16"),
        ("seed-knapsack", "f32"),
        ("seed-knapsack", "bf16"),
    ]


@pytest.mark.parametrize("stop_after", [3, 15, 21])
def test_a_stopped_study_of_both_dtypes_continues_as_if_it_had_not(
    tmp_path: Path, stop_after: int
) -> None:
    problem = auto(0.8)
    with pytest.raises(Stopped):
        run(tmp_path / "cut", problem, stop_after=stop_after)
    continued = run(tmp_path / "cut", problem)
    whole = run(tmp_path / "whole", problem)
    assert [(t.plan_id, t.dtype, t.params) for t in continued.trials] == [
        (t.plan_id, t.dtype, t.params) for t in whole.trials
    ]


def test_a_retried_dense_plan_keeps_its_dtype(tmp_path: Path) -> None:
    problem = auto(0.8)
    fails = [1]

    class Flaky(Costs):
        def __call__(self, plan: Plan) -> Accuracy:
            if plan.dtype == "bf16" and not plan_labels(plan) and fails:
                fails.pop()
                raise RuntimeError("made to fail")
            return super().__call__(plan)

    with SerialPool() as pool:
        result = run_study(
            problem,
            StudySettings(trials=60, seed=5, seed_points=3),
            Flaky(problem),
            pool=pool,
            folder=tmp_path,
            progress=Progress(),
        )
    failed = next(trial for trial in result.trials if trial.state == "FAIL")
    again = next(trial for trial in result.trials if trial.retry_of == failed.number)
    assert (failed.dtype, again.dtype) == ("bf16", "bf16")
    assert again.plan_id == failed.plan_id and again.state == "COMPLETE"


def test_a_study_of_one_dtype_is_not_continued_with_both(tmp_path: Path) -> None:
    problem = dataclasses.replace(analytic.problem(), budget_us=auto(0.8).budget_us)
    run(tmp_path, problem, trials=6)
    with pytest.raises(RunError, match="continued with the model, options and budget"):
        run(tmp_path, auto(0.8), trials=8)


def test_a_study_from_before_there_were_dtypes_goes_on(tmp_path: Path) -> None:
    problem = dataclasses.replace(analytic.problem(), budget_us=auto(0.8).budget_us)
    run(tmp_path, problem, trials=6)
    journal = tmp_path / JOURNAL
    lines = [line for line in journal.read_text().splitlines(True) if '"dtype":' not in line]
    assert len(lines) < len(journal.read_text().splitlines())
    journal.write_text("".join(lines))
    values = json.loads((tmp_path / "problem.json").read_text())
    del values["terms"]
    (tmp_path / "problem.json").write_text(json.dumps(values))
    result = run(tmp_path, problem, trials=9)
    assert len(result.plans) == 9
    assert {trial.dtype for trial in result.trials} == {"f32"}
