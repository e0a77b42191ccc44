"""Configurations are trained beside a dense model that gets exactly as much."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autosparse.errors import NoValidConfiguration, UsageError
from autosparse.pipeline.subject.requests import recipe_for
from autosparse.pipeline.trained import training
from autosparse.pipeline.trained.accuracies import dense_job
from autosparse.plans.plan import Plan
from autosparse.progress import Progress
from autosparse.records import LayerChoice, onexn
from autosparse.searching.pool import SerialPool
from autosparse.train.job import TrainJob
from autosparse.train.recipes import Recipe

NET = f"{Path(__file__).parents[1] / 'train' / 'tiny_net.py'}:make"
SPARSE = Plan(model=NET, layers={"3": LayerChoice(pattern=onexn(4), sparsity=0.5)})
DENSE = Plan(model=NET, note="nothing is worth pruning")
RECIPE = Recipe(kind="short", epochs=1, settings={"ramp_start": 0.0, "ramp_end": 0.0}, batch_size=512)


def job(run: Path, plan: Plan) -> TrainJob:
    return TrainJob(
        model=NET, weights=None, data="digits", resolution=8, plan=plan, recipe=RECIPE, threads=1,
        folder=str(run / "train" / plan.id),
    )  # fmt: skip


def test_the_dense_model_is_trained_in_the_same_way(tmp_path: Path) -> None:
    with SerialPool() as pool:
        found, dense = training.train_with_dense(
            {SPARSE.id: job(tmp_path, SPARSE)}, tmp_path, pool, Progress()
        )
    assert found.keys() == {SPARSE.id}
    (like,) = dense
    assert (like["kind"], like["epochs"]) == ("short", 1)
    assert (like["accuracy"]["split"], like["validation"]["split"]) == ("test", "validation")
    assert like["weights"] == "train/dense-short-1/weights.safetensors"
    assert (tmp_path / like["weights"]).is_file()


def test_a_configuration_without_zeros_is_the_dense_model_that_others_are_set_against(
    tmp_path: Path,
) -> None:
    with SerialPool() as pool:
        jobs = {plan.id: job(tmp_path, plan) for plan in (DENSE, SPARSE)}
        found, (like,) = training.train_with_dense(jobs, tmp_path, pool, Progress())
    assert found.keys() == jobs.keys()
    assert like["accuracy"]["value"] == found[DENSE.id].accuracy.value
    assert like["weights"] == f"train/{DENSE.id}/weights.safetensors"


def test_one_in_bf16_is_not_since_the_dense_model_is_of_f32(tmp_path: Path) -> None:
    in_bf16 = dataclasses.replace(DENSE, layers={"3": LayerChoice(dtype="bf16")})
    name, found = dense_job({in_bf16.id: job(tmp_path, in_bf16)}, tmp_path)
    assert name == "dense-short-1"
    assert found.plan.dtype == "f32" and not found.plan.is_sparse


def test_a_dense_model_alone_is_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(work: TrainJob) -> None:
        if work.plan.is_sparse:
            raise ValueError("diverged")
        return real(work)

    real = training.run_job
    monkeypatch.setattr(training, "run_job", fail)
    with SerialPool() as pool, pytest.raises(NoValidConfiguration, match="at least one configuration"):
        training.train_with_dense({SPARSE.id: job(tmp_path, SPARSE)}, tmp_path, pool, Progress())


def test_a_recipe_is_a_preset_or_a_file_of_the_kind_asked_for(tmp_path: Path) -> None:
    subject: Any = SimpleNamespace(
        images=SimpleNamespace(train=range(1_000)), config=SimpleNamespace(seed=7)
    )
    assert recipe_for(subject, "short").seed == 7
    assert recipe_for(subject, "full", "paper-imagenet").epochs == 250
    file = tmp_path / "mine.yaml"
    dataclasses.replace(RECIPE, lr=0.3).save(file)
    assert recipe_for(subject, "short", str(file)).lr == 0.3
    with pytest.raises(UsageError, match=r"kind asked for, full, but .*mine\.yaml is of kind short"):
        recipe_for(subject, "full", str(file))
    with pytest.raises(UsageError, match="one of dense, short, full, paper-imagenet, or a YAML file"):
        recipe_for(subject, "short", "shorter")
    with pytest.raises(UsageError, match="No such file"):
        recipe_for(subject, "short", str(tmp_path / "none.yaml"))


def test_trainings_by_different_recipes_have_folders_of_their_own(tmp_path: Path) -> None:
    for lr, suffix in ((0.1, ""), (0.2, "-other")):
        other = dataclasses.replace(
            job(tmp_path, SPARSE),
            recipe=dataclasses.replace(RECIPE, lr=lr),
            folder=str(tmp_path / "train" / f"{SPARSE.id}{suffix}"),
        )
        with SerialPool() as pool:
            found, (dense,) = training.train_with_dense(
                {SPARSE.id: other}, tmp_path, pool, Progress(), suffix=suffix
            )
        assert found and dense["weights"] == f"train/dense-short-1{suffix}/weights.safetensors"
