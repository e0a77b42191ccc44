"""Whole studies on a recorded table, in this process."""

from __future__ import annotations

import itertools
from pathlib import Path

import analytic
import optuna
import pytest

from autosparse.errors import BudgetInfeasible, NoValidConfiguration, RunError, Stopped, UsageError
from autosparse.plans.plan import Plan
from autosparse.progress import Progress, ProgressEvent
from autosparse.records import Accuracy, onexn
from autosparse.searching.knapsack import feasibility
from autosparse.searching.owner import CONSTRAINT
from autosparse.searching.pool import SerialPool
from autosparse.searching.problem import Problem, prepare
from autosparse.searching.space import StudySpace
from autosparse.searching.storage import JOURNAL, LOCK, OneWriterJournal
from autosparse.searching.study import Evaluate, PredictedAccuracy, run_study
from autosparse.searching.trials import StudyResult, StudySettings
from autosparse.storage.locks import FileLock

DENSE_US = feasibility(prepare(analytic.problem()).problem).dense_us
TRIALS = 27
SEEDS = 21  # dense, 8 optima, 4 block sizes x 3 sparsities


def run(
    folder: Path,
    evaluate: Evaluate | None = None,
    problem: Problem | None = None,
    progress: Progress | None = None,
    **settings: object,
) -> StudyResult:
    with SerialPool() as pool:
        return run_study(
            problem or analytic.problem(0.5 * DENSE_US),
            StudySettings(**({"trials": TRIALS, "seed": 3} | settings)),
            evaluate or analytic.Analytic(),
            pool=pool,
            folder=folder,
            progress=progress or Progress(),
        )


def stored(folder: Path, url: str | None = None) -> list[optuna.trial.FrozenTrial]:
    backend = optuna.storages.JournalStorage(OneWriterJournal(str(folder / JOURNAL)))
    return optuna.load_study(study_name="autosparse", storage=url or backend).get_trials()


def test_a_search_from_a_recorded_table(tmp_path: Path) -> None:
    result = run(tmp_path)
    assert len(result.plans) == TRIALS
    assert result.front and not result.least_infeasible
    assert [t.number for t in result.trials] == sorted({t.number for t in result.trials})
    assert {"dense", "seed-knapsack", "uniform"} <= {t.kind for t in result.trials}
    assert {t.accuracy_kind for t in result.trials} == {"one-shot"}
    for trial in result.trials:
        plan = result.plans[trial.plan_id]
        assert trial.latency_ms == pytest.approx(result.problem.predicted_us(plan) / 1e3)
        assert trial.feasible == (trial.latency_ms * 1e3 <= 0.5 * DENSE_US)
        assert trial.accuracy_value == analytic.Analytic().value(plan)
        assert Plan.load(tmp_path / "plans" / f"{trial.plan_id}.yaml") == plan
    values = [point.value for point in result.hypervolume]
    assert all(a <= b for a, b in itertools.pairwise(values)) and values[-1] > 0
    assert result.reference.latency_ms == pytest.approx(1.1 * DENSE_US / 1e3)
    for one, other in itertools.pairwise(result.front):
        first, second = result.best_trial(one), result.best_trial(other)
        assert first.latency_ms < second.latency_ms
        assert first.accuracy_value < second.accuracy_value
        assert second.feasible
    assert {d.label for d in result.dropped}


def test_the_front_holds_no_less_than_any_seed(tmp_path: Path) -> None:
    result = run(tmp_path, trials=40)
    seeds = [t for t in result.trials if t.kind in ("dense", "seed-knapsack", "uniform")]
    at_seeds = max(p.value for p in result.hypervolume if p.trial <= max(t.number for t in seeds))
    assert result.hypervolume[-1].value > at_seeds


