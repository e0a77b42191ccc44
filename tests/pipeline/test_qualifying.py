"""From a study to published results on a made table, where whole models take what a factor says."""

from __future__ import annotations

import csv
import dataclasses
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from autosparse import data
from autosparse.config import SearchConfig
from autosparse.devices.device import find
from autosparse.errors import ExitCode
from autosparse.measuring.stopwatch import WHOLE
from autosparse.pipeline.measured import ledger as ledgers
from autosparse.pipeline.measured.finalists import corrected, qualify, qualify_again, uncorrected
from autosparse.pipeline.measured.ledger import Ledger, dense_name
from autosparse.pipeline.measured.session import (
    Contestant,
    ContestantResult,
    LayerTime,
    SessionRequest,
    SessionResult,
)
from autosparse.pipeline.measured.tables import outside_us, to_problem
from autosparse.pipeline.results.findings import Findings
from autosparse.pipeline.results.outcomes import SearchOutcome
from autosparse.pipeline.subject.arithmetic import Arithmetic
from autosparse.pipeline.subject.survey import Survey
from autosparse.pipeline.trained.accuracies import DenseAccuracies
from autosparse.pipeline.verbs import search as search_run
from autosparse.plans.plan import Plan
from autosparse.progress import Progress
from autosparse.records import (
    Accuracy,
    CpuProfile,
    HardwareProfile,
    LayerInfo,
    LayerShape,
    WholeLatency,
)
from autosparse.run_folders import RunFolder
from autosparse.searching import knapsack
from autosparse.searching import space as spaces
from autosparse.searching.pool import SerialPool
from autosparse.searching.problem import Problem, Terms, prepare
from autosparse.searching.study import run_study
from autosparse.searching.trials import StudyResult, StudySettings
from autosparse.train.evaluate import Score
from autosparse.tuning.request import TuneResult

sys.path.insert(0, str(Path(__file__).parents[1] / "golden"))
import analytic

BARE = prepare(analytic.problem()).problem
REACH = knapsack.feasibility(BARE)
TRIALS = 24
TEST_IS_WORSE = 0.015


@dataclass(frozen=True)
class Both:
    """Accuracies of the made table on both splits; on test data all is a little worse."""

    bench: Bench

    def __call__(self, plan: Plan) -> Accuracy:
        return self.bench.evaluate(plan)

    def on_both(self, plan: Plan) -> tuple[Accuracy, Accuracy]:
        validation = analytic.Analytic()(plan)
        test = dataclasses.replace(validation, split="test", value=validation.value - TEST_IS_WORSE)
        return validation, test


