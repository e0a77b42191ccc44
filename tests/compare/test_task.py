from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from autosparse.compare.records import Subject, Zeros
from autosparse.compare.task import Task, capture, input_shape
from autosparse.errors import PlanError
from autosparse.patterns import family_of
from autosparse.plans.plan import Plan
from autosparse.records import LayerChoice, Pattern, onexn

CHOICE = LayerChoice(pattern=onexn(8), sparsity=0.5)


def task(model: str, folder: Path, zeros: Zeros | None = None, seed: int = 0) -> Task:
    subject = Subject(model=model, seed=seed)
    return Task(subject, input_shape(subject), 1, folder, zeros)


def zeros(choice: LayerChoice = CHOICE, *, random: bool = True) -> Zeros:
    plan = Plan(model="net", layers={"middle": choice})
    return Zeros(name="50 %", plan=plan, random=random)


def test_everybody_gets_the_same_model_and_input(model: str, tmp_path: Path) -> None:
    one, two = task(model, tmp_path, zeros()), task(model, tmp_path, zeros())
    assert np.array_equal(one.x(), two.x())
    assert one.x().shape == (1, 3, 12, 12)
    for mine, other in zip(one.module().parameters(), two.module().parameters(), strict=True):
        assert torch.equal(mine, other)
    other_seed = task(model, tmp_path, zeros(), seed=1)
    assert not np.array_equal(one.x(), other_seed.x())


def test_batch_and_shape_are_as_asked(model: str) -> None:
    assert input_shape(Subject(model=model, batch_size=4)) == (4, 3, 12, 12)
    assert input_shape(Subject(model=model, input_shape=(3, 20, 24))) == (1, 3, 20, 24)


@pytest.mark.parametrize("random", [True, False])
def test_zeros_are_uniform_1xn_blocks(model: str, tmp_path: Path, random: bool) -> None:
    weight = task(model, tmp_path, zeros(random=random)).module().get_parameter("middle.weight")
    live = (weight != 0).any(dim=3).any(dim=2).reshape(2, 8, 8)  # groups, N, inputs
    assert torch.equal(live.any(dim=1), live.all(dim=1))
    assert live.any(dim=1).sum(dim=1).tolist() == [4, 4]
    assert (task(model, tmp_path).module().get_parameter("middle.weight") != 0).all()


def test_a_short_last_group_gets_blocks_of_its_own() -> None:
    pattern, generator = onexn(8), np.random.default_rng((0, 0))
    live = family_of(pattern).random(pattern, (20, 8), 0.75, generator)
    assert live.shape == (20, 8)
    assert live.sum(axis=1).tolist() == [2] * 20
    assert np.array_equal(live[16], live[19])


def test_random_zeros_follow_a_pattern_that_makes_sense(model: str, tmp_path: Path) -> None:
    wide = LayerChoice(pattern=Pattern(group_out=8, unit_in=2), sparsity=0.5)
    with pytest.raises(PlanError, match="blocks are one input wide"):
        task(model, tmp_path, zeros(wide)).module()


def test_layers_come_in_the_order_they_run(model: str) -> None:
    subject = Subject(model=model)
    assert [layer.name for layer in capture(subject, input_shape(subject))] == ["stem", "middle", "fc"]


def test_the_file_is_written_once_per_zeros(model: str, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    dense, sparse = task(model, tmp_path), task(model, tmp_path, zeros())
    assert dense.onnx() == dense.onnx() != sparse.onnx()
    assert len(list(tmp_path.glob("*.onnx"))) == 2
