"""How a model is trained: one frozen record, and the presets that fill it for a data set's size."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from autosparse.errors import UsageError
from autosparse.patterns import CRITERIA, Criterion
from autosparse.records import Record

RAMPS = ("cubic", "linear", "cosine", "exponential")

Ramp = Literal["cubic", "linear", "cosine", "exponential"]
Kind = Literal["dense", "short", "full"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe(Record):
    """All that decides a training run besides the model, the data and the plan.

    Epochs count from 0. The ramp runs from epoch ``ramp_start * epochs`` (up to which all layers
    are dense) to ``ramp_end * epochs`` (from which on masks are final).

    Attributes:
        kind: what an accuracy reached this way is called in every output.
        epochs: passes over the training split.
        batch_size: samples per step.
        optimizer: ``sgd`` (with `momentum`, `nesterov`) or ``adamw``.
        lr: learning rate of the first step after warm-up; falls to 0 by a half cosine.
        momentum: of SGD; AdamW uses its own.
        nesterov: of SGD.
        weight_decay: on weights with more than one dimension only, masked ones included.
        warmup_epochs: epochs over which the learning rate rises linearly.
        label_smoothing: in [0, 1).
        augment: whether training images go through the data set's augmentation.
        ramp_start: fraction of the epochs; negative for a ramp that is already under way at epoch 0.
        ramp_end: fraction of the epochs.
        ramp: how the enforced sparsity rises in between; see `Recipe.enforced`.
        criterion: importance of a block. The source's headline is ``bpar``, its release's default
            ``l1``.
        score_masked: score weights as the last mask left them, so that a pruned block can come back
            by regrowth only; else score the latent weights.
        regrow: whether blocks pruned ahead of the ramp are drawn by importance; else the ramp
            simply keeps the best.
        tau: temperature of that draw; the smaller, the more the score counts. At 1, as released, it
            hardly does: no block is more than e times as likely as another.
        decay: pull of pruned latent weights towards zero (lambda).
        freeze: whether masks stay as they are after the ramp; in the release they do only where the
            criterion makes them.
        recalibrate_batches: training batches to recompute batch-norm statistics with at the end;
            0 keeps those of the training.
        from_scratch: whether initial weights are drawn at random although others were given.
        seed: decides initial weights, shuffling, augmentation, dropout and regrowth.

    Source: arXiv 2310.06218; names there: decay_start, decay_end, tau, decay (lambda).
    """

    kind: Kind
    epochs: int
    batch_size: int = 128
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 1e-4
    warmup_epochs: float = 0.0
    label_smoothing: float = 0.1
    augment: bool = True
    ramp_start: float = 0.04
    ramp_end: float = 0.72
    ramp: Ramp = "cubic"
    criterion: Criterion = "bpar"
    score_masked: bool = True
    regrow: bool = True
    tau: float = 1.0
    decay: float = 2e-4
    freeze: bool = True
    recalibrate_batches: int = 0
    from_scratch: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        _check(self.epochs >= 1, "epochs must be at least 1", self.epochs)
        _check(self.batch_size >= 1, "batch_size must be at least 1", self.batch_size)
        _check(self.optimizer in ("sgd", "adamw"), "optimizer must be sgd or adamw", self.optimizer)
        _check(self.lr > 0 and math.isfinite(self.lr), "lr must be above 0", self.lr)
        _check(
            0 <= self.label_smoothing < 1, "label_smoothing must lie in [0, 1)", self.label_smoothing
        )
        _check(self.ramp in RAMPS, f"ramp must be one of {', '.join(RAMPS)}", self.ramp)
        _check(
            self.criterion in CRITERIA,
            f"criterion must be one of {', '.join(CRITERIA)}",
            self.criterion,
        )
        _check(self.tau > 0, "tau must be above 0", self.tau)
        _check(
            self.warmup_epochs < self.epochs, "warmup_epochs must be below epochs", self.warmup_epochs
        )
        for name in ("weight_decay", "decay", "warmup_epochs", "recalibrate_batches", "momentum"):
            _check(getattr(self, name) >= 0, f"{name} must be at least 0", getattr(self, name))
        _check(
            -1 <= self.ramp_start <= self.ramp_end,
            "ramp_start must lie in [-1, ramp_end]",
            self.ramp_start,
        )
        _check(
            self.first_final_epoch < self.epochs,
            "the ramp must end before the last epoch, so that there is a final model to choose; "
            f"ramp_end * {self.epochs} epochs must be at most {self.epochs - 1}",
            self.ramp_end,
        )

    @property
    def first_final_epoch(self) -> int:
        """First epoch whose masks have the plan's sparsity; only from here on a model is chosen."""
        return math.ceil(self.ramp_end * self.epochs - 1e-9)

    def enforced(self, epoch: int) -> float:
        """Gives the part of the target sparsity that is enforced in an epoch, in [0, 1].

        With x the position in the ramp: ``x^3``, ``x``, ``1 - cos(pi x / 2)`` or
        ``(0.05^(1 - x) - 0.05) / 0.95``. The cubic is late: an eighth of the target at half way.
        """
        start, end = self.ramp_start * self.epochs, self.ramp_end * self.epochs
        if epoch >= self.first_final_epoch:
            return 1.0
        x = min(max((epoch - start) / (end - start), 0.0), 1.0)
        if self.ramp == "cubic":
            return x**3
        if self.ramp == "cosine":
            return 1 - math.cos(math.pi * x / 2)
        if self.ramp == "exponential":
            return float((0.05 ** (1 - x) - 0.05) / 0.95)
        return x

    def lr_at(self, epoch: int, step: int, steps: int) -> float:
        """Gives the learning rate of step `step` of `steps` in an epoch."""
        at = epoch + step / steps
        if at < self.warmup_epochs:
            return self.lr * (at + 1 / steps) / (self.warmup_epochs + 1 / steps)
        span = self.epochs - self.warmup_epochs
        return self.lr * 0.5 * (1 + math.cos(math.pi * (at - self.warmup_epochs) / span))