@dataclass
class Bench:
    """A search up to its study, with whole models that take `slowdown` times what is predicted."""

    folder: Path
    budget_us: float
    slowdown: float
    dtypes: tuple[str, ...] = ("f32",)
    evaluated: list[str] = field(default_factory=list)
    sessions: list[SessionRequest] = field(default_factory=list)

    def session(self, request: SessionRequest, *_: Any) -> SessionResult:
        self.sessions.append(request)
        return SessionResult(results=tuple(map(self.figure, request.contestants)))

    def figure(self, contestant: Contestant) -> ContestantResult:
        us = REACH.dense_us
        if contestant.plan is not None:
            us = self.slowdown * prepare(self.problem).problem.predicted_us(contestant.plan)
        latency = WholeLatency(
            median_ms=us / 1e3, ci_low_ms=0.99 * us / 1e3, ci_high_ms=1.01 * us / 1e3, repeats=9,
            threads=1, batch_size=1, dtype=contestant.dtype,
        )  # fmt: skip
        return ContestantResult(name=contestant.name, latency=latency)

    def evaluate(self, plan: Plan) -> Accuracy:
        self.evaluated.append(plan.id)
        return analytic.Analytic()(plan)

    def dense(self, split: Literal["test", "validation"], value: float) -> dict[str, Accuracy]:
        return {
            dtype: Accuracy(value=value, kind="dense", split=split, samples=1000, dtype=dtype)
            for dtype in self.dtypes
        }

    @property
    def problem(self) -> Problem:
        table = analytic.problem(self.budget_us)
        return (
            table if self.dtypes == ("f32",) else analytic.with_bf16(table, lambda _: 0.6, loss=0.004)
        )

    def survey(self) -> Survey:
        shape = LayerShape(op="conv2d", batch_size=1, in_channels=64, out_channels=64)
        layers = tuple(LayerInfo(name=name, shape=shape) for name in BARE.layers)
        cpu = CpuProfile(
            model="made", vendor="made", architecture="x86_64", isa_cpu=(), isa_usable=(),
            simd_width_bits=128, cores_physical=1, cores_logical=1, cores_usable=1, affinity=(0,),
        )  # fmt: skip
        space, host = spaces.load("cpu"), HardwareProfile(hardware_id="made", cpu=cpu)
        return Survey(
            config=SearchConfig(
                model=BARE.model,
                latency_budget=f"{self.budget_us!r}us",
                train="none",
                top_k=3,
                one_shot="masks",  # there is no such model
            ),
            hardware=host,
            device=find("cpu", host),
            space=space,
            layers=layers,
            scopes=space.applicable(layers),
            classes=10,
            input_shape=(3, 32, 32),
            data_resolution=32,
            threads=1,
            database=f"sqlite:///{self.folder}/t.db",
            loaded=data.resolve("digits", resolution=32),
            arithmetic=Arithmetic(dtypes=self.dtypes),
        )

    def study(self) -> StudyResult:
        with SerialPool() as pool:
            return run_study(
                self.problem,
                StudySettings(trials=TRIALS, seed=3),
                self.evaluate,
                pool=pool,
                folder=self.folder / "study",
                progress=Progress(),
            )

    def ledger(self) -> Ledger:
        request = SessionRequest(
            model=BARE.model, classes=10, input_shape=(3, 32, 32), batch_size=1, threads=1,
            contestants=(), policy=WHOLE,
        )  # fmt: skip
        ledger = Ledger(
            self.folder / "sessions.jsonl", request, "w", SerialPool(), Both(self), Progress(),
            self.dtypes,
        )  # fmt: skip
        ledger.measure_references()
        return ledger

    def findings(self) -> Findings:
        tuning = TuneResult(
            options=self.problem.options, considered=9, timed=9, reused=0, beaten=0, skipped=(),
            failed=(),
            rows=(), unmeasured={"norm": "no kernel"}, unfinished=(), seconds=0.0,
        )  # fmt: skip
        return Findings(
            survey=self.survey(),
            command="autosparse search",
            dense_accuracies=DenseAccuracies(
                test=self.dense("test", 0.91), validation=self.dense("validation", 0.92)
            ),
            tuning=tuning,
            study=None,
            problem=prepare(self.problem).problem,
            ledger=self.ledger(),
            entrants=(),
        )

    def finish(
        self, end: Callable[[search_run._Work, Findings], SearchOutcome]
    ) -> tuple[SearchOutcome, Path]:
        run = RunFolder.create(
            self.folder / "results", model=BARE.model, hardware_id="made", config_yaml="",
            fingerprint="f",
        )  # fmt: skip
        with run, SerialPool() as pool:
            work = search_run._Work(
                survey=self.survey(), run=run, pool=pool, progress=Progress(), deadline_s=None
            )
            return end(work, self.findings()), run.path


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Bench]:
    def made(budget_us: float, slowdown: float, dtypes: tuple[str, ...] = ("f32",)) -> Bench:
        bench = Bench(tmp_path, budget_us, slowdown, dtypes)
        monkeypatch.setattr(ledgers, "run_apart", bench.session)
        return bench

    return made