def test_the_search_beats_random_drawing(tmp_path: Path) -> None:
    """The median of three seeds, at equal trials and from the same seeds."""
    found = {
        name: sorted(
            run(tmp_path / f"{name}{seed}", sampler=name, seed=seed, trials=40).hypervolume[-1].value
            for seed in range(3)
        )[1]
        for name in ("tpe", "random")
    }
    assert found["tpe"] >= found["random"]


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_every_trial_has_its_constraint(tmp_path: Path, sampler: str) -> None:
    failing = frozenset({prepare(analytic.problem()).problem.uniform_plan(onexn(8), 0.75).id})
    for name, budget in (("budget", 0.5 * DENSE_US), ("none", None)):
        folder = tmp_path / name
        run(
            folder,
            analytic.Analytic(failing=failing),
            analytic.problem(budget),
            sampler=sampler,
            trials=SEEDS + 4,
        )
        trials = [t for t in stored(folder) if t.state.is_finished()]
        assert {t.state.name for t in trials} == {"COMPLETE", "FAIL"}
        for trial in trials:
            excess = trial.constraints[CONSTRAINT]
            if budget is None:
                assert excess <= 0
            else:
                assert excess == pytest.approx(trial.user_attrs["latency_ms"] - budget / 1e3)


def test_equal_seeds_give_equal_trials_and_others_do_not(tmp_path: Path) -> None:
    one, same, other = (
        run(tmp_path / name, seed=seed) for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert _comparable(one) == _comparable(same)
    assert _comparable(one) != _comparable(other)


def _comparable(result: StudyResult) -> list[tuple[object, ...]]:
    return [(t.number, t.plan_id, t.accuracy_value, tuple(t.params.items())) for t in result.trials]


def test_a_finished_study_is_not_run_again(tmp_path: Path) -> None:
    first = run(tmp_path)
    log = tmp_path / "calls"
    again = run(tmp_path, analytic.Analytic(log=log))
    assert not log.exists()
    assert _comparable(again) == _comparable(first)


def test_more_trials_continue_a_study_as_if_it_had_never_ended(tmp_path: Path) -> None:
    # 29 = 21 seeds and two whole rounds of 4: the cut falls between rounds.
    run(tmp_path / "cut", trials=SEEDS - 2)
    continued = run(tmp_path / "cut", trials=SEEDS + 8)
    whole = run(tmp_path / "whole", trials=SEEDS + 8)
    assert {t.plan_id for t in continued.trials} == {t.plan_id for t in whole.trials}


def test_no_plan_is_evaluated_twice(tmp_path: Path) -> None:
    log = tmp_path / "calls"
    result = run(tmp_path / "s", analytic.Analytic(log=log), trials=60)
    calls = log.read_text().split()
    assert len(calls) == len(set(calls)) == 60
    repeated = [t for t in result.trials if t.duplicate_of is not None]
    assert repeated
    for trial in repeated:
        first = next(t for t in result.trials if t.number == trial.duplicate_of)
        assert trial.plan_id == first.plan_id
        assert trial.accuracy == first.accuracy


def test_evaluations_are_remembered_without_their_study(tmp_path: Path) -> None:
    first = run(tmp_path)
    (tmp_path / JOURNAL).unlink()
    log = tmp_path / "calls"
    again = run(tmp_path, analytic.Analytic(log=log))
    assert not log.exists()
    assert _comparable(again) == _comparable(first)


def test_evaluations_under_another_key_are_not_used(tmp_path: Path) -> None:
    run(tmp_path, evaluation_key="weights-1")
    (tmp_path / JOURNAL).unlink()
    log = tmp_path / "calls"
    run(tmp_path, analytic.Analytic(log=log), evaluation_key="weights-2")
    assert len(log.read_text().split()) == TRIALS


def test_fresh_forgets_everything(tmp_path: Path) -> None:
    first = run(tmp_path)
    log = tmp_path / "calls"
    again = run(tmp_path, analytic.Analytic(log=log), fresh=True)
    assert len(log.read_text().split()) == TRIALS
    assert _comparable(again) == _comparable(first)


def test_a_failing_plan_is_tried_again_and_given_up(tmp_path: Path) -> None:
    bad = prepare(analytic.problem()).problem.uniform_plan(onexn(8), 0.75).id
    log = tmp_path / "calls"
    result = run(tmp_path / "s", analytic.Analytic(log=log, failing=frozenset({bad})), retries=2)
    failed = [t for t in result.trials if t.plan_id == bad]
    assert [t.state for t in failed] == ["FAIL"] * 3
    assert [t.attempt for t in failed] == [0, 1, 2]
    assert failed[1].retry_of == failed[0].number and failed[2].retry_of == failed[1].number
    assert all("RuntimeError: made to fail" in t.reason for t in failed)
    assert {t.kind for t in failed} == {"uniform"}
    assert log.read_text().split().count(bad) == 3
    assert len(result.plans) == TRIALS - 1  # the plan given up counts as well


@pytest.mark.parametrize("value", [float("nan"), 1.5, -0.1])
def test_an_impossible_accuracy_is_a_failure(tmp_path: Path, value: float) -> None:
    bad = analytic.problem().dense_plan().id
    good = analytic.Analytic()

    def evaluate(plan: Plan) -> Accuracy:
        if plan.id != bad:
            return good(plan)
        return Accuracy(value=value, kind="one-shot", split="validation", samples=1)

    result = run(tmp_path, evaluate, trials=5, retries=0)
    (failed,) = [t for t in result.trials if t.state == "FAIL"]
    assert "accuracy in [0, 1]" in failed.reason


def test_a_study_in_which_nothing_works_ends_early(tmp_path: Path) -> None:
    calls = []

    def evaluate(plan: Plan) -> Accuracy:
        calls.append(plan.id)
        raise OSError("no data")

    with pytest.raises(NoValidConfiguration, match="no data"):
        run(tmp_path, evaluate)
    assert len(calls) <= 12
    assert not any(t.state.name == "RUNNING" for t in stored(tmp_path))


def test_an_infeasible_budget_is_refused_with_the_smallest_that_is_met(tmp_path: Path) -> None:
    least = feasibility(prepare(analytic.problem()).problem).smallest_feasible_us
    with pytest.raises(BudgetInfeasible) as caught:
        run(tmp_path, problem=analytic.problem(0.5 * least))
    assert caught.value.smallest_feasible_ms == pytest.approx(least / 1e3)
    result = run(tmp_path / "least", problem=analytic.problem(least), trials=12)
    assert result.front


class StopAfter:
    """Asks for a stop once so many evaluations have been made."""

    def __init__(self, calls: int) -> None:
        self.left = calls
        self.evaluate = analytic.Analytic()

    def __call__(self, plan: Plan) -> Accuracy:
        self.left -= 1
        return self.evaluate(plan)

    def should_stop(self) -> bool:
        return self.left <= 0


def test_a_stop_keeps_what_has_ended_and_the_next_call_continues(tmp_path: Path) -> None:
    stop = StopAfter(6)
    with pytest.raises(Stopped):
        run(tmp_path, stop, progress=Progress(should_stop=stop.should_stop))
    trials = stored(tmp_path)
    assert sum(t.state.name == "COMPLETE" for t in trials) == 4  # one whole round of four
    assert not any(t.state.name == "RUNNING" for t in trials)
    assert stop.left == 0  # the rest of the second round was not waited for
    again = StopAfter(10**9)
    resumed = run(tmp_path, again)
    whole = StopAfter(10**9)
    assert len(resumed.plans) == len(run(tmp_path / "whole", whole).plans)
    assert again.left == whole.left + 6  # what had ended was not evaluated again
    assert _comparable(run(tmp_path)) == _comparable(run(tmp_path / "whole"))


def test_stops_use_up_no_tries(tmp_path: Path) -> None:
    for _ in range(4):
        stop = StopAfter(1)
        with pytest.raises(Stopped):
            run(tmp_path, stop, retries=0, progress=Progress(should_stop=stop.should_stop))
    result = run(tmp_path, retries=0)
    assert len(result.plans) == TRIALS
    assert {trial.plan_id for trial in result.trials} == set(result.plans)


def test_an_abort_leaves_nothing_running(tmp_path: Path) -> None:
    good = analytic.Analytic()
    calls = []

    def evaluate(plan: Plan) -> Accuracy:
        calls.append(plan.id)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return good(plan)

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, evaluate)
    states = [t.state.name for t in stored(tmp_path)]
    assert "RUNNING" not in states and "FAIL" not in states and states.count("COMPLETE") == 4
    log = tmp_path / "calls"
    result = run(tmp_path, analytic.Analytic(log=log))
    assert len(result.plans) == TRIALS
    # Six evaluations were done before the abort, two of them in the round that was aborted: those were
    # not told, but are remembered.
    assert len(log.read_text().split()) == TRIALS - 6


