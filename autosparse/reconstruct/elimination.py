"""In which order to remove units that groups of outputs share, and what each removal costs.

With P the inverse of the damped moment and W the weights of one group, both of what is left, the
removal of unit u with all others set anew costs tr(W_u (P_uu)^-1 W_u^T), and then

    W <- W - W_u (P_uu)^-1 P_u:        P <- P - P_:u (P_uu)^-1 P_u:

which is Gaussian elimination of the unit's rows. The cheapest unit goes first, down to none, so one
pass ranks every unit of a group: what is kept at any sparsity is the end of one order.

Units are removed `SHARE`-th by `SHARE`-th of those left, the cheapest together: their costs are those
before the batch, the update is that of all of them at once and exact. By sixteenths, errors of
ResNet-20's layers on CIFAR-10 are those by thirty-seconds to 0.03 % on average; by eighths they are up
to 0.4 % higher, by quarters up to 5 %.

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

SHARE = 16
# Groups are worked on together while their inverses take no more than this.
_TOGETHER_BYTES = 32 << 20
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


def elimination_flops(columns: float) -> float:
    """Estimates the operations of `eliminate` for a group: two fifths of its columns cubed."""
    return 0.4 * columns**3


def parts_of(groups: Sequence[Group], most_flops: float, least_units: int) -> int:
    """Gives in how many parts units are to be removed, so that it takes no more operations.

    Args:
        groups: all of one layer.
        most_flops: for all of them.
        least_units: that a part has, whatever it takes.
    """
    units, width = groups[0].units.shape
    whole = len(groups) * elimination_flops(float(units * width))
    wanted = np.ceil(np.sqrt(whole / max(most_flops, 1.0)))  # p parts take a p-th squared
    return int(np.clip(wanted, 1, max(1, units // least_units)))


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
    parts: int = 1,
) -> list[Trace]:
    """Removes the units of every group, one after another.

    Args:
        inverse: float64 ``[columns, columns]``, of the damped moment.
        weight: float64 ``[outputs, columns]``; where inputs are always 0, weights cost nothing.
        groups: whose units hold every column once, as many units in each.
        check: called between removals; what it raises ends the work.
        dtype: arithmetic of the pass.
        share: the inverse of the fraction of units that go together.
        parts: units are split into so many runs, each of which is removed as if all of the others
            stayed. It takes a fraction of 1 / parts^2 of the operations. Errors of ResNet-20's layers
            on CIFAR-10 rose by 2 to 16 % with two parts and by 7 to 24 % with four, on average.

    Returns:
        A trace per group.

    Raises:
        UsageError: the damping is too small for the arithmetic.
    """
    inverse, weight = inverse.to(dtype), weight.to(dtype)
    split = np.array_split(np.arange(len(groups[0].units)), parts)
    removed = [_eliminated(*_narrowed(inverse, weight, groups, run), share, check) for run in split]
    return [
        _joined([Trace(run[t.order], t.rise) for run, t in zip(split, traces, strict=True)])
        for traces in zip(*removed, strict=True)
    ]


def _narrowed(
    inverse: Tensor, weight: Tensor, groups: Sequence[Group], run: Array
) -> tuple[Tensor, Tensor, list[Group]]:
    """Gives some units of every group, and inverse and weights of no columns but theirs."""
    units = [group.units[run] for group in groups]
    columns = np.unique(np.stack(units))
    columns = columns[columns >= 0]
    if len(columns) == len(inverse):
        return inverse, weight, [Group(g.outputs, of) for g, of in zip(groups, units, strict=True)]
    place = np.full(len(inverse) + 1, -1, dtype=np.int32)  # the last: of no column
    place[columns] = np.arange(len(columns))
    at = torch.from_numpy(columns.astype(np.int64))
    return (
        inverse.index_select(0, at).index_select(1, at),
        weight.index_select(1, at),
        [Group(g.outputs, place[of]) for g, of in zip(groups, units, strict=True)],
    )


def _eliminated(
    inverse: Tensor, weight: Tensor, groups: Sequence[Group], share: int, check: Check
) -> list[Trace]:
    size = groups[0].units.size ** 2 * inverse.element_size()
    together = max(1, _TOGETHER_BYTES // max(1, size))
    traces: list[Trace] = []
    for start in range(0, len(groups), together):
        check()
        left = _opened(inverse, weight, groups[start : start + together])
        traces += _emptied(left, share, check)
    return traces


def _joined(traces: Sequence[Trace]) -> Trace:
    """Merges the traces of parts of a group: the cheapest first, in each part's own order."""
    if len(traces) == 1:
        return traces[0]
    dear = np.concatenate([np.maximum.accumulate(trace.rise) for trace in traces])
    merged = np.argsort(dear, kind="stable")
    order, rise = (np.concatenate([getattr(t, of) for t in traces]) for of in ("order", "rise"))
    return Trace(order[merged], rise[merged])