def rows_of(run: Path) -> list[dict[str, str]]:
    with (run / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def test_what_was_searched_is_published_although_nothing_measured_meets_the_budget(
    make: Callable[..., Bench],
) -> None:
    bench = make(1.1 * REACH.fastest_us, 2.0)
    study = bench.study()
    outcome, run = bench.finish(
        lambda work, findings: search_run._qualify(work, findings, study, Path("w"))
    )
    assert outcome.exit_code is ExitCode.INFEASIBLE
    assert len(rows_of(run)) == len(study.trials) >= TRIALS
    values = outcome.document
    assert json.loads((run / "pareto.json").read_text()) == values
    assert len(values["configs"]) == 3, "the nearest, as many as were asked for"
    assert not any(config["feasible"] for config in values["configs"])
    assert values["hypervolume"] and values["baselines"]
    skipped = {row["what"] for row in values["skipped"]}
    assert "norm" in skipped
    assert {f"{item.layer} {item.label}" for item in study.dropped} <= skipped


def test_the_smallest_feasible_budget_is_one_that_a_measured_plan_meets(
    make: Callable[..., Bench],
) -> None:
    bench = make(1.1 * REACH.fastest_us, 2.0)
    study = bench.study()
    outcome, _ = bench.finish(
        lambda work, findings: search_run._qualify(work, findings, study, Path("w"))
    )
    least_ms = outcome.document["feasibility"]["smallest_feasible_ms"]
    uppers = [config["latency_ci_ms"][1] for config in outcome.document["configs"]]
    assert least_ms >= min(uppers) > bench.budget_us / 1e3
    printed = float(outcome.summary.split("--latency-budget ")[1].split("ms")[0])
    assert printed >= least_ms
    again = make(1e3 * printed, 2.0)
    again.folder = bench.folder / "again"
    found = qualify(again.study(), again.ledger(), top_k=3, progress=Progress())
    assert found.chosen, "and with that budget there must be a result"


def test_an_earlier_front_is_run_again_and_stays_while_it_meets_the_budget(
    make: Callable[..., Bench],
) -> None:
    budget_us = 0.6 * REACH.dense_us
    bench = make(budget_us, 0.9)
    study = bench.study()
    before = qualify(study, bench.ledger(), top_k=3, progress=Progress())
    chosen = [each.plan for each in before.chosen]
    beside = min(before.all, key=lambda each: each.latency_ms).plan
    over = study.problem.dense_plan()

    def again(slowdown: float, uniform: Plan | None) -> Any:
        now = make(budget_us, slowdown)
        now.folder = bench.folder / f"at-{slowdown}-{uniform and uniform.id}"
        ledger = now.ledger()
        return now, qualify_again(study, ledger, chosen=chosen, uniform=uniform, progress=Progress())

    now, found = again(0.905, beside)
    assert [each.plan.id for each in found.chosen] == [plan.id for plan in chosen]
    assert found.uniform.plan.id == beside.id
    for old, new in zip(before.chosen, found.chosen, strict=True):
        assert new.latency_ms == pytest.approx(old.latency_ms * 0.905 / 0.9)
    ran = [{c.name for c in session.contestants if c.plan} for session in now.sessions]
    assert ran == [set(), {plan.id for plan in (*chosen, beside)}], "all of them in one session"
    assert again(0.905, over)[1].uniform is None, "one over the budget is none to compare with"
    assert again(0.905, None)[1].uniform is None
    assert again(2.0, None)[1] is None, "and what no longer meets it is chosen anew"


def test_plans_of_an_earlier_front_take_part_where_the_table_has_them(
    make: Callable[..., Bench],
) -> None:
    bench = make(0.6 * REACH.dense_us, 1.0)
    study = bench.study()
    layer, choice = next(
        (name, option.choice)
        for name in study.problem.layers
        for option in study.problem.options[name]
        if option.choice.sparsity > 0
    )
    other_kernel = dataclasses.replace(choice, kernel="one of another day")
    known = Plan(model=BARE.model, layers={layer: other_kernel}, note="of an earlier run")
    unknown = [
        Plan(model=BARE.model, layers={layer: dataclasses.replace(choice, sparsity=0.123)}),
        Plan(model=BARE.model, layers={"no such layer": choice}),
        Plan(model="another model", layers={layer: choice}),
    ]
    found = qualify(study, bench.ledger(), top_k=3, progress=Progress(), also=[known, *unknown])
    ran = [each.plan for each in found.all if each.plan.note == "of an earlier run"]
    assert [plan.layers[layer] for plan in ran] == [study.problem.option(layer, choice).choice]
    assert not {plan.id for plan in unknown} & {each.plan.id for each in found.all}


def out_of_reach(work: search_run._Work, findings: Findings) -> SearchOutcome:
    """Ends a search that masks before any training, so that dense weights are not read again."""
    return search_run._out_of_reach(work, findings, Path("unread"))


def test_a_table_without_an_assignment_gives_the_fastest_really_run(
    make: Callable[..., Bench],
) -> None:
    bench = make(0.5 * REACH.fastest_us, 2.0)
    outcome, run = bench.finish(out_of_reach)
    (config,) = outcome.document["configs"]
    assert outcome.exit_code is ExitCode.INFEASIBLE
    assert config["id"] == knapsack.fastest(BARE)[0].id
    least_ms = outcome.document["feasibility"]["smallest_feasible_ms"]
    assert least_ms == pytest.approx(2.02 * REACH.fastest_us / 1e3)
    assert {"search", "norm"} <= {row["what"] for row in outcome.document["skipped"]}
    assert json.loads((run / "state.json").read_text())["status"] == "infeasible"


@pytest.mark.smoke
def test_a_met_budget_is_done(make: Callable[..., Bench]) -> None:
    bench = make(0.6 * REACH.dense_us, 1.0)
    study = bench.study()
    outcome, run = bench.finish(
        lambda work, findings: search_run._qualify(work, findings, study, Path("w"))
    )
    assert outcome.exit_code is ExitCode.DONE
    assert outcome.document["verdict"]["id"] is not None
    assert outcome.document["feasibility"]["smallest_feasible_ms"] < bench.budget_us / 1e3
    assert dense_name("f32") not in {config["id"] for config in outcome.document["configs"]}
    assert json.loads((run / "state.json").read_text())["status"] == "done"


@pytest.mark.parametrize(
    ("budget", "slowdown"),
    [(0.6 * REACH.dense_us, 1.0), (1.1 * REACH.fastest_us, 2.0), (0.5 * REACH.fastest_us, 2.0)],
    ids=["met", "nothing measured meets it", "out of reach"],
)
def test_at_every_budget_configurations_and_dense_are_of_the_test_split(
    make: Callable[..., Bench], budget: float, slowdown: float
) -> None:
    bench = make(budget, slowdown)
    if budget < REACH.fastest_us:
        outcome, run = bench.finish(out_of_reach)
    else:
        study = bench.study()
        outcome, run = bench.finish(
            lambda work, findings: search_run._qualify(work, findings, study, Path("w"))
        )
    values = outcome.document
    assert values["configs"]
    for config in values["configs"]:
        assert (config["accuracy_split"], config["accuracy_kind"]) == ("test", "one-shot")
        assert config["accuracy"] == pytest.approx(config["validation_accuracy"] - TEST_IS_WORSE)
        assert config["one_shot_accuracy"] == config["validation_accuracy"]
    assert values["dense"]["accuracy"]["split"] == "test"
    assert values["dense"]["validation"]["f32"]["split"] == "validation"
    assert values["given_weights"] is False
    if values["verdict"]["id"]:
        assert "test accuracy" in values["verdict"]["text"]
    assert {row["accuracy_split"] for row in rows_of(run) if row["accuracy"]} <= {"validation"}
    with (run / "pareto.csv").open() as file:
        assert {row["accuracy_split"] for row in csv.DictReader(file)} == {"test"}


def test_what_the_study_evaluated_is_not_evaluated_again(
    make: Callable[..., Bench],
) -> None:
    bench = make(0.6 * REACH.dense_us, 1.05)
    study = bench.study()
    before = set(bench.evaluated)
    bench.evaluated.clear()
    bench.finish(lambda work, findings: search_run._qualify(work, findings, study, Path("w")))
    assert not before & set(bench.evaluated)
    assert len(bench.evaluated) == len(set(bench.evaluated))


def test_plans_of_both_types_share_their_sessions(make: Callable[..., Bench]) -> None:
    bench = make(0.6 * REACH.dense_us, 1.05, ("f32", "bf16"))
    study = bench.study()
    outcome, run = bench.finish(
        lambda work, findings: search_run._qualify(work, findings, study, Path("w"))
    )
    first, *others = bench.sessions
    assert [(c.name, c.dtype) for c in first.contestants] == [
        ("dense", "f32"),
        ("dense-bf16", "bf16"),
        ("torch", "f32"),
    ]
    assert len(others) > 1
    for session in others:
        assert {c.dtype for c in session.contestants} == {"f32", "bf16"}
        assert all(c.plan is None or c.plan.dtype == c.dtype for c in session.contestants)
    values = outcome.document
    assert values["dtypes"] == ["f32", "bf16"]
    assert {config["dtype"] for config in values["configs"]} == {"bf16"}, "its table is faster"
    assert "runs in bf16" in values["verdict"]["text"]
    assert {row["dtype"] for row in rows_of(run)} == {"f32", "bf16"}
    fastest, *_, slowest = values["predicted_front"]
    assert (fastest["dtype"], slowest["dtype"]) == ("bf16", "f32"), "only f32 is as good as dense"
    assert set(values["policy"]["reuse_bytes"]) == {"f32", "bf16"}


def test_every_type_gets_its_own_correction(make: Callable[..., Bench]) -> None:
    bench = make(0.6 * REACH.dense_us, 1.0, ("f32", "bf16"))
    slow = {"f32": 1.2, "bf16": 1.5}
    table = prepare(bench.problem).problem
    ledger = bench.ledger()
    plans = [table.dense_plan(dtype) for dtype in table.dtypes]
    ledger.measure(plans)
    for plan in plans:
        terms = table.terms_of(plan.dtype)
        layers_us = uncorrected(table).predicted_us(plan) - terms.overhead_us
        us = terms.overhead_us + slow[plan.dtype] * layers_us
        figure = ledger.measured[plan.id]
        latency = dataclasses.replace(figure.latency, median_ms=us / 1e3)
        ledger.measured[plan.id] = dataclasses.replace(figure, latency=latency)
    found = corrected(table, ledger)
    for dtype, factor in slow.items():
        assert found.terms_of(dtype).correction == pytest.approx(factor)
    del ledger.measured[plans[1].id]
    assert corrected(table, ledger).terms_of("bf16") == table.terms_of("bf16")


def test_a_ledger_of_one_type_is_continued_in_two(make: Callable[..., Bench]) -> None:
    bench = make(0.6 * REACH.dense_us, 1.0)
    bench.ledger()
    bench.dtypes = ("f32", "bf16")
    ledger = bench.ledger()
    assert len(bench.sessions) == 2, "the dense model is not known in bf16 yet"
    assert ledger.dense("bf16").latency.dtype == "bf16"
    bench.ledger()
    assert len(bench.sessions) == 2


def test_overheads_are_those_of_the_dense_model_outside_the_table(make: Callable[..., Bench]) -> None:
    bench = make(0.6 * REACH.dense_us, 1.0, ("f32", "bf16"))
    ledger = bench.ledger()
    first, *others = BARE.layers
    for name, other_us, unlisted_us in (("dense", 30.0, 8.0), ("dense-bf16", 20.0, 5.0)):
        times = [
            LayerTime(name=layer, label="dense", kernel="k", sparsity=0.0, median_us=us, why="")
            for layer, us in ((first, 100.0), ("depthwise", unlisted_us))
        ]
        ledger.references[name] = dataclasses.replace(
            ledger.references[name], layers=tuple(times), other_us=other_us
        )
    tuning = bench.findings().tuning
    scores = {
        dtype: Score(accuracy=accuracy, cross_entropy=0.3, samples=100, classes=10)
        for dtype, accuracy in (("f32", 0.9), ("bf16", 0.88))
    }
    table = to_problem(bench.survey(), tuning, BARE.losses, scores, ledger)
    assert table.dtypes == ("f32", "bf16") and set(table.layers) == {first, *others}
    assert table.terms_of("f32").overhead_us == 38.0
    assert table.terms_of("bf16").overhead_us == 25.0
    assert table.terms_of("bf16").loss == pytest.approx(0.02)
    assert table.dense_accuracy == 0.9


def test_a_layer_is_offered_what_the_space_has_for_it_alone(make: Callable[..., Bench]) -> None:
    """The tuner times all patterns of all layers, 1x32 on 16 outputs too."""
    bench = make(0.6 * REACH.dense_us, 1.0)
    whole = bench.survey()
    narrow = next(scope for scope in whole.scopes if scope.choices)
    few = dataclasses.replace(narrow, choices=narrow.choices[:2])
    scopes = tuple(few if scope is narrow else scope for scope in whole.scopes)
    score = Score(accuracy=0.9, cross_entropy=0.3, samples=100, classes=10)
    table = to_problem(
        dataclasses.replace(whole, scopes=scopes),
        bench.findings().tuning,
        BARE.losses,
        {"f32": score},
        bench.ledger(),
    )
    offered = {o.choice.label for o in table.options[narrow.name]}
    assert offered == {"dense", *(choice.label for choice in few.choices)}
    unoffered = {scope.name for scope in scopes if len(scope.choices) < 3}
    assert all(len(o) > 3 for name, o in table.options.items() if name not in unoffered)


def test_operators_slower_than_the_whole_count_by_their_share(make: Callable[..., Bench]) -> None:
    dense = make(REACH.dense_us, 1.0).ledger().dense("f32")
    whole_us = 1e3 * dense.latency.median_ms
    layers = [
        LayerTime(name=name, label="dense", kernel="k", sparsity=0.0, median_us=us, why="")
        for name, us in (("listed", 6 * whole_us), ("depthwise", whole_us))
    ]
    slow = dataclasses.replace(dense, layers=tuple(layers), other_us=3 * whole_us)
    assert outside_us(slow, {"listed"}) == pytest.approx(0.4 * whole_us)
    assert outside_us(dense, {"listed"}) == 0.0, "nobody timed its operators"


def test_an_overhead_that_leaves_nothing_for_layers_changes_no_prediction(
    make: Callable[..., Bench],
) -> None:
    bench = make(0.6 * REACH.dense_us, 1.0)
    ledger = bench.ledger()
    plan, _ = knapsack.fastest(BARE)
    ledger.measure([plan])
    terms = Terms(overhead_us=10 * REACH.dense_us, correction=1.25, loss=0.0)
    heavy = dataclasses.replace(BARE, terms={"f32": terms})
    assert corrected(heavy, ledger).terms_of("f32").correction == 1.25
    assert "predictions stay as they were" in ledger.disturbances[0]