def dense(samples: int, *, seed: int = 0) -> Recipe:
    """Gives the recipe of a dense baseline for a training split of so many samples.

    AdamW, because it needs no tuning from data set to data set: a ResNet-18 on the 1,295 training
    digits at 32x32 has 97 to 99 % of the validation digits right after 6 epochs, all after 11.
    """
    return Recipe(
        kind="dense",
        epochs=_epochs(10, samples),
        batch_size=64,
        optimizer="adamw",
        lr=1e-3,
        weight_decay=0.05,
        warmup_epochs=1.0,
        ramp_start=0.0,
        ramp_end=0.0,
        seed=seed,
    )


def short(samples: int, *, seed: int = 0) -> Recipe:
    """Gives a fine-tune of dense weights under a compressed ramp, for telling configurations apart.

    This is not SUBP, which trains from scratch for long (`full`): half of the target is enforced at
    epoch 0 of 4 and all from epoch 1 on, the learning rate is that of fine-tuning, and a small batch
    makes the most of few samples. A large data set gets no more epochs: each has so many more steps.

    Blocks are ranked by L1, as in the search's sensitivity and one-shot accuracies, since that is
    better on trained weights: a ResNet-20 with 91.7 % on CIFAR-10, fine-tuned on 3,000 of its images,
    all layers but the first and last pruned, came to 78.0 % (1x8 at 50 %) and 58.0 % (1x16 at 75 %)
    of 2,000 test images, with BPAR to 74.1 and 52.6 % (one seed); without any training L1 left 40.6 %
    of 1x8 at 50 %, BPAR 28.9 % (2,000 validation images).
    """
    _check(samples >= 1, "samples must be at least 1", samples)
    return Recipe(
        kind="short",
        epochs=4,
        batch_size=64,
        lr=0.03,
        criterion="l1",
        ramp="linear",
        ramp_start=-0.25,
        ramp_end=0.25,
        seed=seed,
    )


def full(samples: int, *, seed: int = 0) -> Recipe:
    """Gives SUBP: training from scratch after its source, its epochs scaled to the data set.

    Source: arXiv 2310.06218 and its release: SGD with momentum 0.9 and no Nesterov, learning rate 0.1,
    cosine without warm-up, label smoothing 0.1, weight decay 1e-4 on weights of more than one
    dimension, lambda 2e-4, tau 1, ramp from epoch 10 to 180 of 250 on ImageNet.
    Differs: batches of 128, where the release has 256 and its scripts 512; the cosine falls with every
    step, there with every epoch; BPAR, the source's headline, is the criterion, there L1 by default.
    `subp` names what differs in the rule itself.
    """
    return Recipe(kind="full", epochs=_epochs(42, samples), from_scratch=True, seed=seed)


def _epochs(base: int, samples: int) -> int:
    """Scales epochs with the fourth root of the samples in thousands: 42 become 250 on ImageNet."""
    _check(samples >= 1, "samples must be at least 1", samples)
    return max(base, int(base * (samples / 1000) ** 0.25 + 0.5))


def _check(holds: bool, rule: str, got: object) -> None:
    if not holds:
        raise UsageError(f"{rule}, but got {got!r}")
