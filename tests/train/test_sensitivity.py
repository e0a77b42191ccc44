"""Sensitivity: what is measured, what is interpolated, and that nothing is lost."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math
from pathlib import Path

import pytest

from autosparse.errors import AutosparseError, Stopped, UsageError
from autosparse.plans.plan import Plan
from autosparse.plans.pruning import sparsify
from autosparse.progress import Progress
from autosparse.records import DENSE, LayerChoice, onexn
from autosparse.train import presets
from autosparse.train.baseline import baseline
from autosparse.train.evaluate import OneShotEvaluator, Score
from autosparse.train.recipes import Recipe
from autosparse.train.sensitivity import (
    ALL,
    SensitivitySettings,
    loss_of,
    measure,
    measured_choices,
    reference,
)

NET = f"{Path(__file__).parent / 'tiny_net.py'}:make"
SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9)


def choice(n, sparsity, **pattern):
    return LayerChoice(pattern=onexn(n, **pattern), sparsity=sparsity)


OFFERED = (LayerChoice(), *(choice(n, s) for n in (4, 8, 16) for s in SPARSITIES))


@dataclasses.dataclass
class FakeEvaluator:
    """Accuracy falls with N and sparsity by a known rule; counts its calls."""

    key: str = "fake"
    calls: list = dataclasses.field(default_factory=list)

    def reference(self, dtype="f32"):
        self.calls.append("dense" if dtype == "f32" else f"dense/{dtype}")
        return Score(accuracy=0.9, cross_entropy=0.2, samples=100, classes=10)

    def score(self, plan):
        ((layer, picked),) = plan.layers.items()
        self.calls.append((layer, picked.label))
        return dataclasses.replace(
            Score(accuracy=0.9, cross_entropy=0.2, samples=100, classes=10),
            accuracy=0.9 - true_loss(picked),
        )

    def fingerprint(self):
        return self.key


def true_loss(picked):
    return 0.1 * math.log2(picked.pattern.group_out) * picked.sparsity**2


def test_all_choices_measured_come_back_as_they_are(tmp_path):
    losses = measure(
        FakeEvaluator(), {"a": OFFERED}, cache=tmp_path / "c", progress=Progress(), settings=ALL
    )
    assert set(losses["a"]) == {c.label for c in OFFERED[1:]}
    for picked in OFFERED[1:]:
        assert losses["a"][picked.label] == pytest.approx(true_loss(picked))


def test_ends_are_measured_and_the_rest_lies_between(tmp_path):
    evaluator = FakeEvaluator()
    losses = measure(evaluator, {"a": OFFERED}, cache=tmp_path / "c", progress=Progress())
    measured = {("a", choice(n, s).label) for n in (4, 16) for s in (0.5, 0.7, 0.9)}
    assert set(evaluator.calls) == {"dense", *measured} and len(evaluator.calls) == 7
    assert len(measured_choices({"a": OFFERED}, SensitivitySettings())) == 6
    for picked in OFFERED[1:]:  # the rule is smooth, so the estimate is close
        assert losses["a"][picked.label] == pytest.approx(true_loss(picked), abs=0.004)


def test_losses_never_fall_with_sparsity_although_scores_do(tmp_path):
    class Noisy(FakeEvaluator):
        def score(self, plan):
            found = super().score(plan)
            ((_, picked),) = plan.layers.items()
            return dataclasses.replace(
                found, accuracy=0.95 if picked.sparsity == 0.7 else found.accuracy
            )

    losses = measure(Noisy(), {"a": OFFERED}, cache=tmp_path / "c", progress=Progress())
    for n in (4, 8, 16):
        row = [losses["a"][choice(n, s).label] for s in SPARSITIES]
        assert row == sorted(row) and row[0] > 0


def test_kinds_of_pattern_are_kept_apart_and_sparsity_zero_costs_nothing(tmp_path):
    offered = (choice(8, 0.5), choice(8, 0.5, uniform=False), choice(8, 0.0), choice(4, 0.8))
    evaluator = FakeEvaluator()
    losses = measure(evaluator, {"a": offered}, cache=tmp_path / "c", progress=Progress())
    assert losses["a"]["1x8@0"] == 0.0
    assert losses["a"]["1x8-layerwide@0.5"] == pytest.approx(true_loss(choice(8, 0.5)))
    assert ("a", "1x8-layerwide@0.5") in evaluator.calls


def test_cross_entropy_decides_where_accuracy_is_blind():
    reference = Score(accuracy=0.9, cross_entropy=0.2, samples=100, classes=10)
    blind = dataclasses.replace(reference, cross_entropy=0.3)
    kappa = (0.9 - 0.1) / (math.log(10) - 0.2)
    assert loss_of(blind, reference) == pytest.approx(0.1 * kappa)
    ignorant = dataclasses.replace(reference, accuracy=0.1, cross_entropy=math.log(10))
    assert loss_of(ignorant, reference) == pytest.approx(0.8)
    better = dataclasses.replace(reference, accuracy=0.95, cross_entropy=0.1)
    assert loss_of(better, reference) == 0.0
    broken = dataclasses.replace(reference, cross_entropy=math.nan)
    assert loss_of(broken, reference) == pytest.approx(0.8)
    hopeless = Score(accuracy=0.1, cross_entropy=2.4, samples=10, classes=10)
    assert loss_of(hopeless, hopeless) == 0.0


def test_a_second_call_measures_nothing_and_a_broken_line_only_itself(tmp_path):
    cache = tmp_path / "deep" / "c.jsonl"
    first = measure(FakeEvaluator(), {"a": OFFERED}, cache=cache, progress=Progress())
    again = FakeEvaluator()
    assert measure(again, {"a": OFFERED}, cache=cache, progress=Progress()) == first
    assert again.calls == []
    other = FakeEvaluator(key="other")
    measure(other, {"a": OFFERED}, cache=cache, progress=Progress())
    assert len(other.calls) == 7
    lines = cache.read_text().splitlines()[:7]
    cache.write_text("\n".join([*lines[:6], lines[6][:20]]))  # the last write was cut off
    torn = FakeEvaluator()
    assert measure(torn, {"a": OFFERED}, cache=cache, progress=Progress()) == first
    assert torn.calls == [("a", "1x16@0.9")]
    assert json.loads(cache.read_text().splitlines()[-1])["label"] == "1x16@0.9"


def test_the_reference_is_evaluated_once_and_kept(tmp_path):
    evaluator = FakeEvaluator()
    first = reference(evaluator, cache=tmp_path / "c")
    measure(evaluator, {"a": OFFERED}, cache=tmp_path / "c", progress=Progress())
    assert reference(evaluator, cache=tmp_path / "c") == first
    assert evaluator.calls.count("dense") == 1
    later = FakeEvaluator()
    assert reference(later, cache=tmp_path / "c") == first
    assert later.calls == []


def test_a_score_that_is_not_finite_is_kept(tmp_path):
    class Broken(FakeEvaluator):
        def score(self, plan):
            return dataclasses.replace(super().score(plan), cross_entropy=math.inf)

    offered = (choice(4, 0.5), choice(4, 0.9))
    first = measure(Broken(), {"a": offered}, cache=tmp_path / "c", progress=Progress())
    assert first["a"]["1x4@0.5"] == pytest.approx(0.8)
    json.loads((tmp_path / "c").read_text().splitlines()[-1], parse_constant=pytest.fail)
    again = Broken()
    assert measure(again, {"a": offered}, cache=tmp_path / "c", progress=Progress()) == first
    assert again.calls == []


def test_a_stop_keeps_what_is_known(tmp_path):
    evaluator = FakeEvaluator()
    stop = Progress(should_stop=lambda: len(evaluator.calls) >= 4)
    with pytest.raises(Stopped):
        measure(evaluator, {"a": OFFERED}, cache=tmp_path / "c", progress=stop)
    rest = FakeEvaluator()
    measure(rest, {"a": OFFERED}, cache=tmp_path / "c", progress=Progress())
    assert len(evaluator.calls) == 4 and len(rest.calls) == 3


@dataclasses.dataclass(eq=False)
class FakeHandle:
    outcome: object


@dataclasses.dataclass
class FakePool:
    """Runs a call when it is waited for, and the last submitted first."""

    cores: int = 2
    most: int = 0

    def submit(self, function, *args):
        return FakeHandle((function, args))

    def wait(self, handles, timeout_s=None):
        self.most = max(self.most, len(handles))
        last = handles[-1]
        function, args = last.outcome
        last.outcome = FakeOutcome("ok", function(*args), "")
        return [last], list(handles[:-1])


@dataclasses.dataclass
class FakeOutcome:
    status: str
    value: object
    reason: str


def test_a_pool_gives_the_same_losses_in_any_order(tmp_path):
    layers = {name: OFFERED for name in "abc"}
    here = measure(FakeEvaluator(), layers, cache=tmp_path / "c", progress=Progress())
    events = []
    pool = FakePool()
    there = measure(
        FakeEvaluator(), layers, cache=tmp_path / "d", progress=Progress(events.append), pool=pool
    )
    assert here == there
    assert pool.most == 4
    assert events[-1].kind == "end" and events[-1].done == events[-1].total == 19


def test_a_failed_evaluation_is_named(tmp_path):
    class Failing(FakePool):
        def wait(self, handles, timeout_s=None):
            handles[0].outcome = FakeOutcome("died", None, "the worker ended")
            return [handles[0]], list(handles[1:])

    with pytest.raises(AutosparseError, match=r"1x4@0.5 in layer 'a' did not: the worker ended"):
        measure(
            FakeEvaluator(), {"a": OFFERED}, cache=tmp_path / "c", progress=Progress(), pool=Failing()
        )


def test_a_trained_network_loses_more_the_more_is_masked(tmp_path):
    recipe = Recipe(kind="dense", epochs=6, method="dense", lr=0.2, batch_size=64)
    dense = baseline(NET, "digits", resolution=8, recipe=recipe, threads=1)
    evaluator = OneShotEvaluator(
        model=NET, weights=dense.weights, data="digits", resolution=8, threads=1
    )
    offered = (LayerChoice(pattern=DENSE), choice(4, 0.25), choice(4, 0.5), choice(4, 1.0))
    losses = measure(evaluator, {"3": offered, "6": offered}, cache=tmp_path / "c", progress=Progress())
    top = evaluator.reference().accuracy
    assert top > 0.8
    for row in losses.values():
        assert row["1x4@0.25"] < row["1x4@0.5"] < 0.7
        assert row["1x4@1"] > top - 0.25  # nothing gets through: no better than guessing
    whole = evaluator.score(Plan(model=NET, layers={"6": choice(4, 0.5)}))
    assert losses["6"]["1x4@0.5"] == pytest.approx(loss_of(whole, evaluator.reference()))


def test_settings_are_checked():
    with pytest.raises(UsageError, match="0 or at least 2"):
        SensitivitySettings(sparsities=1)
    with pytest.raises(UsageError, match="ends or all"):
        SensitivitySettings(patterns="some")


def test_the_reference_of_another_dtype_is_kept_apart_and_evaluated_once(tmp_path):
    evaluator = FakeEvaluator()
    for _ in range(2):
        reference(evaluator, cache=tmp_path / "c")
        reference(evaluator, cache=tmp_path / "c", dtype="bf16")
    assert evaluator.calls == ["dense", "dense/bf16"]
    measure(evaluator, {"a": OFFERED}, cache=tmp_path / "c", progress=Progress())
    assert len(evaluator.calls) == 2 + 6


def test_losses_describe_the_masks_of_a_short_training() -> None:
    fields = {field.name: field.default for field in dataclasses.fields(OneShotEvaluator)}
    assert fields["criterion"] == presets.short(1000).settings["criterion"] == "l1"
    default = inspect.signature(sparsify).parameters["criterion"].default
    assert default == fields["criterion"], "what runs untrained has the masks that were evaluated"
    assert presets.full(1000).settings["criterion"] == "bpar"
