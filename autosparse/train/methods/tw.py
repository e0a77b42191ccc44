"""TW, tile-wise pruning in stages: score, prune a little more, fine-tune, and again.

Source: Guo et al., "Accelerating sparse DNN models without hardware-support via tile-wise sparsity",
SC'20, and arXiv 2402.10876: stages of rising sparsity, each from the weights of the one before and
fine-tuned; scores are absolute weights or first-order Taylor, (gradient * weight)^2 over a few batches
(Molchanov et al., 2019); *apriori tuning*: units of which single-weight pruning at the same sparsity
would leave least are pruned first, and those of which it would leave most are kept.
Differs: layers have the plan's sparsities, where the source ranks units of all layers at once
(`autosparse.plans.ranking` gives such sparsities); stages are fractions of the plan's sparsity at even
distances of the epochs, there as long as an accuracy asks; the share of units that apriori tuning
decides is not in the release, 0.05 is ours; every pattern that can have any sparsity may be trained so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from autosparse.errors import PlanError
from autosparse.patterns.family import Group, family_of
from autosparse.patterns.masks import mask
from autosparse.patterns.pattern import Pattern
from autosparse.patterns.structure import Array, BoolArray, IntArray
from autosparse.records.rules import require, require_at_least
from autosparse.train.methods import method
from autosparse.train.methods.latent import MaskedLayer
from autosparse.train.methods.method import Method, Phase, Probe, register, share_of

SCORES = ("magnitude", "taylor")


@dataclass(frozen=True, slots=True, kw_only=True)
class TileWiseSettings(method.MethodSettings):
    """When how much is pruned, and by what score.

    Attributes:
        stages: fractions of the plan's sparsity, rising to 1.
        pretrain: fraction of the epochs that train the dense model first; 0 where trained weights are
            given.
        last: fraction of the epochs, at the end, that belong to the last stage.
        score: ``magnitude`` or ``taylor``.
        taylor_batches: batches of training data behind a Taylor score.
        apriori: fraction of the units that single-weight pruning decides, as many pruned first as kept.
        finetune_lr: highest learning rate after the dense training, as a multiple of the recipe's.
    """

    stages: tuple[float, ...] = (0.35, 0.65, 0.85, 1.0)
    pretrain: float = 0.0
    last: float = 0.3
    score: Literal["magnitude", "taylor"] = "magnitude"
    taylor_batches: int = 5
    apriori: float = 0.05
    finetune_lr: float = 0.1

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.stages, self.stages[1:], strict=False))
        require(
            bool(self.stages) and rising and self.stages[0] > 0 and self.stages[-1] == 1,
            "stages must rise from above 0 to 1",
            stages=self.stages,
        )
        require(0 <= self.pretrain < 1, "pretrain must lie in [0, 1)", pretrain=self.pretrain)
        require(
            0 < self.last <= 1 - self.pretrain,
            "last must lie above 0 and leave pretrain its part",
            last=self.last,
            pretrain=self.pretrain,
        )
        require(self.score in SCORES, f"score must be one of {', '.join(SCORES)}", score=self.score)
        require_at_least(1, self, "taylor_batches")
        require(0 <= self.apriori < 0.5, "apriori must lie in [0, 0.5)", apriori=self.apriori)
        require(self.finetune_lr > 0, "finetune_lr must be above 0", finetune_lr=self.finetune_lr)

    def starts(self, epochs: int) -> tuple[int, ...]:
        """Gives the first epoch of every stage; stages that fall on one epoch are pruned at once."""
        first = share_of(self.pretrain, epochs)
        last = max(first, min(share_of(1 - self.last, epochs), epochs - 1))
        return tuple(int(start) for start in np.linspace(first, last, len(self.stages)).round())

    def first_final_epoch(self, epochs: int) -> int:
        """Gives the epoch that begins the last stage."""
        return self.starts(epochs)[-1] if len(self.stages) > 1 else share_of(self.pretrain, epochs)

    def phases(self, epochs: int) -> tuple[Phase, ...]:
        """Gives the dense training, where there is one, and the stages under one fall of the rate."""
        first = share_of(self.pretrain, epochs)
        staged = Phase(first, self.finetune_lr, 0.0)
        return (Phase(0), staged) if first else (staged,)

    def enforced(self, epoch: int, epochs: int) -> float | None:
        """Gives the fraction of the plan's sparsity that is pruned to at the start of an epoch; None
        where nothing is pruned.
        """
        begun = [f for f, start in zip(self.stages, self.starts(epochs), strict=True) if start == epoch]
        return begun[-1] if begun else None


@register
class TileWise(Method):
    """Hard masks that shrink stage by stage."""

    Settings = TileWiseSettings
    settings: TileWiseSettings

    def check(self) -> None:
        """Refuses patterns that have one sparsity only, which no stage can lead to.

        Raises:
            PlanError: there is one.
        """
        for layer in self.layers:
            part = self.settings.stages[0]
            pattern, sparsity = self.staged(layer, part)
            if why := family_of(pattern).why_not_sparsity(pattern, sparsity):
                raise PlanError(
                    f"stages take patterns that can have any sparsity, but {layer.name} shall be "
                    f"{layer.choice.label}: {why}; take srste, or tvw for a pattern with N:M inside"
                )

    def staged(self, layer: MaskedLayer, part: float) -> tuple[Pattern, float]:
        """Gives what a layer is pruned to in a stage.

        Args:
            layer: one of the sparse layers.
            part: the stage's fraction of the plan's sparsity.
        """
        return layer.choice.pattern, layer.choice.sparsity * part

    def start_epoch(self, epoch: int, probe: Probe) -> int:
        """Prunes at the start of a stage."""
        part = self.settings.enforced(epoch, self.epochs)
        if part is None:
            return 0
        scores = self._scores(probe)
        return sum(self._prune(layer, scores[layer.name], part) for layer in self.layers)

    def _scores(self, probe: Probe) -> Mapping[str, Array]:
        """Gives the importance of every weight that is left, pruned ones 0."""
        if self.settings.score == "magnitude":
            return {layer.name: np.abs(layer.used()) for layer in self.layers}
        return probe(self.settings.taylor_batches)

    def _prune(self, layer: MaskedLayer, scores: Array, part: float) -> int:
        pattern, sparsity = self.staged(layer, part)
        if self.settings.apriori:
            scores = with_apriori(scores, pattern, sparsity, self.settings.apriori)
        changed = layer.set(mask(scores, pattern, sparsity, criterion="l1"))
        with torch.no_grad():  # a weight that regrouped tiles bring back comes back as it went
            layer.weight.masked_fill_(~layer.mask, 0.0)
        return changed


def with_apriori(scores: Array, pattern: Pattern, sparsity: float, share: float) -> Array:
    """Lets the mask of single weights decide the units at both ends of importance.

    Units are whole outputs, where the pattern prunes those, and then the units of its groups. Of each
    kind, the `share` of which single-weight pruning at this sparsity leaves the smallest part score
    nothing, and the `share` of which it leaves the largest score more than all others.

    Args:
        scores: importance of every weight, at least 0, of the weight's shape.
        pattern: whose groups and units count.
        sparsity: of both masks.
        share: fraction of the units, at either end.

    Returns:
        Scores for `mask` under ``l1``, of the weight's shape.
    """
    flat = scores.reshape(len(scores), -1).astype(np.float64)
    left = _single_weights(flat, sparsity)
    rows = _outputs_left(flat, pattern, scores.shape, sparsity)
    above = flat.sum() + 1.0  # more than any unit of undecided weights
    if len(rows) < len(flat):
        flat = _decided(flat, left.mean(axis=1), share, above)
        rows = _outputs_left(flat, pattern, scores.shape, sparsity)
    inside = _decided_units(flat, left, family_of(pattern).groups(pattern, scores.shape, rows), share)
    if len(rows) < len(flat):  # whatever is decided inside, the same outputs stay
        inside[rows] += inside.sum() + 1.0
    return inside.reshape(scores.shape)


def _single_weights(flat: Array, sparsity: float) -> BoolArray:
    """Keeps the most important weights of a layer, one by one."""
    pruned = int(sparsity * flat.size)
    left = np.ones(flat.size, dtype=bool)
    left[np.argsort(flat, axis=None, kind="stable")[:pruned]] = False
    return left.reshape(flat.shape)


def _outputs_left(flat: Array, pattern: Pattern, shape: tuple[int, ...], sparsity: float) -> IntArray:
    kept = mask(flat.reshape(shape), pattern, sparsity, criterion="l1").reshape(len(flat), -1)
    return np.flatnonzero(kept.any(axis=1)).astype(np.int32)


def _decided(flat: Array, density: Array, share: float, above: float) -> Array:
    """Gives scores of whole outputs, those at both ends of density decided."""
    count, order = int(share * len(density)), np.argsort(density, kind="stable")
    decided = flat.copy()
    decided[order[:count]] = 0.0
    decided[order[len(order) - count :]] += above
    return decided


def _decided_units(flat: Array, left: BoolArray, groups: Sequence[Group], share: float) -> Array:
    """Gives scores of units inside groups, those at both ends of density decided."""
    places = [(group, unit) for group in groups for unit in range(len(group.units))]
    density = np.array([left[_weights(group, unit)].mean() for group, unit in places])
    count, order = int(share * len(places)), np.argsort(density, kind="stable")
    decided, above = flat.copy(), flat.sum() + 1.0
    for at in order[:count]:
        decided[_weights(*places[at])] = 0.0
    for at in order[len(order) - count :]:
        decided[_weights(*places[at])] += above
    return decided


def _weights(group: Group, unit: int) -> tuple[IntArray, ...]:
    """Indexes the weights of one unit of a group."""
    columns = group.units[unit]
    return np.ix_(group.outputs, columns[columns >= 0])
