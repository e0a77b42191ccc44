"""From tickets to models: their mean pruned to a neighbouring plan, or all tickets voting.

Source: arXiv 2205.15322 (Sup-tickets): the mean, denser than a ticket, is pruned again to the wanted
density and batch-norm statistics are recomputed; arXiv 2106.14568 (FreeTickets): predictions of the
tickets are averaged. Differs: pruned per group (or layer, as the pattern has it) by second-order error
on training images, what is kept being set anew (`autosparse.reconstruct`), there by magnitude over the
whole network; several sparsities from one mean, which may prune layers that were dense in training; the
trained weights themselves where they do better on validation data, as they do after short cycles.

Where it was measured (one seed each, the trained weights themselves pruned further), % of test images
by the criterion alone and by second-order error: ResNet-20 on CIFAR-10, 12 epochs of SUBP on 15,000
images, 1x16, from 75 % (60.6) to 81.25 %: 45.4 and 52.6, to 87.5 %: 26.4 and 44.6. ResNet-20 on digits,
a short training, 1x16, to 75 % of all weights, some layers dense before: from 70 % (98.6) 50.1 and
96.9, from 26 % (99.2) 18.4 and 96.7; a training of its own gave 98.6.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from autosparse.data import AnySplit
from autosparse.errors import PlanError, RunError
from autosparse.measuring.lock import making_way
from autosparse.models.outputs import logits_of
from autosparse.patterns.family import unit_family_of
from autosparse.plans.plan import Plan
from autosparse.records import Accuracy, SplitName
from autosparse.train import checkpoint
from autosparse.train.evaluate import Score, computed_in, content_hash, recalibrate_batchnorm, score
from autosparse.train.job import claim, load_result
from autosparse.train.methods.latent import MaskedLayer
from autosparse.train.modes import device_of, mode
from autosparse.train.run import Run, open_run
from autosparse.train.starting import reconstructed
from autosparse.train.tickets.records import (
    EnsembleAccuracy,
    ForkedResult,
    Tickets,
    load_forked,
    save_forked,
)
from autosparse.train.tickets.swapping import check_layers, highest, importance, live_units

_BATCH = 256  # samples per forward pass, as `score` has it


def fork(tickets: Tickets, plan: Plan, folder: Path) -> ForkedResult:
    """Prunes what a training left to a neighbouring plan, and evaluates it.

    That is the mean of its tickets or the trained weights, whichever does better on the validation
    split; the mean alone where a layer is denser than in training. Nothing is trained. Batch-norm
    statistics are recomputed on the training split, and validation and test accuracy are in the plan's
    dtype. A folder that holds this fork gives its result at once.

    Args:
        tickets: of a training.
        plan: of the same patterns where the training was sparse; other sparsities, as far as live units
            allow, and layers that were dense then.
        folder: gets the weights and ``forked.json``.

    Raises:
        PlanError: the plan is no neighbour, or a layer keeps more units than the mean has alive.
        RunError: the folder belongs to another job, holds a training of the plan, or cannot be written.
    """
    check_neighbour(tickets.job.plan, plan)
    started, mean = time.monotonic(), content_hash(tickets.mean) or ""
    job = dataclasses.replace(tickets.job, plan=plan, folder=str(folder))
    _check_untrained(folder)
    claim(job)
    if (found := load_forked(folder)) is not None and found.mean == mean:
        return found
    run = open_run(job, starts=False)
    chosen = max(_candidates(run, tickets), key=lambda found: found.validation.accuracy)
    run.module.load_state_dict(chosen.weights)
    run.layers.restore(chosen.masks)
    validation, test = chosen.validation, score(_computed(run), run.images.test)
    weights, kind = folder / "weights.safetensors", job.recipe.kind
    checkpoint.save_state(weights, run.module.state_dict())
    result = ForkedResult(
        accuracy=test.as_accuracy(kind, "test", dtype=plan.dtype),
        validation=validation.as_accuracy(kind, "validation", dtype=plan.dtype),
        weights=str(weights),
        masks_checksum=run.layers.checksum(),
        epochs=tickets.trained_epochs,
        best_epoch=tickets.best_epoch,
        sparsity=run.layers.sparsity(),
        seconds=round(time.monotonic() - started, 3),
        data=run.images.id,
        shared_with=tickets.job.plan.id,
        tail_epochs=tickets.tail_epochs if chosen.averaged > 1 else 0.0,
        tickets=chosen.averaged,
        mean=mean,
    )
    save_forked(folder, result)
    return result


@dataclass(frozen=True, slots=True, eq=False)
class _Candidate:
    """A state of the fork's module, how many models it is the mean of, and what it reaches."""

    averaged: int
    weights: Mapping[str, Tensor]
    masks: Mapping[str, Tensor]
    validation: Score


def _candidates(run: Run, tickets: Tickets) -> Iterator[_Candidate]:
    """Gives what the run's plan makes of the mean and, if it keeps no more, of the trained weights."""
    plan, trained = run.job.plan, tickets.job.plan.layers
    sources = {tickets.mean: len(tickets.members)}
    if all(choice.sparsity <= plan.layers[name].sparsity for name, choice in trained.items()):
        sources[tickets.members[0]] = 1
    for file, averaged in sources.items():
        if not prune_to_plan(run, load_file(file), tickets):
            _recalibrate(run, tickets.settings.recalibrate_batches)
        weights = {name: value.clone() for name, value in run.module.state_dict().items()}
        validation = score(_computed(run), run.images.validation)
        yield _Candidate(averaged, weights, run.layers.state(), validation)


