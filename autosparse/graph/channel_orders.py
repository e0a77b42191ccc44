"""Which order of a layer's outputs loses least: by the norm of filters, or by what masks keep of them.

Sorting by norm makes strong groups and weak ones. This serves masks that are chosen layer-wide, and
hardly those that keep equally many blocks in every group: to them it matters which inputs filters are
strong in, so the second order groups filters that keep the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from autosparse.errors import UsageError
from autosparse.patterns.blockwise import BlockwiseFamily
from autosparse.patterns.family import UnitFamily, family_of
from autosparse.patterns.pattern import Pattern
from autosparse.patterns.structure import Array

Order = NDArray[np.int64]
"""Permutation of outputs: place i is for output ``order[i]``."""

LEAST_GAIN = 1e-4
"""Relative gain below which a round of the search for an order is the last one; some five are usual."""


@dataclass(frozen=True, slots=True)
class Prunable:
    """A layer whose outputs are to be ordered.

    Attributes:
        weight: OIHW or OI, any float type.
        pattern: what it will be pruned to; None where nothing is known but its weight.
        sparsity: fraction of its units that will be pruned.
    """

    weight: Array
    pattern: Pattern | None = None
    sparsity: float = 0.0


def by_norm(layers: Sequence[Prunable]) -> Order:
    """Gives outputs by falling L1 norm, summed over layers; of equals, the first first."""
    norms = [np.abs(layer.weight, dtype=np.float64).reshape(len(layer.weight), -1) for layer in layers]
    total = np.sum([norm.sum(axis=1) for norm in norms], axis=0)
    return np.argsort(-total, kind="stable")


def why_not_by_kept(pattern: Pattern | None) -> str:
    """Says why outputs cannot be ordered by what masks of a pattern keep; empty if they can."""
    if pattern is None:
        return "an order by what masks keep needs the layer's pattern"
    if pattern.order != "natural" or not isinstance(family_of(pattern), BlockwiseFamily):
        return f"groups of {pattern.name} are not blocks of consecutive outputs"
    return ""


def by_kept(layers: Sequence[Prunable]) -> Order:
    """Gives the order in which masks keep most of the L1 norm of the weights, as far as is found.

    From three orders, natural, by norm and group by group, masks are chosen and then outputs dealt out
    anew to the places of these masks at the highest sum, by turns: neither step can lose. The best end
    is taken. Time grows with the cube of the outputs; with a thousand, a layer-wide pattern takes
    seconds.

    Args:
        layers: those that share the order; each has a pattern that `why_not_by_kept` finds nothing in.

    Raises:
        UsageError: a weight is not finite.
    """
    profiles = [_profile(layer) for layer in layers]
    natural = np.arange(len(profiles[0]), dtype=np.int64)
    starts = (natural, by_norm(layers), _group_by_group(layers, profiles))
    ends = [_improved(layers, profiles, start) for start in starts]
    return max(ends, key=lambda end: end[0])[1]


def _family(layer: Prunable) -> tuple[UnitFamily, Pattern]:
    assert layer.pattern is not None
    family = family_of(layer.pattern)
    assert isinstance(family, UnitFamily)
    return family, layer.pattern


def _profile(layer: Prunable) -> Array:
    """Gives the L1 norm of every output in every unit of inputs, ``[outputs, units]``."""
    if not np.isfinite(layer.weight).all():
        raise UsageError("weights must be finite to be ordered by what masks keep, but got NaN or inf")
    family, pattern = _family(layer)
    return family.scores(layer.weight, replace(pattern, group_out=1), "l1")


def _group_by_group(layers: Sequence[Prunable], profiles: Sequence[Array]) -> Order:
    """Fills groups with outputs most of which lies in the units that the strongest one left needs.

    The other orders may have groups that all keep the same, which dealing out anew cannot tell apart.
    """
    size = max(_family(layer)[1].group_out for layer in layers)
    norms = np.sum([profile.sum(axis=1) for profile in profiles], axis=0)
    left, order = np.arange(len(norms)), []
    while left.size:
        first = left[np.argmax(norms[left])]
        inside = np.zeros(left.size)
        for layer, profile in zip(layers, profiles, strict=True):
            family, pattern = _family(layer)
            needed = family.choose(profile[None, first], replace(pattern, uniform=True), layer.sparsity)
            inside += profile[left] @ needed[0]
        share = inside / np.maximum(norms[left], np.finfo(np.float64).tiny)
        share[left == first] = np.inf  # leads its own group, though all be pruned
        best = np.argsort(-share, kind="stable")
        order.append(left[best[:size]])
        left = np.sort(left[best[size:]])
    return np.concatenate(order)


def _improved(
    layers: Sequence[Prunable], profiles: Sequence[Array], order: Order
) -> tuple[float, Order]:
    """Gives what is kept in the end, and the order that keeps it."""
    worth = [_worth(*pair, order) for pair in zip(layers, profiles, strict=True)]
    best = _total(worth, order)
    while True:
        outputs, places = linear_sum_assignment(np.sum(worth, axis=0), maximize=True)
        changed = np.empty_like(order)
        changed[places] = outputs
        worth = [_worth(*pair, changed) for pair in zip(layers, profiles, strict=True)]
        kept = _total(worth, changed)
        if kept <= best * (1 + LEAST_GAIN):
            return best, order
        order, best = changed, kept


def _worth(layer: Prunable, profile: Array, order: Order) -> Array:
    """Gives what would be kept of every output at every place under the masks of an order."""
    family, pattern = _family(layer)
    starts = np.arange(0, len(order), pattern.group_out)
    kept = family.choose(np.add.reduceat(profile[order], starts), pattern, layer.sparsity)
    found: Array = profile @ kept.T.astype(np.float64)
    return found[:, np.arange(len(order)) // pattern.group_out]


def _total(worth: Sequence[Array], order: Order) -> float:
    return float(sum(each[order, np.arange(len(order))].sum() for each in worth))
