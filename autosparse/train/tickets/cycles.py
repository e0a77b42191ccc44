"""Cycles after a training: swap units, train them in under a fixed mask, and average what comes out.

Source: arXiv 2205.15322 (Sup-tickets): every cycle drops a part of the live weights and grows as many
by gradient, then trains at a learning rate that rises and falls; at its low end the ticket is merged
into a running mean with weight 1 / (k + 1), or into a moving one. Differs:

- units of a pattern are swapped, equally many in every group, where the source swaps single weights of
  the whole network; a unit's gradient is the sum of its weights' sizes of it, over a few batches;
- the method's criterion says what goes, there magnitude;
- what pruned weights feel is the method's to say, and a unit that comes back has what it learnt, there
  zero;
- the first ticket is the trained weights, which a complete training of its own left at a low rate;
- momentum begins anew with every cycle;
- counters and other integers stay the newest; the release averages them;
- the recipe's own moving average of weights, its `ema`, has no part in it.

What it brings was small where it was measured: a network of three convolutions, two of them 1x8 at
75 %, 10 epochs on 6,000 images of Fashion-MNIST at 14x14 and 3 cycles of 2 (2 seeds, 4,000 tests).
Trained 84.0 %, 16 epochs without cycles 84.8 %; half of the units swapped, the last ticket 83.7 %,
the mean 82.9 %, all voting 84.0 %; a fifth swapped, 84.7, 84.5 and 84.6 %. Pruned to 81 and 87.5 % by
the criterion alone, the mean of halves has 80.8 and 73.9 %, that of fifths 76.5 and 62.5 %; 10 epochs
of their own give 83.0 and 81.5 %. `forks`, which prunes otherwise, has figures of its own.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from autosparse.errors import RunError, TrainingDiverged
from autosparse.measuring.lock import making_way
from autosparse.progress import Progress, Step
from autosparse.records import short_hash
from autosparse.storage.locks import exclusive
from autosparse.storage.paths import writable_folder
from autosparse.train import checkpoint
from autosparse.train.evaluate import score
from autosparse.train.job import TrainJob, claim, load_result
from autosparse.train.run import Run, open_run
from autosparse.train.tickets.records import (
    Tickets,
    TicketSettings,
    load_tickets,
    save_tickets,
)
from autosparse.train.tickets.steps import batches_of, dense_gradients, step_on, steps_per_epoch
from autosparse.train.tickets.swapping import check_layers, highest, importance, swap

log = logging.getLogger(__name__)


def open_trained(job: TrainJob) -> Run:
    """Opens a finished training: a run that holds its weights and masks, as they were saved.

    Raises:
        RunError: the folder holds no result, another job's, or weights without the plan's zeros.
        PlanError: no layer is sparse, or units of a pattern follow from the weights.
    """
    result = load_result(Path(job.folder))
    if result is None:
        raise RunError(
            f"tickets must start from a finished training, but {job.folder} holds no result; "
            "train the plan first"
        )
    claim(job)
    run = open_run(job, starts=False)
    check_layers(run.method)
    run.module.load_state_dict(load_file(result.weights))
    run.best.epoch = result.best_epoch
    run.next_epoch = result.epochs
    for layer in run.layers:
        # Pruned units score least, so the units kept are those alive, and as many as the plan wants.
        layer.set(highest(importance(layer.latent(), layer, run.method), layer))
        if bool((layer.weight.detach() * ~layer.mask).any()):
            raise RunError(
                f"a trained layer must have the zeros of {layer.choice.label}, but {layer.name!r} in "
                f"{result.weights} has fewer; train the plan anew"
            )
    return run


def cycle_tickets(run: Run, settings: TicketSettings, progress: Progress) -> Tickets:
    """Trains the cycles after a training, or goes on where an earlier call stopped.

    Stopping and killing lose at most the cycle under way; the next call with a run that holds the same
    trained weights repeats it and ends with the same bits (on one thread). Finished cycles give their
    tickets at once. The run's module ends as the last ticket, its pruned weights not zeroed. One
    process makes all steps, of a job with several workers too.

    Args:
        run: holds trained weights and final masks, such as `open_trained` gives.
        settings: of the cycles.
        progress: told of every cycle.

    Raises:
        PlanError: no layer is sparse, or units of a pattern follow from the weights.
        RunError: the folder cannot be written.
        TrainingDiverged: the loss or a weight is no longer finite.
        Stopped: a stop was requested; the same call resumes.
    """
    check_layers(run.method)
    if run.job.threads is not None:
        torch.set_num_threads(run.job.threads)
    start = short_hash([settings.to_json(), _digest(run)])
    folder = writable_folder(Path(run.job.folder) / f"tickets-{start}", "a folder of tickets")
    with exclusive(folder / "lock", progress):
        return load_tickets(folder) or _cycle(run, settings, folder, progress)


@dataclass
class _Tail:
    """What changes from cycle to cycle, apart from the run."""

    mean: dict[str, Tensor]
    validation: list[float]
    next_cycle: int = 1
    losses: list[float] = field(default_factory=list)
    swapped: list[int] = field(default_factory=list)
    seconds: float = 0.0


def _cycle(run: Run, settings: TicketSettings, folder: Path, progress: Progress) -> Tickets:
    tail = _resumed(run, folder) or _begun(run, folder)
    with progress.step(f"tickets of {Path(run.job.folder).name}", settings.cycles) as step:
        step.advance(tail.next_cycle - 1)
        while tail.next_cycle <= settings.cycles:
            _run_cycle(run, settings, tail, folder, step)
            _save(run, tail, folder)
            tail.next_cycle += 1
            reached = f"validation {tail.validation[-1]:.1%}"
            step.advance(1, f"cycle {tail.next_cycle - 1}: loss {tail.losses[-1]:.3f}, {reached}")
    return _finished(run, settings, tail, folder)


def _begun(run: Run, folder: Path) -> _Tail:
    ticket = _taken(run)
    checkpoint.save_state(_member(folder, 0), ticket)
    return _Tail(mean=ticket, validation=[_validated(run)])


def _resumed(run: Run, folder: Path) -> _Tail | None:
    """Takes up the newest whole checkpoint; None where there is none."""
    found = checkpoint.load(folder)
    if found is None:
        return None
    cycle, state = found
    log.info("%s goes on after cycle %d", folder, cycle)
    run.module.load_state_dict(state["module"])
    run.method.restore(state["method"])
    return _Tail(**state["tail"], next_cycle=cycle + 1)


def _save(run: Run, tail: _Tail, folder: Path) -> None:
    told = {name: value for name, value in vars(tail).items() if name != "next_cycle"}
    state = {"module": run.module.state_dict(), "method": run.method.state(), "tail": told}
    checkpoint.save(folder, tail.next_cycle, state)


def _run_cycle(run: Run, settings: TicketSettings, tail: _Tail, folder: Path, progress: Step) -> None:
    """Swaps units, trains them in, and merges the ticket."""
    started, cycle = time.monotonic(), tail.next_cycle
    gradients = dense_gradients(run, cycle, settings.gradient_batches, progress)
    tail.swapped.append(
        sum(swap(layer, run.method, gradients[layer.name], settings.swap) for layer in run.layers)
    )
    tail.losses.append(_trained(run, settings, cycle, progress))
    ticket = _taken(run)
    _check_finite(ticket, cycle)
    checkpoint.save_state(_member(folder, cycle), ticket)
    merge(tail.mean, ticket, settings.share_of_ticket(cycle))
    tail.validation.append(_validated(run))
    tail.seconds += time.monotonic() - started


def _trained(run: Run, settings: TicketSettings, cycle: int, progress: Step) -> float:
    """Trains one cycle and gives its mean loss; masks stay as they are.

    Raises:
        TrainingDiverged: the loss became infinite or not a number.
    """
    steps, total = settings.steps(steps_per_epoch(run)), 0.0
    run.optimizer.state.clear()  # momentum of a unit that has gone is none of its successor's
    for index, batch in enumerate(batches_of(run, cycle, steps)):
        for group in run.optimizer.param_groups:
            group["lr"] = run.job.recipe.lr * settings.lr_at(index, steps)
        with making_way(progress.check):
            loss = step_on(run, batch)
        if not math.isfinite(loss):
            raise TrainingDiverged(
                f"the loss of a ticket must stay finite, but it became {loss} in cycle {cycle}; lower "
                "lr_high or swap fewer units"
            )
        total += loss
        progress.show(cycle - 1 + (index + 1) / steps)
    return total / steps


def _check_finite(ticket: Mapping[str, Tensor], cycle: int) -> None:
    """Refuses a ticket that would spoil the mean.

    Raises:
        TrainingDiverged: a weight or statistic is infinite or not a number.
    """
    for name, value in ticket.items():
        if not bool(value.isfinite().all()):
            raise TrainingDiverged(
                f"the weights of a ticket must stay finite, but {name} did not in cycle {cycle}; lower "
                "lr_high or swap fewer units"
            )


@torch.no_grad()
def merge(mean: dict[str, Tensor], ticket: Mapping[str, Tensor], share: float) -> None:
    """Moves an average towards a ticket, in place; integers are the ticket's.

    Args:
        mean: the average so far.
        ticket: tensors of the same names and shapes.
        share: of the new average that the ticket is, in [0, 1].
    """
    for name, value in ticket.items():
        if value.is_floating_point():
            mean[name].lerp_(value, share)
        else:
            mean[name].copy_(value)


def _taken(run: Run) -> dict[str, Tensor]:
    """Gives the weights as the network uses them, and its buffers, on the host."""
    with run.layers.masked():
        # Contiguous, as a saved file has them, whatever the order of the module's memory.
        return {
            name: value.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, value in run.module.state_dict().items()
        }


def _validated(run: Run) -> float:
    with run.layers.masked():
        return score(run.module, run.images.validation).accuracy


def _member(folder: Path, cycle: int) -> Path:
    return folder / f"ticket-{cycle:05d}.safetensors"


def _digest(run: Run) -> str:
    """Gives a hash of the weights as they are used, and of the masks."""
    digest = hashlib.sha256(run.layers.checksum().encode())
    for name, value in _taken(run).items():
        digest.update(name.encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _finished(run: Run, settings: TicketSettings, tail: _Tail, folder: Path) -> Tickets:
    mean, per_epoch = folder / "mean.safetensors", steps_per_epoch(run)
    checkpoint.save_state(mean, tail.mean)
    tickets = Tickets(
        job=run.job,
        settings=settings,
        members=tuple(str(_member(folder, cycle)) for cycle in range(settings.cycles + 1)),
        mean=str(mean),
        validation=tuple(tail.validation),
        losses=tuple(tail.losses),
        swapped=tuple(tail.swapped),
        trained_epochs=run.next_epoch,
        best_epoch=run.best.epoch,
        tail_epochs=settings.cycles * settings.steps(per_epoch) / per_epoch,
        seconds=round(tail.seconds, 3),
    )
    save_tickets(folder, tickets)
    checkpoint.clear(folder)
    return tickets
