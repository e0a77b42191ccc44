"""`autosparse prune`: one pattern, one sparsity, one method, one file of weights; no search."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from autosparse import hardware, models
from autosparse.deploy.state_dict import write_state_dict
from autosparse.graph.rearrange import Rearrangement
from autosparse.pipeline.results.outcomes import PruneOutcome
from autosparse.pipeline.subject.pruning import PruneRequest, PruneSubject, settle
from autosparse.plans.plan import Plan, by_reason
from autosparse.plans.pruning import prunable, sparsify
from autosparse.progress import Progress
from autosparse.reconstruct import ReconstructionSettings
from autosparse.records import Accuracy, AccuracyKind, SplitName, short_hash
from autosparse.storage import paths
from autosparse.storage.files import read_json, write_json
from autosparse.train.baseline import baseline
from autosparse.train.evaluate import computed_in, recalibrate_batchnorm, score
from autosparse.train.job import TrainJob
from autosparse.train.launch import train
from autosparse.train.starting import FILE as REARRANGEMENT
from autosparse.train.starting import rearranged, reconstructed

_RECALIBRATION_BATCHES = 16


def prune(
    request: PruneRequest | None = None, *, progress: Progress | None = None, **keys: Any
) -> PruneOutcome:
    """Prunes a model and writes its weights, zeros in place.

    A method that trains goes on where an earlier call with the same request stopped.

    Args:
        request: what shall be pruned how, or its fields as keywords.
        progress: told of every step.
        **keys: fields of `PruneRequest`.

    Raises:
        UsageError: something asked for cannot be meant; nothing was started.
        TrainingDiverged: the loss did not stay finite.
        Stopped: a stop was requested; the same call continues.
    """
    request = request or PruneRequest(**keys)
    progress = (progress or Progress()).of(f"prune {request.model}")
    started = time.monotonic()
    with progress.at("survey"):
        subject = settle(request, progress)
    with progress.at("prune"):
        weights = _start(subject, progress)
        kind: AccuracyKind = "one-shot" if subject.recipe is None else subject.recipe.kind
        made = _reconstructed if subject.recipe is None else _trained
        module, order, notes = made(subject, weights, progress)
    with progress.at("accuracy"):
        reached = _accuracies(subject, module, kind, progress)
        dense = (
            {} if weights is None else _accuracies(subject, _load(subject, weights), "dense", progress)
        )
    write_state_dict(Path(request.output), module, subject.plan)
    left = f"dense stay {by_reason(subject.left_dense)}" if subject.left_dense else ""
    notes = (*filter(None, [left]), *notes, *_write_order(Path(request.output), order))
    return PruneOutcome(
        file=request.output,
        method=request.method,
        labels={name: choice.label for name, choice in subject.plan.layers.items()},
        sparsity=_zeros(module, subject.plan),
        reached=reached,
        dense=dense,
        notes=notes,
        seconds=round(time.monotonic() - started, 3),
    )


def _start(subject: PruneSubject, progress: Progress) -> Path | None:
    """Gives dense weights to start from; None where a training from scratch needs none."""
    request, recipe = subject.request, subject.recipe
    if request.weights is not None:
        return Path(request.weights)
    if recipe is not None and recipe.from_scratch and not recipe.distill:
        return None
    found = baseline(
        request.model,
        request.data,
        resolution=subject.resolution,
        channels=subject.channels,
        classes=subject.classes,
        seed=request.seed,
        threads=hardware.usable_cores(),
        images=subject.images,
        progress=progress,
    )
    return Path(found.weights)


def _load(subject: PruneSubject, weights: Path) -> nn.Module:
    return models.resolve(
        subject.request.model, classes=subject.classes, weights=weights, seed=subject.request.seed
    ).module


def _write_order(weights: Path, order: Rearrangement | None) -> tuple[str, ...]:
    """Writes the new order of filters beside the weights that have it, and says where."""
    if order is None or not order.moves:
        return ()
    file = weights.with_name(f"{weights.name}.{REARRANGEMENT}")
    write_json(file, order.to_json())
    return (f"filters of {len(order.orders)} layers are in another order, which {file} holds",)


def _reconstructed(
    subject: PruneSubject, weights: Path | None, progress: Progress
) -> tuple[nn.Module, Rearrangement | None, tuple[str, ...]]:
    """Masks or reconstructs dense weights; batch-norm statistics are those of what comes out."""
    assert weights is not None
    torch.set_num_threads(hardware.usable_cores())
    request, images = subject.request, subject.images
    module, order = _load(subject, weights), None
    if request.rearrange != "none":
        order = rearranged(module, subject.plan, subject.images, request.rearrange)
    notes: tuple[str, ...] = ()
    if request.method == "magnitude":
        sparsify(module, subject.plan, criterion=request.criterion)
        recalibrate_batchnorm(module, images.train, batches=_RECALIBRATION_BATCHES, seed=request.seed)
    else:
        settings = ReconstructionSettings(samples=request.samples, seed=request.seed)
        found = reconstructed(
            module, subject.plan, images, seed=request.seed, settings=settings, progress=progress
        )
        notes = tuple(
            f"{each.layer}: error of its outputs {each.error:.3g}, by masking {each.masked_error:.3g}"
            for each in found.layers
        )
    return module, order, notes


def _trained(
    subject: PruneSubject, weights: Path | None, progress: Progress
) -> tuple[nn.Module, Rearrangement | None, tuple[str, ...]]:
    request, recipe = subject.request, subject.recipe
    assert recipe is not None
    job = TrainJob(
        model=request.model,
        weights=None if weights is None else str(weights.resolve()),
        data=request.data,
        resolution=subject.resolution,
        channels=subject.channels,
        classes=subject.classes,
        plan=subject.plan,
        recipe=recipe,
        folder="",
        seed=request.seed,
        threads=hardware.usable_cores(),
        device=subject.device,
    )
    key = short_hash([job.fingerprint(), subject.images.id], 16)
    folder = paths.home() / "prunings" / key
    result = train(dataclasses.replace(job, folder=str(folder)), progress)
    notes = (
        f"epoch {result.best_epoch + 1} of {result.epochs} was the best; training in {folder}",
        *result.failures,
    )
    saved = folder / REARRANGEMENT
    order = Rearrangement.from_json(read_json(saved)) if saved.exists() else None
    return _load(subject, Path(result.weights)), order, notes


def _accuracies(
    subject: PruneSubject, module: nn.Module, kind: AccuracyKind, progress: Progress
) -> Mapping[str, Accuracy]:
    """Evaluates a module on both splits, in the type of the plan."""
    images, dtype = subject.images, subject.plan.dtype
    torch.set_num_threads(hardware.usable_cores())
    sample, _ = next(iter(images.validation.batches(2, limit=2)))
    computed = computed_in(dtype, module, sample)
    splits: dict[SplitName, Any] = {"test": images.test, "validation": images.validation}
    with progress.step("accuracy", sum(map(len, splits.values()))) as step:
        return {
            name: score(computed, split, step=step).as_accuracy(kind, name, dtype=dtype)
            for name, split in splits.items()
        }


def _zeros(module: nn.Module, plan: Plan) -> float:
    """Gives the fraction of zeros among the weights of the plan's layers."""
    weights = [prunable(module, name).weight for name in plan.layers]
    kept = sum(int(torch.count_nonzero(weight)) for weight in weights)
    return 1 - kept / max(1, sum(weight.numel() for weight in weights))
