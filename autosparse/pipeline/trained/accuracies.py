"""Accuracies that are set beside each other: of one split, dense and sparse, after as much training.

Validation decides and test reports: every configuration that is published has an accuracy on both, and
so has the dense model, as it is and trained like the configurations are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from autosparse import models
from autosparse.data import AnySplit
from autosparse.hardware import usable_cores
from autosparse.pipeline.subject.survey import Survey
from autosparse.plans.plan import Plan
from autosparse.progress import Progress
from autosparse.records import Accuracy, SplitName
from autosparse.train.evaluate import computed_in, score
from autosparse.train.job import TrainJob, TrainResult
from autosparse.train.tickets.records import ForkedResult
from autosparse.train.tickets.sharing import Shared


@dataclass(frozen=True, slots=True, kw_only=True)
class Reached:
    """What one set of weights reached.

    Attributes:
        test: on the test split, which reports.
        validation: on the validation split, which decides.
        epochs: of training behind it, 0 without.
        shared: whose training it comes from and what tickets reach together, as pareto.json holds it;
            None where it was trained by itself.
        taken_from: name of the earlier run that it was trained in; empty where it was this one.
    """

    test: Accuracy
    validation: Accuracy
    epochs: int = 0
    shared: Mapping[str, Any] | None = None
    taken_from: str = ""

    @classmethod
    def by(cls, trained: Shared) -> Reached:
        """Takes it from a training, or from what another configuration's training left."""
        result = trained.result
        return cls(
            test=result.accuracy,
            validation=result.validation,
            epochs=result.epochs,
            shared=_shared_values(trained),
            taken_from=result.taken_from,
        )

    @classmethod
    def of(cls, subject: Survey, weights: Path, dtype: str) -> Reached:
        """Evaluates weights that were pruned and not trained, on both splits.

        Args:
            subject: of the run.
            weights: with their zeros.
            dtype: type that the model computes in.
        """
        loaded = models.resolve(subject.config.model, classes=subject.classes, weights=weights)
        sample, _ = next(iter(subject.images.test.batches(2, limit=2)))
        module = computed_in(dtype, loaded.module, sample)
        test, validation = (
            score(module, split).as_accuracy("one-shot", name, dtype=dtype)
            for name, split in _splits(subject)
        )
        return cls(test=test, validation=validation)

    def values(self) -> dict[str, Any]:
        """Gives what configurations and baselines hold of it in pareto.json."""
        return {
            "accuracy": self.test.value,
            "accuracy_kind": self.test.kind,
            "accuracy_split": self.test.split,
            "accuracy_samples": self.test.samples,
            "accuracy_dtype": self.test.dtype,
            "accuracy_through": self.test.through,
            "validation_accuracy": self.validation.value,
            "validation_samples": self.validation.samples,
            "epochs": self.epochs,
            "shared": self.shared,
            "taken_from": self.taken_from,
        }


def _shared_values(trained: Shared) -> dict[str, Any] | None:
    """Gives what pareto.json holds of a training that several configurations share."""
    result, ensemble = trained.result, trained.ensemble
    if ensemble is None:
        return None
    fork = result if isinstance(result, ForkedResult) else None
    return {
        "trained": fork and fork.shared_with,
        "tail_epochs": fork.tail_epochs if fork else 0.0,
        "tickets": ensemble.members,
        "ensemble": ensemble.accuracy.to_json(),
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseAccuracies:
    """Of the un-pruned model, as it is: by type, f32 always among them, on each split."""

    test: Mapping[str, Accuracy]
    validation: Mapping[str, Accuracy]

    def of(self, dtypes: tuple[str, ...]) -> DenseAccuracies:
        """Gives those of some types, and of f32."""
        kept = dict.fromkeys(("f32", *dtypes))
        return DenseAccuracies(
            test={dtype: self.test[dtype] for dtype in kept},
            validation={dtype: self.validation[dtype] for dtype in kept},
        )

    def values(self) -> dict[str, Any]:
        """Gives what pareto.json holds of them."""
        return {
            "accuracy": self.test["f32"].to_json(),
            "accuracies": {dtype: found.to_json() for dtype, found in self.test.items()},
            "validation": {dtype: found.to_json() for dtype, found in self.validation.items()},
        }


def dense_accuracies(subject: Survey, weights: Path, progress: Progress) -> DenseAccuracies:
    """Evaluates the dense model on both splits, in f32 and in every type of the run."""
    module = models.resolve(subject.config.model, classes=subject.classes, weights=weights).module
    torch.set_num_threads(usable_cores())
    images, dtypes = subject.images, tuple(dict.fromkeys(("f32", *subject.dtypes)))
    sample, _ = next(iter(images.test.batches(2, limit=2)))
    parts: dict[SplitName, Any] = {"test": images.test, "validation": images.validation}
    found: dict[SplitName, dict[str, Accuracy]] = {name: {} for name in parts}
    total = len(dtypes) * sum(map(len, parts.values()))
    with progress.step("accuracy of the dense model", total) as step:
        for dtype in dtypes:
            computed = computed_in(dtype, module, sample)
            for name, part in parts.items():
                reached = score(computed, part, step=step)
                found[name][dtype] = reached.as_accuracy("dense", name, dtype=dtype)
    return DenseAccuracies(test=found["test"], validation=found["validation"])


def _splits(subject: Survey) -> tuple[tuple[SplitName, AnySplit], ...]:
    return (("test", subject.images.test), ("validation", subject.images.validation))


def dense_job(jobs: Mapping[str, TrainJob], folder: Path, suffix: str = "") -> tuple[str, TrainJob]:
    """Gives the training of the dense model that equals those of some configurations in all else.

    Args:
        jobs: plan id to job, at least one; all of one recipe.
        folder: where trainings of the run go.
        suffix: of the folder's name, where the recipe is none of the presets.

    Returns:
        Its name and job: one of the jobs themselves where that trains the dense model in f32 already.
    """
    for name, job in jobs.items():
        if job.plan.dtype == "f32" and not job.plan.is_sparse:
            return name, job
    some = next(iter(jobs.values()))
    name = f"dense-{some.recipe.kind}-{some.recipe.epochs}{suffix}"
    plan = Plan(model=some.model, note="dense, trained like the configurations")
    return name, dataclasses.replace(some, plan=plan, folder=str(folder / name))


def trained_dense_values(result: TrainResult, weights: str) -> dict[str, Any]:
    """Gives what pareto.json holds of a dense model that was trained like configurations.

    Args:
        result: of its training.
        weights: its weights' file, relative to the run's folder.
    """
    return {
        "kind": result.accuracy.kind,
        "epochs": result.epochs,
        "accuracy": result.accuracy.to_json(),
        "validation": result.validation.to_json(),
        "weights": weights,
        "taken_from": result.taken_from,
    }
