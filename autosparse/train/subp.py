"""Soft uniform block pruning: which blocks of every layer train, epoch by epoch.

A layer's *latent* weight is its dense parameter. The network runs with the latent weight times the
mask; the gradient of that product goes to all latent weights unchanged, so that a pruned block keeps
learning and returns with what it learnt when it is drawn again.

    pruner = SoftPruner(model, plan, recipe)
    for epoch in ...:
        pruner.start_epoch(epoch)              # new masks
        for images, labels in ...:
            with pruner.masked():              # parameters hold latent * mask
                loss(...).backward()
            pruner.pull_pruned()               # grad += lambda * (1 - mask) * latent
            optimizer.step()                   # on the latent weights

Source: arXiv 2310.06218 (SUBP) and, for the pull of pruned weights, arXiv 2102.04010 (SR-STE).
As the authors' released code has it: BPAR, scores of what the last mask left, ``int(P * Cin)`` blocks
pruned and ``int((P - P_e) * Cin)`` regrown per group, the late cubic ramp, the softmax draw without
replacement, straight-through gradients, lambda before the step. Differs:

- pattern and sparsity per layer, where the source has one of each; a short last group;
- the draw is seeded by (seed, epoch, layer), so a resumed run repeats it;
- layer-wide patterns, which the source lacks, are drawn over the layer as one group, and under BPAR
  sizes are shares of the layer (`bpar_scores`): shares of the group would level strong and weak groups;
- masks stay as they are after the ramp whatever the criterion (`Recipe.freeze`); the release keeps
  moving them where it scores latent weights, which leaves nothing stable to export;
- the saved epoch is the best with final masks; the release takes the best of all, denser ones too.

With tau = 1, as released, the draw is nearly uniform: rows of unit length differ by at most 1, so no
block is more than e times as likely as another. A smaller tau lets importance count.
"""

from __future__ import annotations

