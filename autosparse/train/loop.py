"""Train one plan: a job goes in, weights with zeros in place come out, nothing is lost on the way.

The one loop of all methods; what sets them apart is in `autosparse.train.methods`.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from autosparse.errors import TrainingDiverged
from autosparse.measuring.lock import making_way
from autosparse.patterns.structure import Array
from autosparse.progress import Progress, Step
from autosparse.records import short_hash
from autosparse.storage.locks import exclusive
from autosparse.train.evaluate import score
from autosparse.train.job import TrainJob, TrainResult, append_metrics, claim, load_result
from autosparse.train.objective import Mixed, mix
from autosparse.train.recipes import Recipe
from autosparse.train.run import Run, finish, open_run, resume

log = logging.getLogger(__name__)

_RETRIES = 2


def train(job: TrainJob, progress: Progress) -> TrainResult:
    """Trains a model as a job says, or goes on where an earlier call stopped.

    Stopping and killing lose at most the epoch under way: the next call repeats it and ends with the
    same weights as an uninterrupted run (bit for bit on one thread). A finished job gives its result
    at once. It trains in float32 whatever the plan's dtype; the result's accuracies are in that dtype.

    An epoch whose loss is not finite is begun anew from the last good checkpoint, at half the learning
    rate, twice at most; the result says so.

    Of a model that returns more than logits, the main ones train (`outputs.logits_of`).

    Raises:
        UsageError: the model, data, weights or plan cannot be used, or the model cannot train.
        RunError: the folder belongs to another job or cannot be written.
        TrainingDiverged: the loss is no longer finite, nor is it at a fourth of the learning rate; a
            row in metrics.jsonl says so.
        Stopped: a stop was requested; the same call resumes.
    """
    folder = claim(job)
    with exclusive(folder / "lock", progress):
        return load_result(folder) or _train(job, folder, progress)


def _train(job: TrainJob, folder: Path, progress: Progress) -> TrainResult:
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    run = open_run(job)
    resume(run, folder)
    with progress.step(f"train {folder.name}", job.recipe.epochs) as step:
        step.advance(run.next_epoch)
        while run.next_epoch < job.recipe.epochs:
            row = _train_epoch(run, step)
            if row["status"] != "ok":
                run = _begin_anew(run, row, folder)
                step.done = run.next_epoch
                continue
            run.consider(row["validation_accuracy"])
            append_metrics(folder, row)
            run.save(folder)
            run.next_epoch += 1
            _report(step, row)
    return finish(run, folder)


def _begin_anew(run: Run, row: Mapping[str, Any], folder: Path) -> Run:
    """Goes back to the last good checkpoint with half the learning rate, unless that was tried enough.

    Raises:
        TrainingDiverged: it was.
    """
    failures = [*run.failures, row["message"]]
    if len(failures) > _RETRIES:
        append_metrics(folder, {**row, "status": "error"})
        raise TrainingDiverged(
            f"{row['message']}, as it did {_RETRIES} times before at twice the learning rate; lower "
            "the learning rate or lengthen the warm-up"
        )
    again = open_run(run.job)
    resume(again, folder)
    for message in failures[len(again.failures) :]:  # what the checkpoint does not know of
        append_metrics(folder, {**row, "message": message})
    again.failures = failures
    log.warning("%s: %s; begun anew at half the learning rate", folder, row["message"])
    return again


# ---------------------------------------------------------------------------------------- epochs


def _train_epoch(run: Run, step: Step) -> dict[str, Any]:
    """Runs one epoch and evaluates it; gives its row of the metrics."""
    epoch, started = run.next_epoch, time.monotonic()
    if epoch and any(phase.start == epoch for phase in run.job.recipe.phases()):
        run.optimizer.state.clear()  # a phase is a training of its own
    changed = run.method.start_epoch(epoch, lambda batches: _taylor(run, epoch, batches))
    loss = _steps(run, epoch, step)
    if not math.isfinite(loss):
        message = f"the loss must stay finite, but it became {loss} in epoch {epoch}"
        return {"epoch": epoch, "status": "retried", "message": message}
    with run.as_used():
        validation = score(run.module, run.images.validation)
    seconds = time.monotonic() - started
    run.seconds += seconds
    sparsity = run.layers.sparsity()
    return {
        "epoch": epoch,
        "status": "ok",
        "loss": loss,
        "validation_accuracy": validation.accuracy,
        "validation_cross_entropy": validation.cross_entropy,
        "sparsity": sum(sparsity.values()) / max(len(sparsity), 1),
        "changed_weights": changed,
        "lr": run.job.recipe.lr_at(epoch, 0, 1) * _patience(run),
        "seconds": round(seconds, 3),
    }


def _patience(run: Run) -> float:
    """Gives what is left of the learning rate after failures."""
    return float(0.5 ** len(run.failures))


def _steps(run: Run, epoch: int, progress: Step) -> float:
    """Runs one pass over the training split and gives its mean loss; stops at a loss not finite."""
    recipe = run.job.recipe
    steps = max(len(run.images.train) // recipe.batch_size, 1)
    phases, patience = recipe.phases(), _patience(run)
    # All randomness of an epoch comes from (seed, epoch), so a resumed run needs no generator state.
    torch.manual_seed(_seed(recipe, epoch, "dropout"))
    total = 0.0
    run.module.train()
    for index, (images, labels) in enumerate(_batches(run, epoch)):
        for group in run.optimizer.param_groups:
            group["lr"] = recipe.lr_at(epoch, index, steps, phases) * patience
        mixed = mix(images, labels, recipe, _seed(recipe, epoch, f"mix {index}"))
        with making_way(progress.check):
            loss = _step(run, mixed)
        total += loss
        progress.show(epoch + (index + 1) / steps)
        if not math.isfinite(loss):
            return loss
    return total / steps


def _step(run: Run, batch: Mixed) -> float:
    recipe = run.job.recipe
    run.optimizer.zero_grad(set_to_none=True)
    run.method.start_step()
    loss = _gradients(run, batch)
    run.method.shape_gradients()
    if recipe.clip_norm:
        torch.nn.utils.clip_grad_norm_(run.module.parameters(), recipe.clip_norm)
    run.optimizer.step()
    if run.average is not None:
        run.average.update(run.module)
    return loss


def _gradients(run: Run, batch: Mixed) -> float:
    """Adds up the gradients of a batch, part by part, and gives its mean loss."""
    recipe, loss = run.job.recipe, 0.0
    mixed_precision = torch.autocast(run.device.type, torch.bfloat16, enabled=recipe.autocast == "bf16")
    with run.layers.masked():
        for part in _parts(batch, recipe.accumulate):
            share = len(part.labels) / len(batch.labels)
            with mixed_precision:
                found = run.objective(run.module, part) * share
            found.backward()  # type: ignore[no-untyped-call]
            loss += float(found.detach())
    return loss


def _parts(batch: Mixed, count: int) -> Iterator[Mixed]:
    if count == 1:
        yield batch
        return
    for at in torch.arange(len(batch.labels)).chunk(count):
        others = None if batch.others is None else batch.others[at]
        yield Mixed(batch.images[at], batch.labels[at], others, batch.share)


def _taylor(run: Run, epoch: int, batches: int) -> dict[str, Array]:
    """Gives the sum over batches of (gradient * weight)^2, of the weights as they are used.

    Statistics of batch-norm stay as they were.
    """
    buffers = {name: buffer.clone() for name, buffer in run.module.named_buffers()}
    torch.manual_seed(_seed(run.job.recipe, epoch, "taylor"))
    sums = {layer.name: torch.zeros_like(layer.weight) for layer in run.layers}
    run.module.train()
    for index, (images, labels) in enumerate(_batches(run, epoch)):
        if index == batches:
            break
        run.module.zero_grad(set_to_none=True)
        _gradients(run, Mixed(images, labels))
        for layer in run.layers:
            if layer.weight.grad is not None:
                used = layer.weight.detach() * layer.mask
                sums[layer.name] += (layer.weight.grad * used) ** 2
    run.module.zero_grad(set_to_none=True)
    with torch.no_grad():
        for name, buffer in run.module.named_buffers():
            buffer.copy_(buffers[name])
    return {name: found.float().cpu().contiguous().numpy() for name, found in sums.items()}


def _batches(run: Run, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    recipe, split = run.job.recipe, run.images.train
    # A last batch of one sample has no variance to normalise by; the shuffle differs every epoch.
    for images, labels in split.batches(
        recipe.batch_size,
        shuffle_seed=_seed(recipe, epoch, "shuffle"),
        augment=recipe.augment,
        drop_last=len(split) >= recipe.batch_size,
    ):
        yield (
            images.to(run.device, non_blocking=True).contiguous(memory_format=run.order),
            labels.to(run.device, non_blocking=True),
        )


def _seed(recipe: Recipe, epoch: int, purpose: str) -> int:
    return int(short_hash([recipe.seed, epoch, purpose]), 16)


def _report(step: Step, row: Mapping[str, Any]) -> None:
    step.advance(
        1,
        f"epoch {row['epoch'] + 1}: loss {row['loss']:.3f}, "
        f"validation {row['validation_accuracy']:.1%}, sparsity {row['sparsity']:.0%}",
    )
