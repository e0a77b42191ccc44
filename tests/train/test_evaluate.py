"""Accuracy, batch-norm recalibration, and the one-shot evaluator."""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from autosparse import data, models
from autosparse.engine import compile
from autosparse.errors import DataError, PlanError
from autosparse.plans.plan import Plan
from autosparse.plans.pruning import sparsify
from autosparse.records import DENSE, LayerChoice, onexn
from autosparse.train import evaluate
from autosparse.train.evaluate import OneShotEvaluator, accuracy, recalibrate_batchnorm, score

NET = f"{Path(__file__).parent / 'tiny_net.py'}:make"
PLAN = Plan(model=NET, layers={"3": LayerChoice(pattern=onexn(8), sparsity=0.5)})


@pytest.fixture(scope="module")
def images():
    return data.resolve("digits", resolution=8)


@pytest.fixture
def net():
    return models.resolve(NET, classes=10, seed=3).module


def evaluator(**changes):
    fields = {"model": NET, "weights": None, "data": "digits", "resolution": 8, "seed": 3}
    return OneShotEvaluator(**{**fields, **changes})


@pytest.mark.smoke
def test_score_agrees_with_one_pass_by_hand(net, images):
    inputs, labels = next(iter(images.test.batches(len(images.test))))
    with torch.no_grad():
        logits = net(inputs).double()
    found = score(net, images.test, batch_size=50)
    assert found.samples == len(images.test) and found.classes == 10
    assert found.accuracy == float((logits.argmax(1) == labels).double().mean())
    assert found.cross_entropy == pytest.approx(
        float(functional.cross_entropy(logits, labels)), rel=1e-5
    )
    assert accuracy(net, images.test, 64) == found.accuracy
    assert score(net, images.test, limit=30).samples == 30


def test_score_leaves_the_module_as_it_was(net, images):
    net.train()
    net[1].eval()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    score(net, images.validation)
    assert net.training and not net[1].training and net[11].training
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_an_empty_split_has_no_accuracy(net):
    class Empty:
        def batches(self, *args, **kwargs):
            return iter(())

    with pytest.raises(DataError, match="at least one sample"):
        score(net, Empty())


def test_recalibration_averages_batch_statistics(net, images):
    inputs = [x for x, _ in images.train.batches(100, shuffle_seed=7, limit=300)]
    means = torch.stack([net[0](x).mean(dim=(0, 2, 3)) for x in inputs])
    variances = torch.stack([net[0](x).var(dim=(0, 2, 3)) for x in inputs])
    recalibrate_batchnorm(net, images.train, batches=3, batch_size=100, seed=7)
    torch.testing.assert_close(net[1].running_mean, means.mean(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(net[1].running_var, variances.mean(0), rtol=1e-4, atol=1e-5)
    assert net[1].momentum == 0.1 and not net[1].training


def test_recalibration_is_deterministic_and_touches_statistics_only(net, images):
    other = models.resolve(NET, classes=10, seed=3).module
    before = {k: v.clone() for k, v in net.state_dict().items()}
    other[1].running_mean.fill_(5.0)  # where it starts from does not matter
    for module in (net, other):
        recalibrate_batchnorm(module, images.train, batches=2, batch_size=64)
    after, same = net.state_dict(), other.state_dict()
    assert all(torch.equal(after[k], same[k]) for k in after)
    changed = {k.rpartition(".")[2] for k in after if not torch.equal(after[k], before[k])}
    assert changed == {"running_mean", "running_var", "num_batches_tracked"}
    recalibrate_batchnorm(other, images.train, batches=2, batch_size=64, seed=1)
    assert not torch.equal(other[1].running_mean, net[1].running_mean)


def test_recalibration_of_a_model_without_batchnorm_does_nothing(images):
    plain = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
    before = plain[1].weight.clone()
    recalibrate_batchnorm(plain, images.train)
    assert torch.equal(before, plain[1].weight)


def test_evaluator_does_what_it_says():
    images = data.resolve("digits", resolution=8, seed=3)
    expected = models.resolve(NET, classes=10, seed=3).module
    sparsify(expected, PLAN)
    recalibrate_batchnorm(expected, images.train, batches=4, batch_size=128, seed=3)
    found = evaluator()(PLAN)
    assert found.value == accuracy(expected, images.validation)
    assert (found.kind, found.split, found.samples) == (
        "one-shot",
        "validation",
        len(images.validation),
    )


def test_evaluator_travels_and_forgets_every_plan(net):
    first = evaluator()
    dense = first.dense()
    heavy = Plan(model=NET, layers={"6": LayerChoice(pattern=onexn(4), sparsity=1.0)})
    one = first.score(PLAN)
    assert first.score(heavy) != one
    assert first.score(PLAN) == one
    assert first.dense() == dense == first.score(Plan(model=NET))
    second = pickle.loads(pickle.dumps(first))
    assert second == first and second.score(PLAN) == one
    assert first.reference() != dense
    module = evaluate._bench(first).module
    first.dense()
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), net.parameters(), strict=True))


