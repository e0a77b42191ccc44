"""Knobs: stages, seeds, and the plan a setting means."""

from __future__ import annotations

import analytic
import make_table
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from autosparse.errors import ConfigError
from autosparse.records import LatencyOption, LayerChoice, onexn
from autosparse.searching import knapsack, samplers
from autosparse.searching.knobs import Knobs, ladder_of, stages
from autosparse.searching.problem import Problem, plan_labels, prepare


def knobs(budget_us: float | None = None) -> Knobs:
    return Knobs.of(prepare(analytic.problem(budget_us)).problem)


def test_the_committed_table_is_the_one_its_script_makes() -> None:
    assert make_table.make() == analytic.problem()


def test_stages_are_runs_of_one_resolution_without_dense_layers() -> None:
    cut = stages(knobs().problem)
    assert cut == (
        ("layer1.0.conv1", "layer1.0.conv2"),
        ("layer2.0.conv1", "layer2.0.conv2", "layer2.1.conv1"),
        ("layer3.0.conv1", "layer3.0.conv2", "layer3.1.conv1"),
    )


def flat(names: list[str]) -> Problem:
    both = (LayerChoice(), LayerChoice(pattern=onexn(8), sparsity=0.5))
    options = tuple(
        LatencyOption(choice=c, median_us=9.0, ci_low_us=9, ci_high_us=9, flops_kept=1) for c in both
    )
    return Problem(model="m", layers=tuple(names), options=dict.fromkeys(names, options))


def test_without_extents_names_decide_and_the_number_of_stages_is_bounded() -> None:
    assert stages(flat(["a.0", "a.1", "b.0"])) == (("a.0", "a.1"), ("b.0",))
    assert [len(stage) for stage in stages(flat([f"block.{i}" for i in range(8)]))] == [2, 2, 2, 2]
    many = stages(flat([f"x{i}.y" for i in range(20)]))
    assert len(many) == 8
    assert sum(many, ()) == tuple(f"x{i}.y" for i in range(20))


def test_every_seed_lies_within_the_distributions() -> None:
    found = knobs()
    distributions = found.distributions()
    for _, params in found.seeds(9, ()):
        assert set(params) == set(distributions)
        for name, value in params.items():
            distribution = distributions[name]
            assert isinstance(
                distribution, FloatDistribution | IntDistribution | CategoricalDistribution
            )
            assert distribution._contains(distribution.to_internal_repr(value)), (name, value)


def test_seeds_mean_dense_exact_optima_and_uniform_baselines() -> None:
    found = knobs()
    plans = [(kind, found.plan(params, ())) for kind, params in found.seeds(6, (0.5, 0.875))]
    assert plan_labels(plans[0][1]) == {} and plans[0][0] == "dense"
    reach = knapsack.feasibility(found.problem)
    exact = [plan for kind, plan in plans if kind == "seed-knapsack"]
    for index, plan in enumerate(exact):
        budget = reach.dense_us - index / 5 * (reach.dense_us - reach.fastest_us)
        optimum = knapsack.solve(found.problem, budget)
        assert found.problem.predicted_loss(plan) == pytest.approx(
            found.problem.predicted_loss(optimum), abs=1e-12
        )
    uniform = [plan for kind, plan in plans if kind == "uniform"]
    assert len(uniform) == 4 * 2
    for plan in uniform:
        chosen = [choice for choice in plan.layers.values() if not choice.pattern.is_dense]
        assert len({choice.sparsity for choice in chosen}) <= 1


def test_uniform_seeds_have_the_sparsity_they_are_called_after() -> None:
    found = knobs()
    for sparsity in found.grid:
        wanted = [params for kind, params in found.seeds(2, (sparsity,)) if kind == "uniform"]
        for params in wanted:
            block_n = found.patterns[params["block_n_rank"]].group_out
            plan = found.plan(params, ())
            for choice in plan.layers.values():
                if not choice.pattern.is_dense:
                    assert choice.sparsity == sparsity
                    assert choice.pattern.group_out <= block_n


@pytest.mark.parametrize("fraction", [0.0, 0.3, 1.0])
def test_policies_keep_the_budget_and_its_margin(fraction: float) -> None:
    reach = knapsack.feasibility(prepare(analytic.problem()).problem)
    budget = 0.5 * reach.dense_us
    problem = prepare(analytic.problem(budget)).problem
    found = Knobs.of(problem, safety_margin=0.1)
    plan = found.plan(found.neutral() | {"budget_fraction": fraction}, ())
    assert problem.predicted_us(plan) <= 0.9 * budget


def test_knobs_bend_the_plan() -> None:
    found = knobs(400.0)
    plain = found.plan(found.neutral(), ())
    narrow = found.plan(found.neutral() | {"block_n_rank": 0}, ())
    assert all(choice.pattern.group_out <= 4 for choice in narrow.layers.values())
    spared = found.plan(found.neutral() | {"stage_0": 2, "stage_2": -2}, ())

    def mean_sparsity(plan: object, stage: int) -> float:
        layers = found.stages[stage]
        return sum(plan.choice(layer).sparsity for layer in layers) / len(layers)  # type: ignore[attr-defined]

    assert mean_sparsity(spared, 0) <= mean_sparsity(plain, 0)
    assert spared.id != plain.id


def test_local_moves_change_one_stage_by_one_step() -> None:
    found = knobs()
    base = found.plan(found.neutral() | {"budget_fraction": 0.5}, ())
    for stage, slower in ((0, 0), (1, 1), (2, 0)):
        params = found.neutral() | {"kind": "local", "move_stage": stage, "move_slower": slower}
        moved = found.plan(params, [base])
        for layer in found.problem.layers:
            before = found.problem.option(layer, base.choice(layer))
            after = found.problem.option(layer, moved.choice(layer))
            if layer not in found.stages[stage]:
                assert after == before
            elif after != before:
                ladder = ladder_of(found.problem, layer)
                steps = ladder.index(after) - ladder.index(before)
                assert steps == (1 if slower else -1)
        assert moved.id != base.id
        assert base.id in moved.note


def test_a_local_move_without_a_front_falls_back_to_the_policy() -> None:
    found = knobs()
    local = found.plan(found.neutral() | {"kind": "local"}, ())
    assert local.id == found.plan(found.neutral(), ()).id


def test_staged_plans_shift_sparsity_per_stage() -> None:
    found = knobs()
    staged = {"kind": "staged", "budget_fraction": 0.5, "stage_0": -1, "stage_2": 1}
    plan = found.plan(found.neutral() | staged, ())
    sparsities = [
        {plan.choice(layer).sparsity for layer in stage if plan.choice(layer).sparsity}
        for stage in found.stages
    ]
    assert sparsities == [{0.5}, {0.625}, {0.75}]


@pytest.mark.parametrize("name", samplers.SAMPLERS)
def test_samplers_draw_alike_from_the_same_seed_and_draw(name: str) -> None:
    distribution = {"x": FloatDistribution(0, 1)}

    def draw(seed: int, number: int) -> float:
        import optuna

        study = optuna.create_study(
            sampler=samplers.make(name, seed=seed, draw=number, startup_trials=4)
        )
        return float(study.ask(distribution).params["x"])

    assert draw(1, 5) == draw(1, 5)
    assert len({draw(1, 5), draw(1, 6), draw(2, 5)}) == 3


def test_unknown_samplers_are_refused() -> None:
    with pytest.raises(ConfigError, match="nsga2, random, tpe"):
        samplers.make("magic", seed=0, draw=0, startup_trials=1)
