"""Pruning without a search: what is written, what it reaches, and what is refused before any work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import autosparse
from autosparse import data, models
from autosparse.errors import ConfigError, PlanError, Stopped, UsageError
from autosparse.graph.rearrange import Rearrangement, undo
from autosparse.patterns import check, parse_label, parse_pattern
from autosparse.pipeline import PruneRequest, prune
from autosparse.plans.plan import Plan
from autosparse.progress import Progress
from autosparse.records import LayerChoice, onexn
from autosparse.train.evaluate import accuracy

NET = f"{Path(__file__).parent.parent / 'train' / 'tiny_net.py'}:make"
QUICK = ("epochs=2", "settings.ramp_end=0.5", "batch_size=64")


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """Weights that know something."""
    from autosparse.train.job import TrainJob
    from autosparse.train.launch import train
    from autosparse.train.recipes import Recipe

    job = TrainJob(
        model=NET,
        weights=None,
        data="digits",
        resolution=8,
        plan=Plan(model=NET),
        recipe=Recipe(kind="dense", epochs=3, method="dense", lr=0.05, batch_size=64),
        folder=str(tmp_path_factory.mktemp("dense")),
    )
    return train(job, Progress()).weights


def request_of(tmp_path, dense=None, **changes):
    given = {"model": NET, "weights": dense, "data_resolution": 8, "pattern": "1x8", "sparsity": 0.5}
    return PruneRequest(**(given | {"output": str(tmp_path / "out.safetensors")} | changes))


@pytest.mark.parametrize("method", ["magnitude", "obs"])
def test_weights_have_the_pattern_and_the_reported_accuracy(tmp_path, dense, method):
    outcome = prune(request_of(tmp_path, dense, method=method))
    state = load_file(outcome.file)
    assert set(outcome.labels) == {"3", "6"}  # all but the first and the last layer
    for name in outcome.labels:
        check((state[f"{name}.weight"] != 0).numpy(), parse_pattern("1x8"))
    assert outcome.sparsity == pytest.approx(0.5)
    module = models.resolve(NET, classes=10, weights=Path(outcome.file)).module
    images = data.resolve("digits", resolution=8)
    assert accuracy(module, images.test) == outcome.reached["test"].value
    assert accuracy(module, images.validation) == outcome.reached["validation"].value
    assert outcome.reached["test"].kind == "one-shot" and outcome.dense["test"].kind == "dense"
    with safe_open(outcome.file, "pt") as file:
        plan = Plan.from_json(json.loads(file.metadata()["plan"]))
    assert {name: choice.label for name, choice in plan.layers.items()} == outcome.labels
    assert "accuracy" in outcome.text() and outcome.file in outcome.text()


def test_reconstruction_loses_less_than_masking(tmp_path, dense):
    found = {
        method: prune(
            request_of(
                tmp_path, dense, method=method, sparsity=0.75, output=str(tmp_path / f"{method}.pt")
            )
        )
        for method in ("magnitude", "obs")
    }
    assert found["obs"].reached["test"].value > found["magnitude"].reached["test"].value
    assert len(found["obs"].notes) == 2


@pytest.mark.parametrize(
    ("method", "pattern", "sparsity"),
    [("subp", "1x8", 0.5), ("onexn", "filter", 0.5), ("srste", "2:4", 0.5), ("tvw", "tvw4", 0.75)],
)
def test_methods_that_train_write_what_they_reach(tmp_path, dense, method, pattern, sparsity):
    change = QUICK if method == "subp" else ("epochs=2", "batch_size=64")
    request = request_of(
        tmp_path, dense, method=method, pattern=pattern, sparsity=sparsity, change=change
    )
    outcome = prune(request)
    state = load_file(outcome.file)
    for name in outcome.labels:
        check((state[f"{name}.weight"] != 0).numpy(), parse_pattern(pattern))
    assert outcome.reached["test"].kind == "full"
    assert outcome.reached["test"].value > 0.3
    assert "of 2 was the best" in outcome.text()


@pytest.mark.parametrize("by", ["l1", "kept"])
def test_rearranged_filters_lie_beside_their_order(tmp_path, dense, by):
    outcome = prune(request_of(tmp_path, dense, method="magnitude", rearrange=by))
    for name in outcome.labels:
        check((load_file(outcome.file)[f"{name}.weight"] != 0).numpy(), parse_pattern("1x8"))
    saved = json.loads((tmp_path / "out.safetensors.rearrangement.json").read_text())
    module = models.resolve(NET, classes=10, weights=Path(outcome.file)).module
    undo(module, Rearrangement.from_json(saved))
    plain = load_file(dense)
    for name, value in module.named_parameters():
        kept = value != 0 if name.removesuffix(".weight") in outcome.labels else value == value
        torch.testing.assert_close(value[kept], plain[name][kept])


def test_a_stopped_training_goes_on(tmp_path, dense):
    request = request_of(tmp_path, dense, method="subp", change=QUICK, seed=5)
    epochs = []

    def sink(event):
        if event.message.startswith("epoch"):
            epochs.append(event.message)

    with pytest.raises(Stopped):
        prune(request, progress=Progress(sink, should_stop=lambda: len(epochs) >= 1))
    assert not Path(request.output).exists()
    prune(request, progress=Progress(sink))
    assert len(epochs) == 2


def test_a_plan_says_more_than_one_pattern(tmp_path, dense):
    plan = Plan(
        model=NET,
        layers={
            "3": LayerChoice(pattern=onexn(4), sparsity=0.5),
            "6": LayerChoice(pattern=parse_pattern("tw8"), sparsity=0.6),
        },
    )
    plan.save(tmp_path / "plan.yaml")
    outcome = autosparse.prune(
        model=NET,
        weights=dense,
        data_resolution=8,
        plan=str(tmp_path / "plan.yaml"),
        output=str(tmp_path / "out.pth"),
    )
    state = torch.load(outcome.file, weights_only=True)
    for name, choice in plan.layers.items():
        check((state[f"{name}.weight"] != 0).numpy(), choice.pattern)


def test_include_may_name_what_is_left_out_by_default(tmp_path, dense):
    outcome = prune(request_of(tmp_path, dense, method="magnitude", include=("*",), exclude=("6",)))
    assert set(outcome.labels) == {"0", "3", "12"}


@pytest.mark.parametrize(
    ("change", "error", "told"),
    [
        ({"method": "magic"}, UsageError, "method must be one of magnitude, obs"),
        ({"pattern": None, "sparsity": None}, UsageError, "either a pattern or a plan"),
        ({"sparsity": None}, UsageError, "a sparsity goes with a pattern"),
        ({"sparsity": 1.5}, UsageError, r"sparsity must lie in \[0, 1\]"),
        ({"pattern": "1y8"}, PlanError, "1x16"),
        ({"pattern": "2:4", "sparsity": 0.75}, PlanError, "2:4"),
        ({"pattern": "1x64"}, PlanError, "larger than the layer's"),
        ({"output": "out.bin"}, UsageError, r"ends in \.safetensors"),
        ({"recipe": "short"}, UsageError, "goes with a method that trains"),
        ({"method": "srste", "recipe": "short"}, UsageError, "of the method asked for, srste"),
        ({"method": "subp", "change": ("epochs=x",)}, UsageError, "whole number"),
        ({"train_device": "gpu"}, UsageError, "auto, cpu, cuda"),
        ({"exclude": ("*",)}, UsageError, "at least one layer must be pruned"),
        ({"method": "subp", "pattern": "tw8"}, PlanError, "known beforehand"),
        ({"rearrange": "some"}, UsageError, "rearrange must be one of"),
        ({"rearrange": "l1", "method": "onexn"}, UsageError, "--set rearrange=l1"),
        ({"criterion": "l3", "method": "magnitude"}, UsageError, "criterion must be one of"),
        ({"method": "tvw", "pattern": "1x8"}, PlanError, "take tw"),
        ({"method": "gmp", "pattern": "2:4"}, PlanError, "take srste or onexn"),
        ({"method": "tw", "pattern": "2:4"}, PlanError, "take srste, or tvw"),
        ({"method": "subp", "change": ("epochs=-1",)}, UsageError, "at least 1, but got epochs=-1"),
        ({"method": "subp", "change": ("distill=2",)}, UsageError, "but got distill=2"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_any_work(monkeypatch, tmp_path, change, error, told):
    for work in ("baseline", "train", "reconstructed", "sparsify"):
        monkeypatch.setattr(f"{prune.__module__}.{work}", lambda *_, **__: pytest.fail("it began"))
    output = tmp_path / "out.safetensors"
    with pytest.raises(error, match=told):
        prune(request_of(tmp_path, **change))
    assert not output.exists()


@pytest.mark.parametrize(
    ("pattern", "sparsity", "pruned", "told"),
    [
        ("1x32", 0.5, "6", "dense stay 3 (a block of 32 outputs is larger than the layer's 20)"),
        ("tw32", 0.5, "6", "dense stay 3 (a tile of 32 outputs is larger than the layer's 20)"),
        ("4:16", 0.75, "3", "dense stay 6 (the layer's 20 inputs are no multiple of 16)"),
    ],
)
@pytest.mark.parametrize("method", ["magnitude", "obs", "onexn"])
def test_a_layer_that_cannot_have_the_pattern_stays_dense_and_is_told(
    tmp_path, dense, method, pattern, sparsity, pruned, told
):
    change = ("epochs=1", "batch_size=64") if method == "onexn" else ()
    request = request_of(
        tmp_path, dense, method=method, pattern=pattern, sparsity=sparsity, change=change
    )
    outcome = prune(request)
    assert set(outcome.labels) == {pruned} and told in outcome.text().splitlines()
    state = load_file(outcome.file)
    check((state[f"{pruned}.weight"] != 0).numpy(), parse_pattern(pattern))
    left = {"3": "6", "6": "3"}[pruned]
    assert torch.count_nonzero(state[f"{left}.weight"]) > 0.99 * state[f"{left}.weight"].numel()


@pytest.mark.parametrize(
    ("label", "told"),
    [
        ("1x32@0.5", "'3' cannot be 1x32@0.5: a block of 32 outputs is larger than the layer's 20"),
        ("2:4@0.6", "'3' cannot be 2:4@0.6: 2:4 prunes exactly 0.5, but got 0.6"),
        ("tvw8@0.25", "'3' cannot be tvw8@0.25: tvw8 prunes at least 0.5"),
    ],
)
def test_a_plan_that_a_layer_cannot_follow_is_refused_before_any_work(
    monkeypatch, tmp_path, label, told
):
    monkeypatch.setattr(f"{prune.__module__}.baseline", lambda *_, **__: pytest.fail("it began"))
    pattern, sparsity = parse_label(label)
    plan = Plan(model=NET, layers={"3": LayerChoice(pattern=pattern, sparsity=sparsity)})
    plan.save(tmp_path / "plan.yaml")
    with pytest.raises(PlanError, match=told):
        prune(request_of(tmp_path, plan=str(tmp_path / "plan.yaml"), pattern=None, sparsity=None))


def test_a_file_is_replaced_only_on_demand(tmp_path, dense):
    request = request_of(tmp_path, dense, method="magnitude")
    Path(request.output).write_text("mine")
    with pytest.raises(UsageError, match="--force"):
        prune(request)
    assert Path(request.output).read_text() == "mine"


def test_a_gpu_that_is_not_there_is_refused(tmp_path, dense):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UsageError, match="sees 0 GPUs"):
        prune(request_of(tmp_path, dense, train_device="cuda:0"))


def test_the_command_line_says_what_is_missing():
    from autosparse.cli.app import command

    for line, told in ((["prune"], "--model"), (["prune", "--model", "resnet18"], "-o weights")):
        with pytest.raises(ConfigError, match=told):
            command().main(line, standalone_mode=False)
