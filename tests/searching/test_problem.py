"""The table: what it predicts, completes and drops."""

from __future__ import annotations

import dataclasses
import json

import pytest

from autosparse.errors import MissingMeasurement, UsageError
from autosparse.plans.plan import Plan
from autosparse.records import LatencyOption, LayerChoice, onexn
from autosparse.searching.problem import Problem, complete_losses, plan_labels, prepare


def dense(us: float, half_width: float = 0.0) -> LatencyOption:
    return option(LayerChoice(kernel="d"), us, half_width)


def sparse(block_n: int, sparsity: float, us: float, half_width: float = 0.0) -> LatencyOption:
    choice = LayerChoice(pattern=onexn(block_n), sparsity=sparsity, kernel=f"s{block_n}")
    return option(choice, us, half_width)


def option(choice: LayerChoice, us: float, half_width: float) -> LatencyOption:
    low, high = us - half_width, us + half_width
    return LatencyOption(choice=choice, median_us=us, ci_low_us=low, ci_high_us=high, flops_kept=1)


def table(**changes: object) -> Problem:
    problem = Problem(
        model="m",
        layers=("a", "b"),
        options={
            "a": (
                dense(100, 2),
                sparse(8, 0.5, 60, 1),
                sparse(8, 0.75, 40, 1),
                sparse(16, 0.75, 30, 1),
            ),
            "b": (dense(50, 2), sparse(8, 0.5, 49, 2), sparse(8, 0.75, 20, 1)),
        },
        losses={
            "a": {"1x8@0.5": 0.01, "1x8@0.75": 0.03, "1x16@0.75": 0.05},
            "b": {"1x8@0.5": -0.004, "1x8@0.75": 0.02},
        },
        overhead_us=10,
        correction=1.5,
        dense_accuracy=0.9,
    )
    return dataclasses.replace(problem, **changes)


def test_predictions_are_overhead_and_corrected_sum() -> None:
    problem = table()
    plan = problem.plan({"a": sparse(16, 0.75, 1).choice}, "x")
    assert problem.predicted_us(plan) == pytest.approx(10 + 1.5 * (30 + 50))
    assert problem.predicted_us(problem.dense_plan()) == pytest.approx(10 + 1.5 * 150)
    assert problem.predicted_loss(plan) == 0.05
    accuracy = problem.predicted_accuracy(plan)
    assert (accuracy.value, accuracy.kind) == (pytest.approx(0.85), "predicted")


def test_a_plan_that_names_no_layer_is_dense() -> None:
    problem = table()
    assert problem.predicted_us(Plan(model="m")) == problem.predicted_us(problem.dense_plan())


def test_plans_carry_the_kernels_of_their_options() -> None:
    plan = table().plan({"a": LayerChoice(pattern=onexn(8), sparsity=0.5)}, "x")
    assert plan.layers["a"].kernel == "s8"
    assert plan.layers["b"].kernel == "d"


def test_labels_rebuild_the_plan() -> None:
    problem = table()
    plan = problem.plan({"a": sparse(16, 0.75, 1).choice, "b": sparse(8, 0.75, 1).choice}, "x")
    assert plan_labels(plan) == {"a": "1x16@0.75", "b": "1x8@0.75"}
    assert problem.plan_from_labels(plan_labels(plan), "x") == plan
    with pytest.raises(MissingMeasurement, match=r"1x4@0\.5"):
        problem.plan_from_labels({"a": "1x4@0.5"}, "x")


def test_unmeasured_choices_are_named() -> None:
    problem = table()
    with pytest.raises(MissingMeasurement, match=r"1x32@0.5.*measured: dense, 1x8@0.5"):
        problem.predicted_us(
            Plan(model="m", layers={"a": LayerChoice(pattern=onexn(32), sparsity=0.5)})
        )
    with pytest.raises(MissingMeasurement, match="loss"):
        table(losses={}).loss("a", sparse(8, 0.5, 1).choice)