@dataclass(slots=True, eq=False)
class _Left:
    """What is left of some groups; columns are in the order of their units.

    What is left of the inverse is P - V^T V, where V has a row per column gone. Only its diagonal
    blocks and the rows of units that go are ever formed: that takes a third of columns cubed, and to
    set all of it anew at each removal would take two thirds. Units that are gone stay in place until
    there are many, as to move what is left takes time too.

    Attributes:
        inverse: ``[all, all]``, P; groups share it.
        columns: int64 ``[groups, columns]``, which of its columns each is.
        weight: ``[groups, rows, columns]``, of groups with fewer rows filled up with zeros.
        own: ``[groups, places, width, width]``, what is left of the block of each unit.
        factor: ``[groups, room, columns]``, V; `gone` of its rows are set.
        gone: columns removed so far.
        units: int64 ``[groups, places]``, the unit at every place.
        alive: int64 ``[groups, units left]``, the places of those left, ascending.
        width: columns per unit.
    """

    inverse: Tensor
    columns: Tensor
    weight: Tensor
    own: Tensor
    factor: Tensor
    gone: int
    units: Tensor
    alive: Tensor
    width: int

    def costs(self) -> Tensor:
        """Gives what the removal of each single unit costs, ``[groups, units left]``."""
        groups, places = self.units.shape
        which = torch.arange(groups)[:, None], self.alive
        own = self.own[which]
        rows = self.weight.view(groups, -1, places, self.width)
        if self.width == 1:  # torch has a call for each matrix of a batch, however small
            cost: Tensor = rows.square().sum(dim=(1, 3)).gather(1, self.alive) / own[:, :, 0, 0]
            return cost
        turned = rows.permute(0, 2, 3, 1)[which]
        half: Tensor = torch.linalg.solve_triangular(factor(own), turned, upper=False)
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
        rows = self._rows(out)
        lower = factor(_taken(rows, out))
        # Products with a small inverse are faster than solving for many columns, and as exact here.
        unit = torch.eye(out.shape[1], dtype=lower.dtype).expand_as(lower)
        small = torch.linalg.solve_triangular(lower, unit, upper=False)
        half = self.factor[:, self.gone : self.gone + out.shape[1]]
        torch.bmm(small, rows, out=half)
        weights = small @ _taken(self.weight, out).mT
        self.weight.baddbmm_(weights.mT, half, alpha=-1)
        split = half.view(*half.shape[:2], -1, self.width).permute(0, 2, 3, 1).contiguous()
        self.own -= split @ split.mT
        self.gone += out.shape[1]
        self.alive = stay
        if stay.shape[1] < _CROWDED * self.units.shape[1]:
            self._move_together()
        joint: Tensor = weights.square().sum(dim=(1, 2))
        return joint

    def _rows(self, out: Tensor) -> Tensor:
        """Gives rows of what is left of the inverse, ``[groups, rows, columns]``."""
        groups, count = out.shape
        known = self.factor[:, : self.gone]
        which = self.columns.gather(1, out).flatten()
        whole = self.inverse.index_select(0, which).view(groups, count, -1)
        rows = _taken(whole, self.columns)
        return rows.baddbmm_(_taken(known, out).mT, known, alpha=-1)

    def _move_together(self) -> None:
        kept = self._columns(self.alive)
        which = torch.arange(len(self.units))[:, None], self.alive
        moved = _room(kept.shape, self.gone, self.weight.dtype)
        moved[:, : self.gone] = _taken(self.factor[:, : self.gone], kept)
        self.factor, self.own = moved, self.own[which]
        self.weight = _taken(self.weight, kept)
        self.columns, self.units = self.columns.gather(1, kept), self.units.gather(1, self.alive)
        self.alive = torch.arange(self.units.shape[1]).repeat(len(self.units), 1)

    def _columns(self, places: Tensor) -> Tensor:
        inside = torch.arange(self.width)
        return (places[:, :, None] * self.width + inside).flatten(1)


def _room(shape: Sequence[int], gone: int, dtype: torch.dtype) -> Tensor:
    """Gives an empty factor for what is gone and all that is left; pages not used cost nothing."""
    return torch.empty(shape[0], gone + shape[1], shape[1], dtype=dtype)


def _opened(inverse: Tensor, weight: Tensor, groups: Sequence[Group]) -> _Left:
    units, width = groups[0].units.shape
    rows = max(len(group.outputs) for group in groups)
    columns = torch.from_numpy(np.stack([group.units.reshape(-1) for group in groups]).astype(np.int64))
    absent = columns < 0
    # Short units are filled up with columns of no weight that depend on no other.
    if bool(absent.any()):
        more, before = int(absent.sum(dim=1).max()), inverse
        inverse = torch.eye(len(before) + more, dtype=before.dtype)
        inverse[: len(before), : len(before)] = before
    own = weight.new_zeros(len(groups), rows, columns.shape[1])
    for place, group in enumerate(groups):
        outputs = torch.from_numpy(group.outputs.astype(np.int64))
        own[place, : len(outputs)] = weight[outputs][:, columns[place].clamp(min=0)]
    own.masked_fill_(absent[:, None], 0.0)
    columns = torch.where(absent, len(weight[0]) + absent.cumsum(dim=1) - 1, columns)
    blocks = columns.view(len(groups), units, width)
    numbers = torch.arange(units).repeat(len(groups), 1)
    return _Left(
        inverse,
        columns,
        own,
        inverse[blocks[..., :, None], blocks[..., None, :]],
        _room(columns.shape, 0, inverse.dtype),
        0,
        numbers,
        numbers,
        width,
    )


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