import hashlib
import math
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from autosparse.errors import RunError
from autosparse.patterns.blocks import highest_per_group
from autosparse.patterns.family import unit_family_of
from autosparse.patterns.structure import Array, BoolArray
from autosparse.plans.plan import Plan
from autosparse.plans.pruning import sparse_layers
from autosparse.records import LayerChoice
from autosparse.train.recipes import Recipe


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
        tau: temperature.
        rng: source of the noise.

    Returns:
        Column indices ``[groups, count]``.
    """
    length = np.sqrt(np.square(scores).sum(axis=1, keepdims=True))
    logits = scores / np.maximum(length, 1e-12) / tau
    noisy = logits + rng.gumbel(size=scores.shape)
    return np.argsort(-noisy, axis=1, kind="stable")[:, :count]


def choose_units(
    scores: Array, sparsity: float, enforced: float, recipe: Recipe, rng: np.random.Generator
) -> BoolArray:
    """Gives the units that train in this epoch, ``[groups, units]``.

    Per group, the ``K = int(P * units)`` lowest are pruned, then ``R = int((P - P_e) * units)`` of
    them are regrown, with P the target and ``P_e = enforced * P``: every group always keeps equally
    many.
    """
    groups, units = scores.shape
    pruned = count_pruned(units, sparsity)
    regrown = min(count_pruned(units, sparsity * (1 - enforced)), pruned)
    if not recipe.regrow:
        return highest_per_group(scores, units - pruned + regrown)
    order = np.argsort(scores, axis=1, kind="stable")[:, :pruned]
    kept = highest_per_group(scores, units - pruned)
    if regrown:
        drawn = draw_regrown(np.take_along_axis(scores, order, axis=1), regrown, recipe.tau, rng)
        np.put_along_axis(kept, np.take_along_axis(order, drawn, axis=1), True, axis=1)
    assert (kept.sum(axis=1) == units - pruned + regrown).all() and kept.shape[0] == groups
    return kept


@dataclass
class _Layer:
    """One sparse layer: what the plan wants of it, and its mask at this moment."""

    name: str
    weight: Tensor
    choice: LayerChoice
    units: BoolArray  # kept blocks, shaped as the family's scores
    mask: Tensor  # the same, spread over the weight


class SoftPruner:
    """The masks of one model during one training run.

    Args:
        model: any module; its parameters are the latent weights.
        plan: pattern and sparsity per layer; layers it leaves dense are not touched.
        recipe: ramp, criterion, regrowth and seed.

    Raises:
        PlanError: the plan does not fit the model.
    """

    def __init__(self, model: nn.Module, plan: Plan, recipe: Recipe) -> None:
        self.recipe = recipe
        self._layers = [
            self._open(name, layer.weight, choice) for name, layer, choice in sparse_layers(model, plan)
        ]

    def _open(self, name: str, weight: Tensor, choice: LayerChoice) -> _Layer:
        shape = unit_family_of(choice.pattern).units(choice.pattern, tuple(weight.shape))
        units = np.ones(shape, dtype=bool)
        return _Layer(name, weight, choice, units, torch.ones_like(weight, dtype=torch.bool))

    def start_epoch(self, epoch: int) -> int:
        """Chooses the masks of an epoch, before its first step.

        Returns:
            How many blocks changed since the last epoch, over all layers.
        """
        if self.recipe.freeze and epoch > self.recipe.first_final_epoch:
            return 0
        return sum(self._update(layer, epoch) for layer in self._layers)

    def _update(self, layer: _Layer, epoch: int) -> int:
        pattern, sparsity = layer.choice.pattern, layer.choice.sparsity
        weight = _numpy(layer.weight * layer.mask if self.recipe.score_masked else layer.weight)
        family = unit_family_of(pattern)
        scores = family.scores(weight, pattern, self.recipe.criterion)
        rows = family.rows(scores, pattern)
        rng = np.random.default_rng([self.recipe.seed, epoch, zlib.crc32(layer.name.encode())])
        chosen = choose_units(rows, sparsity, self.recipe.enforced(epoch), self.recipe, rng)
        before = layer.units
        self._set(layer, chosen.reshape(scores.shape))
        return int(np.count_nonzero(before != layer.units))

    def _set(self, layer: _Layer, units: BoolArray) -> None:
        pattern, shape = layer.choice.pattern, tuple(layer.weight.shape)
        layer.units = units
        layer.mask.copy_(torch.from_numpy(unit_family_of(pattern).expand(units, shape, pattern)))

    @contextmanager
    def masked(self) -> Iterator[None]:
        """Lets parameters hold latent * mask inside the block, and the latent weights after it.

        Run forward and backward inside: the gradient then lands, unmasked, on the latent weight,
        which is the straight-through estimator without any operator of its own. Step outside.
        """
        latent = [layer.weight.data for layer in self._layers]
        try:
            for layer in self._layers:
                layer.weight.data = layer.weight.data * layer.mask
            yield
        finally:
            for layer, data in zip(self._layers, latent, strict=True):
                layer.weight.data = data

    @torch.no_grad()
    def pull_pruned(self) -> None:
        """Adds ``lambda * (1 - mask) * latent`` to the gradients, outside `masked`."""
        for layer in self._layers:
            if self.recipe.decay and layer.weight.grad is not None:
                pruned = layer.weight.masked_fill(layer.mask, 0.0)
                layer.weight.grad.add_(pruned, alpha=self.recipe.decay)

    @torch.no_grad()
    def finish(self) -> None:
        """Zeroes the pruned latent weights for good."""
        for layer in self._layers:
            layer.weight.masked_fill_(~layer.mask, 0.0)

    def masks(self) -> dict[str, Tensor]:
        """Gives layer name to bool mask of the weight's shape; copies."""
        return {layer.name: layer.mask.clone() for layer in self._layers}

    def sparsity(self) -> dict[str, float]:
        """Gives the fraction of blocks pruned at this moment, per sparse layer."""
        return {layer.name: 1.0 - float(layer.units.mean()) for layer in self._layers}

    def checksum(self) -> str:
        """Gives a hash of all masks, equal for equal masks."""
        digest = hashlib.sha256()
        for layer in self._layers:
            digest.update(f"{layer.name}{layer.units.shape}".encode())
            digest.update(np.packbits(layer.units).tobytes())
        return digest.hexdigest()[:16]

    def state(self) -> dict[str, Tensor]:
        """Gives the kept blocks per layer, for a checkpoint."""
        return {layer.name: torch.from_numpy(layer.units.copy()) for layer in self._layers}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Takes the masks of a checkpoint back.

        Raises:
            RunError: they belong to another plan.
        """
        found = {name: tuple(units.shape) for name, units in state.items()}
        wanted = {layer.name: layer.units.shape for layer in self._layers}
        if found != wanted:
            raise RunError(f"a checkpoint's masks must fit the plan {wanted}, but got {found}")
        for layer in self._layers:
            self._set(layer, state[layer.name].numpy())


def _numpy(weight: Tensor) -> Array:
    return weight.detach().float().cpu().contiguous().numpy()
