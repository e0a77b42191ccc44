"""Configurations are trained beside a dense model that gets exactly as much."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from autosparse.errors import NoValidConfiguration, TrainingDiverged, UsageError
from autosparse.pipeline.subject.arrangement import Arrangement
from autosparse.pipeline.subject.requests import recipe_for
from autosparse.pipeline.trained import training
from autosparse.pipeline.trained.accuracies import Reached, dense_job
from autosparse.plans.plan import Plan
from autosparse.progress import Progress
from autosparse.records import LayerChoice, onexn
from autosparse.searching.pool import SerialPool
from autosparse.train.job import METRICS, TrainJob, TrainResult
from autosparse.train.recipes import Recipe
from autosparse.train.tickets import sharing

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
    assert like["accuracy"]["value"] == found[DENSE.id].result.accuracy.value
    assert like["weights"] == f"train/{DENSE.id}/weights.safetensors"


def test_one_in_bf16_is_not_since_the_dense_model_is_of_f32(tmp_path: Path) -> None:
    in_bf16 = dataclasses.replace(DENSE, layers={"3": LayerChoice(dtype="bf16")})
    name, found = dense_job({in_bf16.id: job(tmp_path, in_bf16)}, tmp_path)
    assert name == "dense-short-1"
    assert found.plan.dtype == "f32" and not found.plan.is_sparse


def test_a_dense_model_alone_is_no_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(job: TrainJob, progress: Progress) -> TrainResult:
        if job.plan.is_sparse:
            raise ValueError("diverged")
        return real(job, progress)

    real = training.train
    monkeypatch.setattr(training, "train", fail)
    with SerialPool() as pool, pytest.raises(NoValidConfiguration, match="at least one configuration"):
        training.train_with_dense({SPARSE.id: job(tmp_path, SPARSE)}, tmp_path, pool, Progress())


def test_a_recipe_is_a_preset_or_a_file_of_the_kind_asked_for(tmp_path: Path) -> None:
    subject: Any = SimpleNamespace(
        images=SimpleNamespace(train=range(1_000)), config=SimpleNamespace(seed=7), has_tiles=False
    )
    assert recipe_for(subject, "short").seed == 7
    assert recipe_for(subject, "full", "paper-imagenet").epochs == 250
    file = tmp_path / "mine.yaml"
    dataclasses.replace(RECIPE, lr=0.3).save(file)
    assert recipe_for(subject, "short", str(file)).lr == 0.3
    with pytest.raises(UsageError, match=r"kind asked for, full, but .*mine\.yaml is of kind short"):
        recipe_for(subject, "full", str(file))
    with pytest.raises(
        UsageError, match=r"one of dense, short, full, paper, paper-imagenet, .*or a YAML file"
    ):
        recipe_for(subject, "short", "shorter")
    tiled: Any = SimpleNamespace(**{**vars(subject), "has_tiles": True})
    assert (recipe_for(subject, "short").method, recipe_for(tiled, "short").method) == ("subp", "tvw")
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


def test_neighbours_share_one_training_and_say_so(tmp_path: Path) -> None:
    sparser = Plan(model=NET, layers={"3": LayerChoice(pattern=onexn(4), sparsity=0.625)})
    recipe = dataclasses.replace(RECIPE, epochs=2)
    jobs = {
        plan.id: dataclasses.replace(job(tmp_path, plan), recipe=recipe)
        for plan in (sparser, SPARSE, DENSE)
    }
    with SerialPool() as pool:
        found, _ = training.train_with_dense(jobs, tmp_path, pool, Progress(), share_reach=0.125)
        again, _ = training.train_with_dense(jobs, tmp_path, pool, Progress(), share_reach=0.125)
    assert found.keys() == jobs.keys() and again == found
    values = {name: Reached.by(each).values()["shared"] for name, each in found.items()}
    assert values[DENSE.id] is None
    assert (values[SPARSE.id]["trained"], values[SPARSE.id]["tickets"]) == (None, 4)
    assert (values[sparser.id]["trained"], values[sparser.id]["tickets"]) == (SPARSE.id, 4)
    assert values[sparser.id]["ensemble"]["split"] == "test"
    assert found[sparser.id].result.sparsity["3"] == 0.625
    assert not (tmp_path / "train" / sparser.id / METRICS).exists()  # nothing was trained there


@pytest.mark.parametrize("workers", [1, 2])  # two are started from this process
def test_a_group_that_fails_is_told_and_spares_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    def fail(job: TrainJob, progress: Progress) -> TrainResult:
        assert job.workers == workers
        if job.plan.id == SPARSE.id:
            raise TrainingDiverged("no longer finite")
        return real(dataclasses.replace(job, workers=1), progress)

    real = sharing.train
    monkeypatch.setattr(sharing, "train", fail)
    said: list[str] = []
    other = Plan(model=NET, layers={"3": LayerChoice(pattern=onexn(8), sparsity=0.5)})
    jobs = {
        plan.id: dataclasses.replace(job(tmp_path, plan), workers=workers) for plan in (SPARSE, other)
    }
    with SerialPool() as pool:
        found, dense = training.train_with_dense(
            jobs,
            tmp_path,
            pool,
            Progress(lambda event: said.append(event.message)),
            share_reach=0.1,
        )
    assert found.keys() == {other.id} and dense
    reason = f"training of {SPARSE.id}: failed (error): TrainingDiverged: no longer finite"
    assert reason in said


def test_what_cannot_be_arranged_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(itertools.islice(Arrangement(device="cpu").places(), 2)) == ["cpu", "cpu"]
    assert next(Arrangement(device="cpu", workers=2).places()) == "cpu"
    asked = Arrangement.of("cpu", 1, share=True, reach=None)
    assert asked.share_reach == sharing.REACH
    assert Arrangement.of("cpu", 1, share=False, reach=None).share_reach is None
    with pytest.raises(UsageError, match=r"none are and it is 0\.1; add --share-training"):
        Arrangement.of("cpu", 1, share=False, reach=0.1)
    for values, rule in (({"workers": 0}, "at least 1"), ({"share_reach": 1.5}, r"in \[0, 1\]")):
        with pytest.raises(UsageError, match=rule):
            Arrangement(**values)
    with pytest.raises(UsageError, match="sees 0 GPUs"):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        Arrangement(device="cuda").places()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert list(itertools.islice(Arrangement().places(), 3)) == ["cuda:0", "cuda:1", "cuda:0"]
    assert next(Arrangement(workers=2).places()) == "cuda"
    with pytest.raises(UsageError, match="several workers must have a GPU each, but got cuda:1"):
        Arrangement(device="cuda:1", workers=2).places()
