"""SUBP, soft uniform block pruning: trained from scratch under masks that harden while it learns.

Pruned weights keep learning (straight-through gradients and a pull towards zero), and blocks that are
pruned ahead of the ramp are drawn again every epoch, so that a block can come back with what it learnt.

Source: arXiv 2310.06218 (SUBP) and, for the pull of pruned weights, arXiv 2102.04010 (SR-STE).
As the authors' released code has it: BPAR, scores of what the last mask left, ``int(P * Cin)`` blocks
pruned and ``int((P - P_e) * Cin)`` regrown per group, the late cubic ramp, the softmax draw without
replacement, straight-through gradients, lambda before the step. Differs:

- any pattern whose units are known beforehand, and pattern and sparsity per layer, where the source has
  one 1xN for all; a short last group;
- the draw is seeded by (seed, epoch, layer), so a resumed run repeats it;
- layer-wide patterns, which the source lacks, are drawn over the layer as one group, and under BPAR
  sizes are shares of the layer (`bpar_scores`): shares of the group would level strong and weak groups;
- masks stay as they are after the ramp whatever the criterion (`freeze`); the release keeps moving them
  where it scores latent weights, which leaves nothing stable to export;
- the saved epoch is the best with final masks; the release takes the best of all, denser ones too;
- the learning rate falls with every step, in the release with every epoch;
- a hard mask (`soft` false) takes the gradient from pruned weights; the release has it unexported.

With tau = 1, as released, the draw is nearly uniform: rows of unit length differ by at most 1, so no
block is more than e times as likely as another. A smaller tau lets importance count.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from autosparse.patterns import CRITERIA, Criterion
from autosparse.patterns.blocks import highest_per_group
from autosparse.patterns.family import unit_family_of
from autosparse.patterns.structure import Array, BoolArray
from autosparse.records.rules import require
from autosparse.train.methods import method
from autosparse.train.methods.latent import MaskedLayer
from autosparse.train.methods.method import Method, Probe, register, share_of

RAMPS = ("cubic", "linear", "cosine", "exponential", "early")
Ramp = Literal["cubic", "linear", "cosine", "exponential", "early"]
REGROWTHS = ("importance", "random", "none")


@dataclass(frozen=True, slots=True, kw_only=True)
class SubpSettings(method.MethodSettings):
    """How masks harden.

    Epochs count from 0. The ramp runs from epoch ``ramp_start * epochs`` (up to which all layers
    are dense) to ``ramp_end * epochs`` (from which on masks are final).

    Attributes:
        ramp_start: fraction of the epochs; negative for a ramp that is already under way at epoch 0.
        ramp_end: fraction of the epochs.
        ramp: how the enforced sparsity rises in between; see `enforced`.
        criterion: importance of a block. The source's headline is ``bpar``, its release's default
            ``l1``.
        alpha: weight of the redundancy of BPAR; 1 in the release.
        score_masked: score weights as the last mask left them, so that a pruned block can come back
            by regrowth only; else score the latent weights.
        regrow: whether blocks pruned ahead of the ramp are drawn by ``importance``, at ``random``, or
            the ramp simply keeps the best (``none``).
        tau: temperature of the draw by importance; the smaller, the more the score counts. At 1, as
            released, it hardly does: no block is more than e times as likely as another.
        soft: whether pruned weights keep learning (straight-through) or stay as they were when pruned.
        decay: pull of pruned latent weights towards zero (lambda); soft masks alone.
        freeze: whether masks stay as they are after the ramp; in the release they do only where the
            criterion makes them.

    Source: arXiv 2310.06218; names there: decay_start, decay_end, tau, decay (lambda).
    """

    ramp_start: float = 0.04
    ramp_end: float = 0.72
    ramp: Ramp = "cubic"
    criterion: Criterion = "bpar"
    alpha: float = 1.0
    score_masked: bool = True
    regrow: Literal["importance", "random", "none"] = "importance"
    tau: float = 1.0
    soft: bool = True
    decay: float = 2e-4
    freeze: bool = True

    def __post_init__(self) -> None:
        require(self.ramp in RAMPS, f"ramp must be one of {', '.join(RAMPS)}", ramp=self.ramp)
        require(
            self.criterion in CRITERIA,
            f"criterion must be one of {', '.join(CRITERIA)}",
            criterion=self.criterion,
        )
        require(
            self.regrow in REGROWTHS,
            f"regrow must be one of {', '.join(REGROWTHS)}",
            regrow=self.regrow,
        )
        require(self.tau > 0, "tau must be above 0", tau=self.tau)
        require(self.alpha >= 0, "alpha must be at least 0", alpha=self.alpha)
        require(self.decay >= 0, "decay must be at least 0", decay=self.decay)
        require(
            -1 <= self.ramp_start <= self.ramp_end,
            "ramp_start must lie in [-1, ramp_end]",
            ramp_start=self.ramp_start,
            ramp_end=self.ramp_end,
        )

    def first_final_epoch(self, epochs: int) -> int:
        """Gives the first epoch after the ramp."""
        return max(0, share_of(self.ramp_end, epochs))

    def enforced(self, epoch: int, epochs: int) -> float:
        """Gives the part of the target sparsity that is enforced in an epoch, in [0, 1].

        With x the position in the ramp: ``x^3``, ``x``, ``1 - cos(pi x / 2)``,
        ``(0.05^(1 - x) - 0.05) / 0.95`` or, for ``early``, ``1 - (1 - x)^3``. The cubic is late: an
        eighth of the target at half way, where the early one has seven.
        """
        start, end = self.ramp_start * epochs, self.ramp_end * epochs
        if epoch >= self.first_final_epoch(epochs):
            return 1.0
        x = min(max((epoch - start) / (end - start), 0.0), 1.0)
        shapes = {
            "cubic": x**3,
            "linear": x,
            "cosine": 1 - math.cos(math.pi * x / 2),
            "exponential": (0.05 ** (1 - x) - 0.05) / 0.95,
            "early": 1 - (1 - x) ** 3,
        }
        return float(shapes[self.ramp])


def count_pruned(units: int, sparsity: float) -> int:
    """Gives ``int(sparsity * units)``, the addend undoing binary rounding as `kept_blocks` does."""
    return math.floor(sparsity * units + 1e-9)


def draw_regrown(scores: Array, count: int, tau: float, rng: np.random.Generator) -> Array:
    """Draws units to regrow, without replacement, the likelier the higher their score.

    Each row is scaled to unit length, ``q = softmax(row / tau)``, and `count` units are drawn from
    q. Adding Gumbel noise to ``log q`` and taking the largest is the same distribution.

    Args:
        scores: ``[groups, candidates]``.
        count: how many of each row.
        tau: temperature; infinite draws evenly.
        rng: source of the noise.

    Returns:
        Column indices ``[groups, count]``.
    """
    length = np.sqrt(np.square(scores).sum(axis=1, keepdims=True))
    logits = scores / np.maximum(length, 1e-12) / tau
    noisy = logits + rng.gumbel(size=scores.shape)
    return np.argsort(-noisy, axis=1, kind="stable")[:, :count]


def choose_units(
    scores: Array, sparsity: float, enforced: float, settings: SubpSettings, rng: np.random.Generator
) -> BoolArray:
    """Gives the units that train in this epoch, ``[groups, units]``.

    Per group, the ``K = int(P * units)`` lowest are pruned, then ``R = int((P - P_e) * units)`` of
    them are regrown, with P the target and ``P_e = enforced * P``: every group always keeps equally
    many.
    """
    groups, units = scores.shape
    pruned = count_pruned(units, sparsity)
    regrown = min(count_pruned(units, sparsity * (1 - enforced)), pruned)
    if settings.regrow == "none":
        return highest_per_group(scores, units - pruned + regrown)
    order = np.argsort(scores, axis=1, kind="stable")[:, :pruned]
    kept = highest_per_group(scores, units - pruned)
    if regrown:
        tau = settings.tau if settings.regrow == "importance" else math.inf
        drawn = draw_regrown(np.take_along_axis(scores, order, axis=1), regrown, tau, rng)
        np.put_along_axis(kept, np.take_along_axis(order, drawn, axis=1), True, axis=1)
    assert (kept.sum(axis=1) == units - pruned + regrown).all() and kept.shape[0] == groups
    return kept


@register
class Subp(Method):
    """Soft, regrowing masks, new ones every epoch until the ramp has ended."""

    Settings = SubpSettings
    settings: SubpSettings

    def check(self) -> None:
        """Refuses patterns whose units follow from the weights.

        Raises:
            PlanError: there is one.
        """
        for layer in self.layers:
            unit_family_of(layer.choice.pattern)

    def start_epoch(self, epoch: int, probe: Probe) -> int:
        """Chooses the masks of an epoch; after the ramp they stay."""
        if self.settings.freeze and epoch > self.first_final_epoch:
            return 0
        return sum(self._update(layer, epoch) for layer in self.layers)

    def _update(self, layer: MaskedLayer, epoch: int) -> int:
        settings, pattern = self.settings, layer.choice.pattern
        weight = layer.used() if settings.score_masked else layer.latent()
        family = unit_family_of(pattern)
        scores = family.scores(weight, pattern, settings.criterion, alpha=settings.alpha)
        chosen = choose_units(
            family.rows(scores, pattern),
            layer.choice.sparsity,
            settings.enforced(epoch, self.epochs),
            settings,
            self.random(epoch, layer.name),
        )
        return layer.set(family.expand(chosen.reshape(scores.shape), layer.shape, pattern))

    def shape_gradients(self) -> None:
        """Leaves pruned weights their gradient and pulls them towards zero, or takes it from them."""
        if self.settings.soft:
            self.layers.pull_pruned(self.settings.decay)
        else:
            self.layers.mask_gradients()
