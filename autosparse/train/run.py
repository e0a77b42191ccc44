"""Everything that changes while a job trains, and how it is opened, saved, resumed and ended."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autosparse import data, models
from autosparse.data import ImageData
from autosparse.graph.rearrange import Rearrangement
from autosparse.train import checkpoint
from autosparse.train.averaging import Average
from autosparse.train.check import memory_format
from autosparse.train.evaluate import Score, computed_in, recalibrate_batchnorm, score
from autosparse.train.job import TrainJob, TrainResult, save_result, truncate_metrics
from autosparse.train.methods.latent import MaskedLayers
from autosparse.train.methods.method import Method, method_named
from autosparse.train.objective import Objective
from autosparse.train.recipes import Recipe
from autosparse.train.starting import prepare, save_rearrangement
from autosparse.train.team import ALONE, Team

log = logging.getLogger(__name__)


@dataclass
class Best:
    """The best epoch since the masks are final."""

    accuracy: float = -1.0
    epoch: int = -1
    weights: dict[str, Tensor] = field(default_factory=dict)
    masks: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class Run:
    """A job in the process that trains it.

    Attributes:
        job: what is trained.
        images: its data.
        module: its model, whose parameters are latent weights.
        order: of images in memory.
        device: where it trains.
        method: moves the masks.
        objective: the loss.
        optimizer: steps.
        average: of the weights, where the recipe wants one.
        team: the processes that train it together.
        best: the best epoch so far.
        next_epoch: the first that is not done.
        seconds: trained so far.
        rearrangement: the order of filters, where they were rearranged first.
        failures: why epochs had to be begun anew, one line each; each halves the learning rate.
    """

    job: TrainJob
    images: ImageData
    module: nn.Module
    order: torch.memory_format
    device: torch.device
    method: Method
    objective: Objective
    optimizer: torch.optim.Optimizer
    average: Average | None
    team: Team = ALONE
    best: Best = field(default_factory=Best)
    next_epoch: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)
    rearrangement: Rearrangement | None = None

    @property
    def layers(self) -> MaskedLayers:
        """The sparse layers."""
        return self.method.layers

    @contextmanager
    def as_used(self) -> Iterator[None]:
        """Lets the module hold, inside the block, the weights that would be saved: averaged, masked."""
        with ExitStack() as stack:
            if self.average is not None:
                stack.enter_context(self.average.applied(self.module))
            stack.enter_context(self.layers.masked())
            yield

    def consider(self, accuracy: float) -> None:
        """Keeps the weights of the epoch that just ended if none before were better."""
        if self.next_epoch < self.job.recipe.first_final_epoch or accuracy < self.best.accuracy:
            return
        with self.as_used():
            weights = {k: v.detach().cpu().clone() for k, v in self.module.state_dict().items()}
        self.best = Best(accuracy, self.next_epoch, weights, self.layers.state())

    def agree(self, samples: int) -> None:
        """Makes statistics equal over the team, and sees that all else is, after an epoch's steps.

        Args:
            samples: that this process trained on in the epoch.

        Raises:
            RunError: the team's weights or masks differ.
        """
        statistics = dict(self.module.named_buffers())
        averaged = {} if self.average is None else self.average.state()
        also = [averaged[name] for name in statistics if name in averaged]
        self.team.average_statistics([*statistics.values(), *also], samples)
        self.team.check_equal(self.module, self.layers.checksum(), f"after epoch {self.next_epoch}")

    def save(self, folder: Path) -> None:
        """Saves the state after the epoch that just ended."""
        state = {
            "module": self.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "method": self.method.state(),
            "average": None if self.average is None else self.average.state(),
            "seconds": self.seconds,
            "failures": self.failures,
            "best": vars(self.best),
        }
        checkpoint.save(folder, self.next_epoch, state)


def open_run(job: TrainJob, team: Team = ALONE, *, starts: bool = True) -> Run:
    """Loads what a job needs.

    Args:
        job: what is trained.
        team: the processes that do so; each of them opens the job.
        starts: whether it may begin with the weights that it opens with; False where others are loaded
            at once, so that these need not be reconstructed.

    Raises:
        UsageError: the model, data, weights, plan or recipe cannot be used, or the model cannot train.
    """
    recipe, device = job.recipe, torch.device(job.device)
    images = data.resolve(
        job.data,
        resolution=job.resolution,
        channels=job.channels,
        seed=job.seed,
        augmentation=recipe.augmentation,
    )
    start = None if recipe.from_scratch or job.weights is None else Path(job.weights)
    module, order = _load(job, images, start, trains=True)
    moved = prepare(module, job, images, starts=starts)
    layers = MaskedLayers(module, job.plan)
    kind = method_named(recipe.method)
    return Run(
        job=job,
        images=images,
        module=module,
        order=order,
        device=device,
        method=kind(layers, recipe.rules, epochs=recipe.epochs, seed=recipe.seed),
        objective=Objective(recipe, _teacher(job, images)),
        optimizer=make_optimizer(module, recipe),
        average=Average(module, recipe.ema) if recipe.ema else None,
        team=team,
        rearrangement=moved,
    )


def _load(
    job: TrainJob, images: ImageData, weights: Path | None, *, trains: bool
) -> tuple[nn.Module, torch.memory_format]:
    loaded = models.resolve(
        job.model, classes=job.classes or images.classes, weights=weights, seed=job.seed
    )
    order = memory_format(
        loaded.module,
        images.train,
        loaded.classes,
        batch_size=max(1, job.recipe.batch_size // job.recipe.accumulate // job.workers),
        trains=trains,
    )
    module: nn.Module = loaded.module.to(memory_format=order)  # type: ignore[call-overload]
    return module.to(torch.device(job.device)), order


def _teacher(job: TrainJob, images: ImageData) -> nn.Module | None:
    if not job.recipe.distill or job.weights is None:
        return None
    module, _ = _load(job, images, Path(job.weights), trains=False)
    return module.eval().requires_grad_(False)


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


def continued(job: TrainJob, folder: Path, team: Team = ALONE) -> Run:
    """Opens a job where its newest whole checkpoint left it; without one, at its beginning.

    The first process reads the checkpoint for all.

    Raises:
        RunError: the team's weights or masks differ.
        UsageError: as `open_run`.
    """
    found = team.from_first(lambda: _newest(folder))
    run = open_run(job, team, starts=found is None)
    if found is not None:
        _take_up(run, folder, *found)
    team.check_equal(run.module, run.layers.checksum(), "at the start")
    return run


def _newest(folder: Path) -> tuple[int, dict[str, Any]] | None:
    found = checkpoint.load(folder)
    truncate_metrics(folder, 0 if found is None else found[0] + 1)
    return found


def _take_up(run: Run, folder: Path, epoch: int, state: Mapping[str, Any]) -> None:
    log.info("%s goes on after epoch %d", folder, epoch)
    run.module.load_state_dict(state["module"])
    run.optimizer.load_state_dict(state["optimizer"])
    run.method.restore(state["method"])
    if run.average is not None:
        run.average.restore(state["average"])
    run.next_epoch, run.seconds = epoch + 1, state["seconds"]
    run.failures, run.best = list(state["failures"]), Best(**state["best"])


def finish(run: Run, folder: Path) -> TrainResult:
    """Writes the best epoch's weights and what they reach."""
    recipe = run.job.recipe
    run.module.load_state_dict(run.best.weights)
    run.layers.restore(run.best.masks)
    if recipe.recalibrate_batches:
        recalibrate_batchnorm(
            run.module,
            run.images.train,
            batches=recipe.recalibrate_batches,
            batch_size=recipe.batch_size,
            seed=recipe.seed,
        )
    validation, test = _scores(run)
    weights = folder / "weights.safetensors"
    save_rearrangement(folder, run.rearrangement)
    checkpoint.save_state(weights, run.module.state_dict())
    result = _result(run, validation, test, weights)
    save_result(folder, result)
    checkpoint.clear(folder)
    return result


def _scores(run: Run) -> tuple[Score, Score]:
    """Scores the saved weights on validation and test split, in the dtype of the plan."""
    sample, _ = next(iter(run.images.validation.batches(2, limit=2)))
    module = computed_in(run.job.plan.dtype, run.module, sample.to(run.device))
    return score(module, run.images.validation), score(module, run.images.test)


def _result(run: Run, validation: Score, test: Score, weights: Path) -> TrainResult:
    kind, dtype = run.job.recipe.kind, run.job.plan.dtype
    return TrainResult(
        accuracy=test.as_accuracy(kind, "test", dtype=dtype),
        validation=validation.as_accuracy(kind, "validation", dtype=dtype),
        weights=str(weights),
        masks_checksum=run.layers.checksum(),
        epochs=run.job.recipe.epochs,
        best_epoch=run.best.epoch,
        sparsity=run.layers.sparsity(),
        seconds=round(run.seconds, 3),
        failures=tuple(run.failures),
        data=run.images.id,
    )
