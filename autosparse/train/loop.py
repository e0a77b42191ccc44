"""The one loop of all methods; what sets them apart is in `autosparse.train.methods`."""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
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
from autosparse.train.gradients import add_gradients, looking
from autosparse.train.job import TrainJob, TrainResult, append_metrics, claim, load_result
from autosparse.train.objective import Mixed, mix
from autosparse.train.recipes import Recipe
from autosparse.train.run import Run, continued, finish
from autosparse.train.team import ALONE, Team

log = logging.getLogger(__name__)

_RETRIES = 2


def train_as(team: Team, job: TrainJob, progress: Progress) -> TrainResult:
    """Trains in this process, alone or in a team whose every process calls this; see `launch.train`.

    The first process alone reads and writes the job's folder.
    """
    with _claimed(team, job, progress) as folder:
        found = team.from_first(lambda: load_result(folder))
        return found or _train(team, job, folder, progress)


@contextmanager
def _claimed(team: Team, job: TrainJob, progress: Progress) -> Iterator[Path]:
    if not team.is_first:
        yield Path(job.folder)
        return
    folder = claim(job)
    with exclusive(folder / "lock", progress):
        yield folder


def _train(team: Team, job: TrainJob, folder: Path, progress: Progress) -> TrainResult:
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    run = continued(job, folder, team)
    with progress.step(f"train {folder.name}", job.recipe.epochs) as step:
        step.advance(run.next_epoch)
        while run.next_epoch < job.recipe.epochs:
            row = _train_epoch(run, step)
            if row["status"] != "ok":
                run = _begin_anew(run, row, folder)
                step.done = run.next_epoch
                continue
            if team.is_first:
                run.consider(row["validation_accuracy"])
                append_metrics(folder, row)
                run.save(folder)
            run.next_epoch += 1
            _report(step, row)
    return team.from_first(lambda: finish(run, folder))


def _begin_anew(run: Run, row: Mapping[str, Any], folder: Path) -> Run:
    """Goes back to the last good checkpoint with half the learning rate, unless that was tried enough.

    Raises:
        TrainingDiverged: it was.
    """
    failures = [*run.failures, row["message"]]
    if len(failures) > _RETRIES:
        if run.team.is_first:
            append_metrics(folder, {**row, "status": "error"})
        raise TrainingDiverged(
            f"{row['message']}, as it did {_RETRIES} times before at twice the learning rate; lower "
            "the learning rate or lengthen the warm-up"
        )
    again = continued(run.job, folder, run.team)
    if run.team.is_first:
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
    loss, samples = _steps(run, epoch, step)
    if not math.isfinite(loss):
        message = f"the loss must stay finite, but it became {loss} in epoch {epoch}"
        return {"epoch": epoch, "status": "retried", "message": message}
    run.agree(samples)
    with run.as_used():
        validation = run.team.from_first(lambda: score(run.module, run.images.validation))
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


def _steps(run: Run, epoch: int, progress: Step) -> tuple[float, int]:
    """Runs one pass over the training split; stops at a loss not finite.

    Mixing draws partners from a process's own share of a batch.

    Returns:
        The mean loss, and of how many samples this process has seen the gradient.
    """
    recipe = run.job.recipe
    steps = max(len(run.images.train) // recipe.batch_size, 1)
    phases, patience = recipe.phases(), _patience(run)
    # All randomness of an epoch comes from (seed, epoch), so a resumed run needs no generator state.
    torch.manual_seed(_seed(recipe, epoch, "dropout", run.team))
    total, samples = 0.0, 0
    run.module.train()
    for index, (images, labels) in enumerate(_batches(run, epoch)):
        for group in run.optimizer.param_groups:
            group["lr"] = recipe.lr_at(epoch, index, steps, phases) * patience
        mixed = mix(images, labels, recipe, _seed(recipe, epoch, f"mix {index}", run.team))
        loss = _step(run, mixed, progress.check)
        total, samples = total + loss, samples + len(labels)
        progress.show(epoch + (index + 1) / steps)
        if not math.isfinite(loss):
            return loss, samples
    return total / steps, samples


def _step(run: Run, batch: Mixed, check: Callable[[], None]) -> float:
    with making_way(check):
        run.optimizer.zero_grad(set_to_none=True)
        run.method.start_step()
        own = add_gradients(run, batch)
    # Out of the way: others of the team may be waiting for a measurement, which waits for all in it.
    loss = run.team.average(run.module, own, _share(run, batch))
    with making_way(check):
        _move(run)
    return loss


def _move(run: Run) -> None:
    """Moves the weights by their gradients."""
    recipe = run.job.recipe
    run.method.shape_gradients()
    if recipe.clip_norm:
        torch.nn.utils.clip_grad_norm_(run.module.parameters(), recipe.clip_norm)
    run.optimizer.step()
    if run.average is not None:
        run.average.update(run.module)


def _share(run: Run, batch: Mixed) -> float:
    """Gives which part of the team's whole batch a process's batch is."""
    return len(batch.labels) / min(run.job.recipe.batch_size, len(run.images.train))


def _taylor(run: Run, epoch: int, batches: int) -> dict[str, Array]:
    """Gives the sum over the team's batches of (gradient * weight)^2, of the weights as they are used.

    Statistics of batch-norm stay as they were.
    """
    torch.manual_seed(_seed(run.job.recipe, epoch, "taylor", run.team))
    sums = {layer.name: torch.zeros_like(layer.weight) for layer in run.layers}
    with looking(run.module):
        for images, labels in itertools.islice(_batches(run, epoch), batches):
            run.module.zero_grad(set_to_none=True)
            own = Mixed(images, labels)
            run.team.average(run.module, add_gradients(run, own), _share(run, own))
            for layer in run.layers:
                if layer.weight.grad is not None:
                    used = layer.weight.detach() * layer.mask
                    sums[layer.name] += (layer.weight.grad * used) ** 2
    return {name: found.float().cpu().contiguous().numpy() for name, found in sums.items()}


def _batches(run: Run, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    recipe, split = run.job.recipe, run.images.train
    # A last batch of one sample has no variance to normalise by; the shuffle differs every epoch.
    for images, labels in split.batches(
        recipe.batch_size,
        shuffle_seed=_seed(recipe, epoch, "shuffle"),
        augment=recipe.augment,
        drop_last=len(split) >= recipe.batch_size,
        shard=run.team.shard,
    ):
        yield (
            images.to(run.device, non_blocking=True).contiguous(memory_format=run.order),
            labels.to(run.device, non_blocking=True),
        )


def _seed(recipe: Recipe, epoch: int, purpose: str, team: Team = ALONE) -> int:
    """Gives a seed of its own to every epoch and purpose and, where a team is named, its members."""
    member = [] if team.is_first else [team.rank]
    return int(short_hash([recipe.seed, epoch, purpose, *member]), 16)


def _report(step: Step, row: Mapping[str, Any]) -> None:
    step.advance(
        1,
        f"epoch {row['epoch'] + 1}: loss {row['loss']:.3f}, "
        f"validation {row['validation_accuracy']:.1%}, sparsity {row['sparsity']:.0%}",
    )