def _check_untrained(folder: Path) -> None:
    if load_result(folder) is not None:
        raise RunError(
            f"a fork must have a folder without a training, but {folder} holds the result of one; take "
            "that result, or name another folder"
        )


def check_neighbour(trained: Plan, plan: Plan) -> None:
    """Refuses a plan whose weights cannot come from another one's training.

    Raises:
        PlanError: its model differs, or the pattern of a layer that was sparse.
    """
    if plan.model != trained.model:
        raise PlanError(
            f"a fork must be of the model that was trained, {trained.model}, but got {plan.model}; "
            "train it itself"
        )
    wanted, found = patterns_of(trained), patterns_of(plan)
    for name, ours in sorted(wanted.items()):
        theirs = found.get(name, "dense")
        if ours != theirs:
            raise PlanError(
                f"a fork must have the patterns of the plan that was trained, but layer {name!r} is "
                f"{ours} there and shall be {theirs}; train it itself"
            )


def patterns_of(plan: Plan) -> dict[str, str]:
    """Gives the pattern's name of every layer that a plan makes sparse."""
    layers = plan.layers.items()
    return {name: choice.pattern.name for name, choice in layers if not choice.pattern.is_dense}


def prune_to_plan(run: Run, state: Mapping[str, Tensor], tickets: Tickets) -> bool:
    """Loads weights and prunes them to the run's plan, unless that is what they have already.

    Args:
        run: its module, masks and plan; the module is changed.
        state: weights and buffers.
        tickets: of the training that they are from; what its plan keeps may be kept, though it be zero,
            as weights are that came in where no gradient reaches.

    Returns:
        Whether anything that was not zero had to go. Then what is kept is set anew, and batch-norm
        statistics are recomputed.

    Raises:
        PlanError: a layer keeps more units than are alive in one of its groups.
    """
    check_layers(run.method)
    run.module.load_state_dict(dict(state))
    changed = False
    for layer in run.layers:
        weight = layer.latent()
        _check_live(layer, int(live_units(weight, layer).min()), tickets.job.plan)
        mask = highest(importance(weight, layer, run.method), layer)
        changed |= bool(np.any(weight[~mask]))
        layer.set(mask)
    if changed:
        found = reconstructed(
            run.module,
            run.job.plan,
            run.images,
            seed=run.job.recipe.seed,
            recalibrate_batches=tickets.settings.recalibrate_batches,
        )
        for layer in run.layers:
            layer.set(found.masks[layer.name].cpu().numpy())
    run.layers.finish()
    return changed


def _check_live(layer: MaskedLayer, alive: int, trained: Plan) -> None:
    pattern, shape = layer.choice.pattern, layer.shape
    family = unit_family_of(pattern)
    wanted = family.kept(pattern, shape, layer.choice.sparsity)
    before = trained.layers.get(layer.name)
    alive = max(alive, family.kept(pattern, shape, before.sparsity if before else 0.0))
    if wanted <= alive:
        return
    units = family.kept(pattern, shape, 0.0)
    least = math.ceil((units - alive) / units * 10_000) / 10_000
    raise PlanError(
        f"a plan may keep only units that are alive in the weights it is pruned from, but layer "
        f"{layer.name!r} shall keep {wanted} of {units} per {'group' if pattern.uniform else 'layer'} "
        f"and {alive} are; give it a sparsity of at least {least:g}, swap more units over more cycles, "
        "or train the plan itself"
    )


def ensemble_accuracy(tickets: Tickets, plan: Plan, split: SplitName) -> EnsembleAccuracy:
    """Evaluates all tickets together: the mean of their class probabilities decides.

    A sparser plan prunes every ticket further, as a fork is; under the trained plan tickets stay as
    they are.

    Args:
        tickets: of a training.
        plan: a neighbour of the one that was trained; no layer may be denser than there.
        split: ``validation`` or ``test``.

    Raises:
        PlanError: the plan is no neighbour, or a layer keeps more units than a ticket has alive.
    """
    check_neighbour(tickets.job.plan, plan)
    run = open_run(dataclasses.replace(tickets.job, plan=plan), starts=False)
    part = run.images.validation if split == "validation" else run.images.test
    total: Tensor | None = None
    for member in tickets.members:
        prune_to_plan(run, load_file(member), tickets)
        found = probabilities(_computed(run), part)
        total = found if total is None else total + found
    assert total is not None
    right = int((total.argmax(dim=1) == part.labels.cpu()).sum())
    accuracy = Accuracy(
        value=right / len(part),
        kind=run.job.recipe.kind,
        split=split,
        samples=len(part),
        dtype=plan.dtype,
        through="torch" if plan.dtype == "f32" else "emulation",
    )
    return EnsembleAccuracy(accuracy=accuracy, members=len(tickets.members))


@torch.no_grad()
def probabilities(module: nn.Module, split: AnySplit) -> Tensor:
    """Gives class probabilities ``[samples, classes]`` in the split's order, float64, on the host."""
    device, found = device_of(module), []
    with mode(module, training=False):
        for images, _ in split.batches(_BATCH):
            with making_way():
                logits = logits_of(module(images.to(device))).cpu()
            found.append(logits.double().softmax(dim=1))
    return torch.cat(found)


def _recalibrate(run: Run, batches: int) -> None:
    recipe = run.job.recipe
    recalibrate_batchnorm(
        run.module,
        run.images.train,
        batches=batches,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
    )


def _computed(run: Run) -> nn.Module:
    """Gives what computes the run's module in the dtype of its plan."""
    sample, _ = next(iter(run.images.validation.batches(2, limit=2)))
    return computed_in(run.job.plan.dtype, run.module, sample.to(run.device))
