"""Train one plan: a job goes in, weights with zeros in place come out, nothing is lost on the way."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional

from autosparse import data, models
from autosparse.data import ImageData
from autosparse.errors import TrainingDiverged
from autosparse.measuring.lock import making_way
from autosparse.models.outputs import logits_of
from autosparse.progress import Progress, Step
from autosparse.records import short_hash
from autosparse.storage.files import replacing
from autosparse.storage.locks import exclusive
from autosparse.train import checkpoint
from autosparse.train.check import memory_format
from autosparse.train.evaluate import Score, computed_in, recalibrate_batchnorm, score
from autosparse.train.job import (
    TrainJob,
    TrainResult,
    append_metrics,
    claim,
    load_result,
    save_result,
    truncate_metrics,
)
from autosparse.train.recipes import Recipe
from autosparse.train.subp import SoftPruner

log = logging.getLogger(__name__)


def train(job: TrainJob, progress: Progress) -> TrainResult:
    """Trains a model as a job says, or goes on where an earlier call stopped.

    Stopping and killing lose at most the epoch under way: the next call repeats it and ends with the
    same weights as an uninterrupted run (bit for bit on one thread). A finished job gives its result
    at once. It trains in float32 whatever the plan's dtype; the result's accuracies are in that dtype.

    Of a model that returns more than logits, the main ones train (`outputs.logits_of`).

    Raises:
        UsageError: the model, data, weights or plan cannot be used, or the model cannot train.
        RunError: the folder belongs to another job or cannot be written.
        TrainingDiverged: the loss is no longer finite; a row in metrics.jsonl says so.
        Stopped: a stop was requested; the same call resumes.
    """
    folder = claim(job)
    with exclusive(folder / "lock", progress):
        return load_result(folder) or _train(job, folder, progress)


def _train(job: TrainJob, folder: Path, progress: Progress) -> TrainResult:
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    run = _open(job)
    best = _resume(run, folder)
    with progress.step(f"train {folder.name}", job.recipe.epochs) as step:
        step.advance(run.next_epoch)
        while run.next_epoch < job.recipe.epochs:
            epoch = run.next_epoch
            row = _train_epoch(run, epoch, folder, step)
            if epoch >= job.recipe.first_final_epoch and row["validation_accuracy"] >= best.accuracy:
                best = run.snapshot(row["validation_accuracy"])
            run.next_epoch += 1
            append_metrics(folder, row)
            checkpoint.save(folder, epoch, run.state(best))
            _report(step, epoch, row)
    return _finish(run, best, folder)


@dataclass
class _Best:
    """The best epoch since the masks are final."""

    accuracy: float = -1.0
    epoch: int = -1
    weights: dict[str, Tensor] = field(default_factory=dict)
    masks: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class _Run:
    """Everything that changes while a job runs."""

    job: TrainJob
    images: ImageData
    module: nn.Module
    order: torch.memory_format
    pruner: SoftPruner
    optimizer: torch.optim.Optimizer
    next_epoch: int = 0
    seconds: float = 0.0

    def snapshot(self, accuracy: float) -> _Best:
        """Copies the weights as they are used: masked."""
        with self.pruner.masked():
            weights = {k: v.detach().clone() for k, v in self.module.state_dict().items()}
        return _Best(accuracy, self.next_epoch, weights, self.pruner.state())

    def state(self, best: _Best) -> dict[str, Any]:
        return {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "masks": self.pruner.state(),
            "seconds": self.seconds,
            "best": vars(best),
        }


def _open(job: TrainJob) -> _Run:
    images = data.resolve(job.data, resolution=job.resolution, channels=job.channels, seed=job.seed)
    start = None if job.recipe.from_scratch or job.weights is None else Path(job.weights)
    loaded = models.resolve(
        job.model, classes=job.classes or images.classes, weights=start, seed=job.seed
    )
    order = memory_format(loaded.module, images.train, loaded.classes, batch_size=job.recipe.batch_size)
    module: nn.Module = loaded.module.to(memory_format=order)  # type: ignore[call-overload]
    return _Run(
        job=job,
        images=images,
        module=module,
        order=order,
        pruner=SoftPruner(module, job.plan, job.recipe),
        optimizer=make_optimizer(module, job.recipe),
    )


def make_optimizer(module: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Makes the recipe's optimizer; weight decay acts on weights with more than one dimension."""
    groups: list[dict[str, Any]] = [
        {
            "params": [p for p in module.parameters() if p.dim() > 1],
            "weight_decay": recipe.weight_decay,
        },
        {"params": [p for p in module.parameters() if p.dim() <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr)
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.nesterov)


def _resume(run: _Run, folder: Path) -> _Best:
    found = checkpoint.load(folder)
    truncate_metrics(folder, 0 if found is None else found[0] + 1)
    if found is None:
        return _Best()
    epoch, state = found
    log.info("%s goes on after epoch %d", folder, epoch)
    run.module.load_state_dict(state["module"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.pruner.restore(state["masks"])
    run.next_epoch, run.seconds = epoch + 1, state["seconds"]
    return _Best(**state["best"])


# ---------------------------------------------------------------------------------------- epochs


def _train_epoch(run: _Run, epoch: int, folder: Path, step: Step) -> dict[str, Any]:
    started = time.monotonic()
    changed = run.pruner.start_epoch(epoch)
    loss = _steps(run, epoch, step)
    if not math.isfinite(loss):
        raise _diverged(folder, epoch, loss)
    with run.pruner.masked():
        validation = score(run.module, run.images.validation)
    seconds = time.monotonic() - started
    run.seconds += seconds
    sparsity = run.pruner.sparsity()
    return {
        "epoch": epoch,
        "status": "ok",
        "loss": loss,
        "validation_accuracy": validation.accuracy,
        "validation_cross_entropy": validation.cross_entropy,
        "sparsity": sum(sparsity.values()) / max(len(sparsity), 1),
        "changed_blocks": changed,
        "lr": run.job.recipe.lr_at(epoch, 0, 1),
        "seconds": round(seconds, 3),
    }


def _steps(run: _Run, epoch: int, progress: Step) -> float:
    """Runs one pass over the training split and gives its mean loss; stops at a loss not finite."""
    recipe, train_split = run.job.recipe, run.images.train
    steps = max(len(train_split) // recipe.batch_size, 1)
    # All randomness of an epoch comes from (seed, epoch), so a resumed run needs no generator state.
    torch.manual_seed(_seed(recipe, epoch, "dropout"))
    total = 0.0
    run.module.train()
    for index, (images, labels) in enumerate(_batches(run, epoch)):
        for group in run.optimizer.param_groups:
            group["lr"] = recipe.lr_at(epoch, index, steps)
        with making_way(progress.check):
            loss = _step(run, images, labels)
        total += loss
        progress.show(epoch + (index + 1) / steps)
        if not math.isfinite(loss):
            return loss
    return total / steps


def _step(run: _Run, images: Tensor, labels: Tensor) -> float:
    run.optimizer.zero_grad(set_to_none=True)
    with run.pruner.masked():
        logits = logits_of(run.module(images.contiguous(memory_format=run.order)))
        loss = functional.cross_entropy(logits, labels, label_smoothing=run.job.recipe.label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
    run.pruner.pull_pruned()
    run.optimizer.step()
    return float(loss.detach())


def _batches(run: _Run, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    recipe, split = run.job.recipe, run.images.train
    # A last batch of one sample has no variance to normalise by; the shuffle differs every epoch.
    return split.batches(
        recipe.batch_size,
        shuffle_seed=_seed(recipe, epoch, "shuffle"),
        augment=recipe.augment,
        drop_last=len(split) >= recipe.batch_size,
    )


def _seed(recipe: Recipe, epoch: int, purpose: str) -> int:
    return int(short_hash([recipe.seed, epoch, purpose]), 16)


def _diverged(folder: Path, epoch: int, loss: float) -> TrainingDiverged:
    message = (
        f"the loss must stay finite, but it became {loss} in epoch {epoch}; "
        "lower the learning rate or lengthen the warm-up"
    )
    append_metrics(folder, {"epoch": epoch, "status": "error", "message": message})
    return TrainingDiverged(message)


def _report(step: Step, epoch: int, row: Mapping[str, Any]) -> None:
    step.advance(
        1,
        f"epoch {epoch + 1}: loss {row['loss']:.3f}, "
        f"validation {row['validation_accuracy']:.1%}, sparsity {row['sparsity']:.0%}",
    )


def _finish(run: _Run, best: _Best, folder: Path) -> TrainResult:
    run.module.load_state_dict(best.weights)
    run.pruner.restore(best.masks)
    if run.job.recipe.recalibrate_batches:
        recalibrate_batchnorm(
            run.module,
            run.images.train,
            batches=run.job.recipe.recalibrate_batches,
            batch_size=run.job.recipe.batch_size,
            seed=run.job.recipe.seed,
        )
    validation, test = _scores(run)
    weights = folder / "weights.safetensors"
    _save_weights(run.module, weights)
    result = _result(run, best, validation, test, weights)
    save_result(folder, result)
    checkpoint.clear(folder)
    return result


def _scores(run: _Run) -> tuple[Score, Score]:
    """Scores the saved weights on validation and test split, in the dtype of the plan."""
    sample, _ = next(iter(run.images.validation.batches(2, limit=2)))
    module = computed_in(run.job.plan.dtype, run.module, sample)
    return score(module, run.images.validation), score(module, run.images.test)


def _result(run: _Run, best: _Best, validation: Score, test: Score, weights: Path) -> TrainResult:
    kind, dtype = run.job.recipe.kind, run.job.plan.dtype
    return TrainResult(
        accuracy=test.as_accuracy(kind, "test", dtype=dtype),
        validation=validation.as_accuracy(kind, "validation", dtype=dtype),
        weights=str(weights),
        masks_checksum=run.pruner.checksum(),
        epochs=run.job.recipe.epochs,
        best_epoch=best.epoch,
        sparsity=run.pruner.sparsity(),
        seconds=round(run.seconds, 3),
    )


def _save_weights(module: nn.Module, path: Path) -> None:
    # Clones, because the format refuses tensors that share memory, as tied weights do.
    tensors = {
        k: v.clone(memory_format=torch.contiguous_format) for k, v in module.state_dict().items()
    }
    with replacing(path) as temporary:
        save_file(tensors, temporary)