def test_a_time_budget_ends_the_study(tmp_path: Path) -> None:
    result = run(tmp_path, analytic.Analytic(seconds=0.05), trials=1000, time_budget_s=1.0)
    assert 4 <= len(result.plans) < 40


def test_progress_counts_plans(tmp_path: Path) -> None:
    events: list[ProgressEvent] = []
    run(tmp_path, progress=Progress(events.append), trials=10)
    done = [event.done for event in events if event.kind == "advance"]
    assert done == sorted(done) and done[-1] == 10
    assert {event.total for event in events} == {10}


def test_a_small_space_ends_when_nothing_new_is_found(tmp_path: Path) -> None:
    small = analytic.problem()
    layers = ("conv1", "fc", "layer3.1.conv1")
    problem = Problem(
        model="small",
        layers=layers,
        options={n: small.options[n][:4] if n != "conv1" else small.options[n] for n in layers},
        losses={n: small.losses[n] for n in layers},
    )
    result = run(tmp_path, PredictedAccuracy(problem), problem, trials=500)
    assert 2 <= len(result.plans) < 20
    assert {t.accuracy_kind for t in result.trials} == {"predicted"}


def test_told_as_they_come_the_study_ends_alike(tmp_path: Path) -> None:
    result = run(tmp_path, deterministic=False)
    assert len(result.plans) == TRIALS


