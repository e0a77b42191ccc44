"""What models people bring can train, and which are refused before any work."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from autosparse import data
from autosparse.errors import ModelError
from autosparse.models.outputs import logits_of
from autosparse.plans.plan import Plan
from autosparse.progress import Progress
from autosparse.records import LayerChoice, onexn
from autosparse.train.check import check_module, memory_format
from autosparse.train.evaluate import score
from autosparse.train.job import TrainJob
from autosparse.train.launch import train
from autosparse.train.recipes import Recipe

sys.path.insert(0, str(Path(__file__).parent))
import odd_nets
import tiny_net

FILE = Path(__file__).parent / "odd_nets.py"
GOOD = ("Net", "Viewing", "Tuple", "TupleInTraining", "Dict", "Unnamed", "Record")
RECIPE = Recipe(kind="short", epochs=2, settings={"ramp_start": -0.5, "ramp_end": 0.5})


@pytest.fixture(scope="module")
def split():
    return data.resolve("digits", resolution=8).validation


def job_of(factory, folder):
    plan = Plan(model="", layers={"body.3": LayerChoice(pattern=onexn(4), sparsity=0.5)})
    return TrainJob(
        model=f"{FILE}:{factory}", weights=None, data="digits", resolution=8, plan=plan,
        recipe=RECIPE, folder=str(folder), threads=1,
    )  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_what_evaluates_also_trains(name, split):
    torch.manual_seed(0)
    module = getattr(odd_nets, name)(10)
    check_module(module, split, 10, trains=True)
    found = score(module, split)
    assert (found.classes, found.samples) == (10, len(split))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("FeaturesFirst", r"be evaluated .* logits \[batch, 10\].* tuple of a tensor \[4, 32\]"),
        ("Images", r"be evaluated .* got a tensor \[4, 8, 4, 4\]"),
        ("WithoutGradients", "train .* does not require grad"),
        ("WritingInPlace", "train .* in-place"),
        ("Infinite", "train .* loss must be finite before the first step"),
        ("Failing", "train .* RuntimeError: no targets were given"),
    ],
)
def test_what_cannot_train_is_refused_with_the_reason(name, reason, split):
    with pytest.raises(ModelError, match=reason):
        check_module(getattr(odd_nets, name)(10), split, 10, trains=True)


def test_a_model_of_other_classes_is_refused(split):
    with pytest.raises(ModelError, match=r"\[batch, 10\], .* a tensor \[4, 7\]"):
        check_module(odd_nets.Net(7), split, 10, trains=False)


def test_a_frozen_model_is_evaluated_but_not_trained(split):
    module = odd_nets.Net(10).requires_grad_(False)
    check_module(module, split, 10, trains=False)
    with pytest.raises(ModelError, match="does not require grad"):
        check_module(module, split, 10, trains=True)


def test_trying_leaves_no_trace(split):
    module = tiny_net.make().train()
    module[0].eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    modes = [part.training for part in module.modules()]
    torch.manual_seed(7)
    check_module(module, split, 10, trains=True)
    memory_format(module, split, 10, batch_size=8)
    drawn = torch.rand(3)
    torch.manual_seed(7)
    assert torch.equal(drawn, torch.rand(3))
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert [part.training for part in module.modules()] == modes
    assert all(parameter.grad is None for parameter in module.parameters())
    assert all(parameter.is_contiguous() for parameter in module.parameters())


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("Net", torch.channels_last),
        ("TupleInTraining", torch.channels_last),
        ("Viewing", torch.contiguous_format),
        ("ViewingInTraining", torch.contiguous_format),
        ("ReadingStrides", torch.contiguous_format),
    ],
)
def test_channels_last_is_taken_where_a_model_survives_it(name, order, split):
    torch.manual_seed(0)
    assert memory_format(getattr(odd_nets, name)(10), split, 10, batch_size=8) == order


@pytest.mark.parametrize("factory", ["viewing", "tuple_in_training"])
def test_a_run_trains_them_to_the_end(factory, tmp_path):
    result = train(job_of(factory, tmp_path), Progress())
    assert result.accuracy.value > 0.3
    assert result.sparsity == {"body.3": 0.5}


def test_a_run_that_cannot_train_is_refused_before_its_first_epoch(tmp_path):
    job = dataclasses.replace(job_of("failing", tmp_path))
    with pytest.raises(ModelError, match="no targets were given"):
        train(job, Progress())
    assert not (tmp_path / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    "output",
    [
        lambda x: x,
        lambda x: (x, None),
        lambda x: [x],
        lambda x: {"a": x},
        lambda x: {"features": x[:, :3], "logits": x},
        lambda x: {"aux": x[:, :3], "out": x},
        lambda x: odd_nets.Outputs(x, x + 1),
        lambda x: odd_nets.ModelOutput(None, x),
    ],
)
def test_logits_are_found_by_name_or_first(output):
    logits = torch.randn(4, 10)
    assert logits_of(output(logits), 10) is logits


@pytest.mark.parametrize("output", [None, (), {}, 3.0, "logits", (None,), torch.randn(4)])
def test_no_logits_are_an_error(output):
    with pytest.raises(ModelError, match="must return logits"):
        logits_of(output)