def test_evaluator_loads_once_and_keeps_one_model(monkeypatch):
    loaded = []
    resolve = models.resolve
    monkeypatch.setattr(
        evaluate.models, "resolve", lambda *a, **k: loaded.append(a) or resolve(*a, **k)
    )
    evaluate._BENCHES.clear()
    first, other = evaluator(), evaluator(limit=20)
    for _ in range(3):
        first(PLAN)
    assert len(loaded) == 1
    assert other(PLAN).samples == 20
    assert len(loaded) == 2 and list(evaluate._BENCHES) == [other]


def test_evaluator_refuses_a_plan_that_does_not_fit():
    with pytest.raises(PlanError, match="'x'"):
        evaluator()(Plan(model=NET, layers={"x": PLAN.layers["3"]}))


def test_fingerprint_follows_content_and_ignores_speed(tmp_path):
    from safetensors.torch import save_file

    path = tmp_path / "w.safetensors"
    state = models.resolve(NET, classes=10).module.state_dict()
    save_file(state, path)
    first = evaluator(weights=str(path))
    print_one = first.fingerprint()
    assert evaluator(weights=str(path), threads=1).fingerprint() == print_one
    assert evaluator(weights=str(path), limit=50).fingerprint() != print_one
    state["0.weight"] += 1
    save_file(state, path)
    assert first.fingerprint() != print_one


def test_uncertain_outputs_are_not_hidden(images):
    class Broken(nn.Module):
        def forward(self, x):
            return torch.full((len(x), 10), math.nan)

    assert math.isnan(score(Broken(), images.validation).cross_entropy)


# ------------------------------------------------------------------------------------------- bf16

BF16_PLAN = Plan(
    model=NET,
    layers={
        name: LayerChoice(
            pattern=onexn(8) if name == "3" else DENSE,
            sparsity=0.5 if name == "3" else 0.0,
            dtype="bf16",
        )
        for name in ("0", "3", "6", "12")
    },
)


def test_a_bf16_plan_is_evaluated_as_the_compiled_model_computes(images):
    found = evaluator()
    assert found(BF16_PLAN).dtype == "bf16" and found(BF16_PLAN).through == "emulation"
    assert found(PLAN).dtype == "f32" and found(PLAN).through == "torch"
    emulated = found.score(BF16_PLAN)
    split = data.resolve("digits", resolution=8, seed=3).validation
    inputs, labels = next(iter(split.batches(len(split))))
    with compile(found.pruned(BF16_PLAN), (inputs,), plan=BF16_PLAN, threads=1) as compiled:
        assert compiled.dtype == "bf16" and compiled.engine == "autosparse"
        logits = compiled(inputs)
    module = evaluate._bench(found).computed_in("bf16")
    with torch.no_grad():
        ours, exact = module(inputs), evaluate._bench(found).module(inputs)
    assert (logits - ours).abs().max() < 4 * 2**-8 * exact.abs().max()
    assert not torch.equal(ours, exact)
    assert (logits.argmax(1) == ours.argmax(1)).double().mean() > 0.99
    right = float((logits.argmax(1) == labels).double().mean())
    assert abs(emulated.accuracy - right) <= 0.01


def test_a_bf16_evaluation_leaves_no_trace_in_a_later_one():
    found = evaluator()
    before, dense = found.score(PLAN), found.dense("bf16")
    assert found.score(BF16_PLAN) == found.score(BF16_PLAN)
    assert found.score(PLAN) == before
    assert found.dense("bf16") == dense != found.dense()
    assert found.reference("bf16") != found.reference()
    all_dense = Plan(model=NET, layers={"0": LayerChoice(dtype="bf16")})
    assert found.score(all_dense) == dense


def test_a_model_is_exported_once_however_many_plans_are_evaluated(monkeypatch):
    exports = []
    export = evaluate.graph.Exported
    monkeypatch.setattr(
        evaluate.graph, "Exported", lambda *a: exports.append(a) or export(*a), raising=True
    )
    evaluate._BENCHES.clear()
    found = evaluator(limit=30)
    for plan in (PLAN, BF16_PLAN, BF16_PLAN):
        found(plan)
    assert len(exports) == 1