def test_a_folder_has_one_writer(tmp_path: Path) -> None:
    with FileLock(tmp_path / LOCK), pytest.raises(RunError, match="one process at a time"):
        run(tmp_path)


def test_another_problem_does_not_continue_a_study(tmp_path: Path) -> None:
    run(tmp_path, trials=5)
    with pytest.raises(RunError, match="started with"):
        run(tmp_path, problem=analytic.problem(0.7 * DENSE_US), trials=10)


def test_a_continued_study_keeps_the_measurements_it_was_started_with(tmp_path: Path) -> None:
    first = run(tmp_path, trials=5)
    values = analytic.problem(0.5 * DENSE_US).to_json() | {"overhead_us": 13.0}
    again = run(tmp_path, problem=Problem.from_json(values), trials=6)
    assert again.problem == first.problem


def test_a_database_holds_a_study_as_well(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'study.db'}"
    first = run(tmp_path / "a", storage=url, trials=3)
    again = run(tmp_path / "b", storage=url, trials=4)
    assert _comparable(again)[:3] == _comparable(first)
    assert all(t.state.name == "COMPLETE" for t in stored(tmp_path, url) if t.state.is_finished())


@pytest.mark.parametrize("url", ["nonsense", "nosuch://x/y"])
def test_a_storage_must_be_a_database(tmp_path: Path, url: str) -> None:
    with pytest.raises(UsageError, match="sqlite:///"):
        run(tmp_path, storage=url)


def test_settings_come_from_the_space_and_are_checked() -> None:
    settings = StudySettings.of(StudySpace(trials=7, safety_margin=0.1), seed=5)
    assert (settings.trials, settings.safety_margin, settings.seed) == (7, 0.1, 5)
    for bad in ({"trials": 0}, {"batch_size": 0}, {"time_budget_s": 0.0}, {"seed_points": 1}):
        with pytest.raises(UsageError):
            StudySettings(**bad)
