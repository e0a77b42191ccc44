"""Sparsities of layers by one ranking over all of them: irregular at the scale of a model.

A generator of candidates: who searches gives every layer a sparsity, and this says which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from autosparse.errors import PlanError
from autosparse.patterns.family import Group, family_of
from autosparse.patterns.pattern import Pattern
from autosparse.patterns.structure import Array, BoolArray


@dataclass(frozen=True, slots=True)
class _Units:
    """The units of one layer, or what N:M inside leaves of them.

    Attributes:
        scores: mean absolute weight per unit, ``[units]``.
        sizes: weights per unit that may be pruned, ``[units]``.
        share: fraction of the layer that N:M inside leaves; 1 without.
    """

    scores: Array
    sizes: Array
    share: float


def ranked_sparsities(
    weights: Mapping[str, Array], patterns: Mapping[str, Pattern] | Pattern, sparsity: float
) -> dict[str, float]:
    """Gives every layer the sparsity at which one threshold for all layers leaves it.

    Units of all layers compete by the mean of their absolute weights, so that layers and units of
    several sizes compare. The lowest are pruned until that fraction of all weights is reached, the last
    unit beyond it; the best unit of every layer stays. Tiles are those of all outputs, as those of the
    survivors are known only once a layer has a sparsity; N:M inside prunes its share beforehand.

    Masks of a uniform pattern then prune equally many units in every group, rounded down.

    Args:
        weights: layer name to its weight, OIHW or OI; or importances of weights, at least 0.
        patterns: of every layer, or one for all; dense layers are left out, and so are their weights.
        sparsity: fraction of all weights of these layers to prune.

    Returns:
        Layer name to its sparsity; without the dense layers.

    Raises:
        PlanError: a layer has no pattern, a pattern of one sparsity only or one that it cannot have, or
            the sparsity is out of reach.

    Source: the release of "Tile-Wise Sparsity", SC'20: one percentile over all units of the layers in a
    group, so that a layer's sparsity is what comes out.
    Differs: one step for tiles, there two; the group is whatever is given; no layer loses everything.
    """
    if not 0 <= sparsity <= 1:
        raise PlanError(f"sparsity must lie in [0, 1], but got {sparsity:g}")
    chosen = {name: _pattern_of(name, patterns) for name in weights}
    layers = {
        name: _units_of(name, weights[name], pattern)
        for name, pattern in chosen.items()
        if not pattern.is_dense
    }
    pruned = _pruned(list(layers.values()), sparsity)
    return {
        name: 1.0 - layer.share * (1.0 - float(lost.mean()))
        for (name, layer), lost in zip(layers.items(), pruned, strict=True)
    }


def _pattern_of(name: str, patterns: Mapping[str, Pattern] | Pattern) -> Pattern:
    if isinstance(patterns, Pattern):
        return patterns
    if name not in patterns:
        raise PlanError(
            f"a ranking needs a pattern for every layer, but got none for {name!r}; "
            "give it one, the dense one to leave it out"
        )
    return patterns[name]


def _units_of(name: str, weight: Array, pattern: Pattern) -> _Units:
    """Scores the units of one layer.

    Raises:
        PlanError: the layer cannot have the pattern, or the pattern no other sparsity.
    """
    family, shape = family_of(pattern), weight.shape
    share = 1.0 if pattern.nm is None else pattern.nm[0] / pattern.nm[1]
    why = family.why_not(pattern, shape) or family.why_not_sparsity(pattern, 1 - share / 2)
    if why:
        raise PlanError(
            f"a ranking needs patterns that fit and may have any sparsity, but {name!r} shall be "
            f"{pattern.name}: {why}; leave the layer out, or give it another pattern"
        )
    size = np.abs(weight).reshape(shape[0], -1)
    found = [_of_group(size, group) for group in family.groups(pattern, shape)]
    scores, sizes = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return _Units(scores, sizes * share, share)


def _of_group(size: Array, group: Group) -> tuple[Array, Array]:
    """Gives the mean size of the weights of every unit, and how many they are."""
    columns = np.append(size[group.outputs].sum(axis=0, dtype=np.float64), 0.0)  # -1 is the last
    counts = np.count_nonzero(group.units >= 0, axis=1) * len(group.outputs)
    return columns[group.units].sum(axis=1) / counts, counts


def _pruned(layers: list[_Units], sparsity: float) -> list[BoolArray]:
    """Chooses the units to prune, lowest first, over all layers.

    Raises:
        PlanError: too few units may go.
    """
    if not layers:
        return []
    total = sum(float(layer.sizes.sum()) / layer.share for layer in layers)
    inside = sum(float(layer.sizes.sum()) * (1 / layer.share - 1) for layer in layers)
    scores = np.concatenate([_guarded(layer.scores) for layer in layers])
    sizes = np.concatenate([layer.sizes for layer in layers])
    order = np.argsort(scores, kind="stable")[: len(scores) - len(layers)]
    reached = np.cumsum(np.append(inside, sizes[order])) / total
    if not reached[0] - 1e-9 <= sparsity <= reached[-1] + 1e-9:
        raise PlanError(
            f"the sparsity of a ranking must lie in [{reached[0]:.4g}, {reached[-1]:.4g}], what N:M "
            f"inside prunes and what leaves every layer a unit, but got {sparsity:g}"
        )
    lost = np.zeros(len(scores), dtype=bool)
    lost[order[: np.searchsorted(reached, sparsity - 1e-9)]] = True
    return np.split(lost, np.cumsum([len(layer.scores) for layer in layers])[:-1])


def _guarded(scores: Array) -> Array:
    """Puts the best unit of a layer beyond any threshold."""
    guarded = scores.copy()
    guarded[np.argsort(scores, kind="stable")[-1]] = np.inf
    return guarded
