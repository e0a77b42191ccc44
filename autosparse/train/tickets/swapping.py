"""Which units of a layer live: chosen by importance, counted, and swapped for others.

Rows are what units compete within: the groups of a uniform pattern, the layer of a layer-wide one. All
functions keep the units of every row as many as the plan wants, so uniform patterns stay uniform.
"""

from __future__ import annotations

import math

import numpy as np

from autosparse.errors import PlanError
from autosparse.patterns import Criterion
from autosparse.patterns.family import unit_family_of
from autosparse.patterns.structure import Array, BoolArray, IntArray
from autosparse.train.methods.latent import MaskedLayer
from autosparse.train.methods.method import Method


def check_layers(method: Method) -> None:
    """Refuses runs that have no units to swap.

    Raises:
        PlanError: no layer is sparse, or the units of one follow from its weights.
    """
    if not len(method.layers):
        raise PlanError(
            "tickets swap units of sparse layers, but the plan has none; train the dense model alone"
        )
    for layer in method.layers:
        unit_family_of(layer.choice.pattern)


def importance(weight: Array, layer: MaskedLayer, method: Method) -> Array:
    """Gives the scores of a layer's units by the method's criterion, L1 where it has none."""
    criterion: Criterion = getattr(method.settings, "criterion", "l1")
    alpha: float = getattr(method.settings, "alpha", 1.0)
    pattern = layer.choice.pattern
    return unit_family_of(pattern).scores(weight, pattern, criterion, alpha=alpha)


def highest(scores: Array, layer: MaskedLayer) -> BoolArray:
    """Gives the mask of the layer's plan that keeps the units of the highest scores."""
    pattern, sparsity = layer.choice.pattern, layer.choice.sparsity
    family = unit_family_of(pattern)
    return family.expand(family.choose(scores, pattern, sparsity), layer.shape, pattern)


def live_units(weight: Array, layer: MaskedLayer) -> IntArray:
    """Counts, per row, the units of a weight that hold anything but zeros."""
    pattern = layer.choice.pattern
    family = unit_family_of(pattern)
    live = family.rows(family.reduce(weight != 0, pattern), pattern)
    return np.asarray(np.count_nonzero(live, axis=1), dtype=np.int32)


def swap(layer: MaskedLayer, method: Method, gradient: Array, fraction: float) -> int:
    """Lets the least important live units of every row go, and as many pruned ones in.

    In come those whose weights, together, have the largest gradients. What has just gone stays out, so
    no more than the pruned can come. Of a fraction of a unit nothing is swapped.

    Args:
        layer: gets the new mask.
        method: whose criterion says what is important, of weights as they are used.
        gradient: of the loss, of the weight's shape, pruned weights included.
        fraction: of the live units.

    Returns:
        How many units left.
    """
    pattern = layer.choice.pattern
    family = unit_family_of(pattern)
    units = family.reduce(layer.mask.cpu().numpy(), pattern)
    wanted = family.scores(np.abs(gradient), pattern, "l1")
    rows = swapped_rows(
        family.rows(units, pattern),
        family.rows(importance(layer.used(), layer, method), pattern),
        family.rows(wanted, pattern),
        fraction,
    )
    changed = rows.reshape(units.shape)
    gone = int(np.count_nonzero(units & ~changed))  # before the mask, which they may lie in, changes
    layer.set(family.expand(changed, layer.shape, pattern))
    return gone


def swapped_rows(live: BoolArray, kept: Array, wanted: Array, fraction: float) -> BoolArray:
    """Gives which units of every row live after a swap, ``[rows, units]``.

    Args:
        live: which do before; equally many in every row.
        kept: scores of live units; the lowest go.
        wanted: scores of pruned units; the highest come.
        fraction: of the live units of a row.
    """
    alive = int(np.count_nonzero(live[0]))
    count = min(math.floor(fraction * alive + 1e-9), live.shape[1] - alive)
    going = np.argsort(np.where(live, kept, np.inf), axis=1, kind="stable")[:, :count]
    coming = np.argsort(np.where(live, np.inf, -wanted), axis=1, kind="stable")[:, :count]
    found = live.copy()
    np.put_along_axis(found, going, False, axis=1)
    np.put_along_axis(found, coming, True, axis=1)
    assert (np.count_nonzero(found, axis=1) == alive).all()
    return found