def test_the_uniform_plan_is_dense_where_the_table_has_no_such_option() -> None:
    plan = table().uniform_plan(onexn(16), 0.75)
    assert plan_labels(plan) == {"a": "1x16@0.75"}


def test_an_option_not_clearly_faster_than_dense_is_dropped_with_the_reason() -> None:
    prepared = prepare(table())
    assert [(d.layer, d.label) for d in prepared.dropped] == [("b", "1x8@0.5")]
    assert "not faster than dense" in prepared.dropped[0].reason
    assert "49.0" in prepared.dropped[0].reason and "50.0" in prepared.dropped[0].reason
    assert len(prepared.problem.options["b"]) == 2


def test_preparing_twice_changes_nothing() -> None:
    once = prepare(table())
    twice = prepare(once.problem)
    assert twice.problem == once.problem
    assert twice.dropped == ()


def test_options_without_a_loss_are_dropped() -> None:
    prepared = prepare(table(losses={"a": {"1x8@0.5": 0.01}}))
    reasons = {(d.layer, d.label): d.reason for d in prepared.dropped}
    assert "no accuracy loss" in reasons["a", "1x8@0.75"]
    assert "no accuracy loss" in reasons["b", "1x8@0.75"]


def many(*sparsities: float, block_n: int = 8) -> tuple[LatencyOption, ...]:
    return (dense(100), *(sparse(block_n, s, 10) for s in sparsities))


def losses_of(options: tuple[LatencyOption, ...], given: dict[str, float]) -> dict[str, float]:
    problem = Problem(model="m", layers=("a",), options={"a": options}, losses={"a": given})
    return complete_losses(problem, "a")


def test_losses_become_the_running_maximum_from_zero() -> None:
    given = {"1x8@0.25": -0.01, "1x8@0.5": 0.02, "1x8@0.625": 0.015, "1x8@0.75": 0.05}
    assert losses_of(many(0.25, 0.5, 0.625, 0.75), given) == {
        "1x8@0.25": 0.0,
        "1x8@0.5": 0.02,
        "1x8@0.625": 0.02,
        "1x8@0.75": 0.05,
    }


def test_losses_between_measured_sparsities_are_linear_and_none_is_claimed_above() -> None:
    completed = losses_of(many(0.25, 0.5, 0.625, 0.75, 0.9), {"1x8@0.5": 0.02, "1x8@0.75": 0.06})
    assert completed["1x8@0.25"] == pytest.approx(0.01)
    assert completed["1x8@0.625"] == pytest.approx(0.04)
    assert "1x8@0.9" not in completed


def test_a_block_size_without_losses_borrows_from_the_nearest() -> None:
    options = (*many(0.5), *many(0.5, block_n=16)[1:], *many(0.5, block_n=32)[1:])
    completed = losses_of(options, {"1x8@0.5": 0.02, "1x32@0.5": 0.05})
    assert completed["1x16@0.5"] == 0.05  # 8 and 32 are as near: the larger, that is the greater loss


def test_a_problem_travels_as_json() -> None:
    problem = table(budget_us=100.0, extents={"a": 4, "b": 1})
    assert Problem.from_json(json.loads(json.dumps(problem.to_json()))) == problem


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layers": ("a",)}, "exactly the layers"),
        ({"options": {"a": (dense(1),), "b": (sparse(8, 0.5, 1),)}}, "dense option"),
        ({"options": {"a": (dense(1),), "b": (dense(0),)}}, "above zero"),
        ({"options": {"a": (dense(1),), "b": (dense(float("nan")),)}}, "finite"),
        ({"budget_us": 0.0}, "budget_us"),
        ({"correction": 0.0}, "correction"),
        ({"overhead_us": float("inf")}, "overhead_us"),
    ],
)
def test_impossible_tables_are_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        table(**changes)


def test_a_loss_that_is_no_number_is_refused() -> None:
    with pytest.raises(UsageError, match="finite"):
        prepare(table(losses={"a": {"1x8@0.5": float("nan")}}))
