"""In which order to remove units that groups of outputs share, and what each removal costs.

With P the inverse of the damped moment and W the weights of one group, both of what is left, the
removal of unit u with all others set anew costs tr(W_u (P_uu)^-1 W_u^T), and then

    W <- W - W_u (P_uu)^-1 P_u:        P <- P - P_:u (P_uu)^-1 P_u:

which is Gaussian elimination of the unit's rows. The cheapest unit goes first, down to none, so one
pass ranks every unit of a group: what is kept at any sparsity is the end of one order.

Units are removed `SHARE`-th by `SHARE`-th of those left, the cheapest together: their costs are those
before the batch, the update is that of all of them at once and exact.

Source: Frantar, Singh, Alistarh, "Optimal Brain Compression", arXiv 2208.11580: the greedy order, the
block update, and the choice over a whole layer by the traces of its rows.
Differs: a unit is shared by several outputs and its cost is the sum over them; several units at a time;
weights are not those of the elimination but solved for anew, which is exact in whatever order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from autosparse.measuring.lock import making_way
from autosparse.patterns.family import Group
from autosparse.patterns.structure import Array
from autosparse.reconstruct.hessians import Check
from autosparse.reconstruct.problem import factor

SHARE = 32
# Groups are worked on together while their inverses take no more than this.
_TOGETHER_BYTES = 128 << 20
_CROWDED = 0.75


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """The removal of all units of one group.

    Attributes:
        order: int64 ``[units]``, the first to go first.
        rise: float64 ``[units]``, what each removal adds to the group's error, in the same order; units
            that went together share theirs out by their single costs.
    """

    order: Array
    rise: Array


def elimination_flops(groups: Sequence[Group]) -> float:
    """Estimates the operations of `eliminate`: two thirds of columns cubed, per group."""
    return sum(2 / 3 * float(group.units.size) ** 3 for group in groups)


def ranks(traces: Sequence[Trace]) -> Array:
    """Merges the orders of groups into one, float64 ``[groups, units]``; the higher, the later.

    A unit counts as dear as the dearest that went before it in its group, so that every group's own
    order lasts.
    """
    dear = np.stack([np.maximum.accumulate(trace.rise) for trace in traces])
    places = np.broadcast_to(np.arange(dear.shape[1]), dear.shape)
    merged = np.lexsort((places.ravel(), dear.ravel()))
    rank = np.empty(dear.size)
    rank[merged] = np.arange(dear.size)
    found = np.empty(dear.shape)
    order = np.stack([trace.order for trace in traces])
    np.put_along_axis(found, order, rank.reshape(dear.shape), axis=1)
    return found


def eliminate(
    inverse: Tensor,
    weight: Tensor,
    groups: Sequence[Group],
    check: Check,
    *,
    dtype: torch.dtype = torch.float32,
    share: int = SHARE,
) -> list[Trace]:
    """Removes the units of every group, one after another.

    Args:
        inverse: float64 ``[columns, columns]``, of the damped moment.
        weight: float64 ``[outputs, columns]``; where inputs are always 0, weights cost nothing.
        groups: whose units hold every column once, as many units in each.
        check: called between removals; what it raises ends the work.
        dtype: arithmetic of the pass.
        share: the inverse of the fraction of units that go together.

    Returns:
        A trace per group.

    Raises:
        UsageError: the damping is too small for the arithmetic.
    """
    size = groups[0].units.size ** 2 * torch.finfo(dtype).bits // 8
    together = max(1, _TOGETHER_BYTES // size)
    traces: list[Trace] = []
    inverse, weight = inverse.to(dtype), weight.to(dtype)
    for start in range(0, len(groups), together):
        check()
        left = _opened(inverse, weight, groups[start : start + together])
        traces += _emptied(left, share, check)
    return traces


@dataclass(slots=True, eq=False)
class _Left:
    """What is left of some groups; columns are in the order of their units.

    Units that are gone stay in place, as zeros, until there are many: to move what is left takes as
    long as to set it anew.

    Attributes:
        inverse: ``[groups, columns, columns]``.
        weight: ``[groups, rows, columns]``, of groups with fewer rows filled up with zeros.
        units: int64 ``[groups, places]``, the unit at every place.
        alive: int64 ``[groups, units left]``, the places of those left, ascending.
        width: columns per unit.
    """

    inverse: Tensor
    weight: Tensor
    units: Tensor
    alive: Tensor
    width: int

    def costs(self) -> Tensor:
        """Gives what the removal of each single unit costs, ``[groups, units left]``."""
        groups, places = self.units.shape
        which = torch.arange(groups)[:, None], self.alive
        squares = self.inverse.view(groups, places, self.width, places, self.width)
        own = squares.diagonal(dim1=1, dim2=3).permute(0, 3, 1, 2)[which]
        rows = self.weight.view(groups, -1, places, self.width).permute(0, 2, 3, 1)[which]
        half: Tensor = torch.linalg.solve_triangular(factor(own), rows, upper=False)
        return half.square().sum(dim=(2, 3))

    def remove(self, gone: Tensor, stay: Tensor) -> Tensor:
        """Removes units and sets the others anew.

        Args:
            gone: int64 ``[groups, count]``, their places.
            stay: the places of the others, ascending.

        Returns:
            What the removal adds to the error, ``[groups]``.
        """
        out = self._columns(gone)
        rows = _taken(self.inverse, out)
        lower = factor(_taken(rows.mT, out))
        half = torch.linalg.solve_triangular(lower, rows.mT, upper=False)
        own = _taken(self.weight, out).mT
        weights: Tensor = torch.linalg.solve_triangular(lower, own, upper=False)
        self.weight.baddbmm_(weights.mT, half, alpha=-1)
        self.inverse.baddbmm_(half.mT, half, alpha=-1)
        self.alive = stay
        if stay.shape[1] < _CROWDED * self.units.shape[1]:
            self._move_together()
        return weights.square().sum(dim=(1, 2))

    def _move_together(self) -> None:
        kept = self._columns(self.alive)
        parts = zip(self.inverse, kept, strict=True)
        self.inverse = torch.stack([p.index_select(0, k).index_select(1, k) for p, k in parts])
        self.weight = _taken(self.weight, kept)
        self.units = self.units.gather(1, self.alive)
        self.alive = torch.arange(self.units.shape[1]).repeat(len(self.units), 1)

    def _columns(self, places: Tensor) -> Tensor:
        inside = torch.arange(self.width)
        return (places[:, :, None] * self.width + inside).flatten(1)


def _opened(inverse: Tensor, weight: Tensor, groups: Sequence[Group]) -> _Left:
    units, width = groups[0].units.shape
    rows = max(len(group.outputs) for group in groups)
    inverses, weights = [], []
    for group in groups:
        order = torch.from_numpy(group.units.reshape(-1).astype(np.int64))
        absent = torch.nonzero(order < 0).flatten()
        at = order.clamp(min=0)
        square = inverse.index_select(0, at).index_select(1, at)
        # Short units are filled up with columns of no weight that depend on no other.
        square[absent] = 0.0
        square[:, absent] = 0.0
        square[absent, absent] = 1.0
        own = weight.new_zeros(rows, len(order))
        own[: len(group.outputs)] = weight[torch.from_numpy(group.outputs.astype(np.int64))][:, at]
        own[:, absent] = 0.0
        inverses.append(square)
        weights.append(own)
    numbers = torch.arange(units).repeat(len(groups), 1)
    return _Left(torch.stack(inverses), torch.stack(weights), numbers, numbers, width)


def _emptied(left: _Left, share: int, check: Check) -> list[Trace]:
    order: list[Tensor] = []
    rise: list[Tensor] = []
    while remaining := left.alive.shape[1]:
        check()
        count = max(1, remaining // share)
        with making_way(check):
            costs = left.costs().double()
            ranked = costs.argsort(dim=1, stable=True)
            gone = left.alive.gather(1, ranked[:, :count])
            stay = left.alive.gather(1, ranked[:, count:].sort(dim=1).values)
            order.append(left.units.gather(1, gone))
            joint = left.remove(gone, stay).double()
        single = costs.gather(1, ranked[:, :count])
        total = single.sum(dim=1, keepdim=True)
        rise.append(torch.where(total > 0, joint[:, None] * single / total, joint[:, None] / count))
    orders, rises = torch.cat(order, dim=1).numpy(), torch.cat(rise, dim=1).numpy()
    return [Trace(*pair) for pair in zip(orders, rises, strict=True)]


def _taken(of: Tensor, columns: Tensor) -> Tensor:
    """Gives some columns of every matrix, ``[groups, rows, columns]``."""
    return of.gather(2, columns[:, None, :].expand(-1, of.shape[1], -1))
