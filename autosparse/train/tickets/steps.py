"""Steps of a cycle: its batches, its gradients, and one step of the recipe's optimizer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor

from autosparse.measuring.lock import making_way
from autosparse.patterns.structure import Array
from autosparse.progress import Step
from autosparse.records import short_hash
from autosparse.train.gradients import add_gradients, looking
from autosparse.train.objective import Mixed, mix
from autosparse.train.run import Run


def steps_per_epoch(run: Run) -> int:
    """Gives the steps of a pass over the training split, as the recipe cuts it."""
    return max(len(run.images.train) // run.job.recipe.batch_size, 1)


def batches_of(run: Run, cycle: int, count: int) -> Iterator[Mixed]:
    """Gives the batches of a cycle, pass after pass over the training split, mixed as the recipe says.

    All randomness of a cycle, dropout too, comes from its number and the recipe's seed, so that a
    resumed run repeats it.
    """
    torch.manual_seed(_seed(run, cycle, "dropout"))
    run.module.train()
    for index, (images, labels) in enumerate(_stream(run, cycle, count, "ticket")):
        yield mix(images, labels, run.job.recipe, _seed(run, cycle, f"mix {index}"))


def step_on(run: Run, batch: Mixed) -> float:
    """Makes one step on a batch, under the masks as they are; gives its mean loss."""
    run.optimizer.zero_grad(set_to_none=True)
    loss = add_gradients(run, batch)
    run.method.shape_gradients()
    if run.job.recipe.clip_norm:
        torch.nn.utils.clip_grad_norm_(run.module.parameters(), run.job.recipe.clip_norm)
    run.optimizer.step()
    return loss


def dense_gradients(run: Run, cycle: int, count: int, progress: Step) -> dict[str, Array]:
    """Gives the gradient of every sparse layer's weight, pruned ones too, summed over some batches.

    Statistics of batch-norm stay as they were.

    Args:
        run: with the masks under which gradients are taken.
        cycle: decides which batches.
        count: of them.
        progress: asked whether to stop.

    Returns:
        Layer name to float32 of the weight's shape.
    """
    torch.manual_seed(_seed(run, cycle, "probe dropout"))
    with looking(run.module):
        for images, labels in _stream(run, cycle, count, "probe"):
            with making_way(progress.check):
                add_gradients(run, Mixed(images, labels))
        return {layer.name: _gradient_of(layer.weight) for layer in run.layers}


def _gradient_of(weight: Tensor) -> Array:
    gradient = torch.zeros_like(weight) if weight.grad is None else weight.grad
    return gradient.detach().float().cpu().contiguous().numpy()


def _stream(run: Run, cycle: int, count: int, purpose: str) -> Iterator[tuple[Tensor, Tensor]]:
    return itertools.islice(_passes(run, cycle, purpose), count)


def _passes(run: Run, cycle: int, purpose: str) -> Iterator[tuple[Tensor, Tensor]]:
    recipe, split = run.job.recipe, run.images.train
    for number in itertools.count():
        for images, labels in split.batches(
            recipe.batch_size,
            shuffle_seed=_seed(run, cycle, f"{purpose} {number}"),
            augment=recipe.augment,
            drop_last=len(split) >= recipe.batch_size,
        ):
            yield (
                images.to(run.device, non_blocking=True).contiguous(memory_format=run.order),
                labels.to(run.device, non_blocking=True),
            )


def _seed(run: Run, cycle: int, purpose: str) -> int:
    return int(short_hash([run.job.recipe.seed, "cycle", cycle, purpose]), 16)
