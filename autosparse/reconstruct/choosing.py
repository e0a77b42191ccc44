"""Which weights a layer keeps in a pattern, and what they become: the way follows from who shares what.

    units shared by groups, known beforehand   removed one after another (`elimination`), one pass for
                                               all sparsities; in a large layer, parts of its inputs by
                                               themselves
    N of M inputs, output by output            chosen as a sweep comes to them (`columns`)
    single weights of a large layer            by w^2 / P_jj, all at once
    any other, such as tiles                   by the same, spread over units and outputs, at rising
                                               sparsity; units inside tiles are then removed one by one

Whatever the way, weights are those of least squares for the mask. A solution that gives back a layer's
output less well than plain masking is thrown away for least squares on the plain mask.

Columns that are 0 at all positions looked at are left out: their weights cost nothing, so they are the
first to go, the smallest first, and stay as they are where they are kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from autosparse.errors import PlanError
from autosparse.patterns.family import AbstractFamily, Group, UnitFamily, family_of
from autosparse.patterns.masks import mask as plain_mask
from autosparse.patterns.pattern import Pattern
from autosparse.patterns.structure import Array, BoolArray, IntArray
from autosparse.reconstruct.columns import sweep
from autosparse.reconstruct.elimination import eliminate, elimination_flops, parts_of, ranks
from autosparse.reconstruct.hessians import Check
from autosparse.reconstruct.problem import LARGE, Problem, least_squares, solving_flops
from autosparse.reconstruct.settings import ReconstructionSettings

# A core does some 2e10 to 5e10 of them a second: a few seconds of one go into the order of a layer.
_MOST_FLOPS = 2e11
_MOST_FLOPS_SINGLE = 3e11
# Of least squares: 64 groups that keep half of 4608 columns take 2.6e11.
_MOST_FLOPS_SOLVING = 1e12
# A part has so many units at least: smaller ones take no less time.
_LEAST_UNITS = 32
# Rising sparsity where units follow from the weights: more steps gain little.
_STEPS = 4


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """What a layer becomes.

    Attributes:
        weight: float64 of the layer's shape, 0 where pruned.
        mask: bool of the layer's shape.
        error: squared error of the output per position, summed over outputs.
        masked_error: the same of plain masking: the largest weights, as they were.
    """

    weight: Tensor
    mask: BoolArray
    error: float
    masked_error: float


def solve(
    problem: Problem,
    pattern: Pattern,
    sparsities: Sequence[float],
    settings: ReconstructionSettings,
    check: Check,
) -> dict[float, Solution]:
    """Prunes a layer to several sparsities of one pattern.

    Args:
        problem: the layer.
        pattern: what masks follow.
        sparsities: fractions of units to prune, each by itself.
        settings: arithmetic, and the criterion of plain masks.
        check: called between pieces of work; what it raises ends it.

    Returns:
        Sparsity to solution.

    Raises:
        PlanError: the layer cannot have the pattern, or the pattern one of the sparsities.
        UsageError: the damping is too small.
    """
    chooser = _Chooser(problem, pattern, settings, check)
    return {sparsity: chooser.solution(sparsity) for sparsity in sorted(set(sparsities))}


class _Chooser:
    """Masks of one layer and pattern; what serves all sparsities is made once."""

    def __init__(
        self, problem: Problem, pattern: Pattern, settings: ReconstructionSettings, check: Check
    ) -> None:
        self.problem, self.pattern = problem, pattern
        self.settings, self.check = settings, check
        self.family = family_of(pattern)
        if why := self.family.why_not(pattern, problem.shape):
            raise PlanError(f"a layer must be able to have its pattern {pattern.name}, but {why}")
        self._groups = self.family.groups(pattern, problem.shape)
        self._columns = problem.seen()
        self._seen = problem.of(self._columns)
        self._inverse: Tensor | None = None
        self._ranks: Array | None = None

    def solution(self, sparsity: float) -> Solution:
        problem = self.problem
        flat = problem.weight.numpy().reshape(problem.shape)
        plain = plain_mask(flat, self.pattern, sparsity, criterion=self.settings.criterion)
        plain = plain.reshape(problem.weight.shape)
        masked = problem.weight * torch.from_numpy(plain)
        bound = self._error(masked)
        if plain.all():
            return self._told(problem.target, plain, 0.0, bound)
        mask = self._mask(sparsity)
        weight = self._set(mask)
        error = self._error(weight)
        if error > bound:
            mask, weight = plain, self._set(plain)
            error = self._error(weight)
        if error > bound:
            weight, error = masked, bound
        return self._told(weight, mask, error, bound)

    def _told(self, weight: Tensor, mask: BoolArray, error: float, bound: float) -> Solution:
        shape = self.problem.shape
        return Solution(weight.reshape(shape), mask.reshape(shape), error, bound)

    def _error(self, weight: Tensor) -> float:
        return self._seen.error(weight.index_select(1, self._columns))

    def _set(self, mask: BoolArray) -> Tensor:
        inside = mask[:, self._columns.numpy()]
        if solving_flops(inside) <= _MOST_FLOPS_SOLVING:
            weight = torch.where(torch.from_numpy(mask), self.problem.target, 0.0)
            weight[:, self._columns] = least_squares(self._seen, inside, self.check)
            return weight
        return sweep(self.problem, 1, lambda _, columns: mask[:, columns], self.check)[0]

    def _mask(self, sparsity: float) -> BoolArray:
        layout = unit_layout(self.family, self.pattern, self.problem.shape, self._groups)
        if layout is not None and self._worth_eliminating(self._groups):
            return self._by_elimination(layout, sparsity)
        if _is_single(self._groups):
            return self._by_run(sparsity) if self.pattern.nm else self._at_once(sparsity)
        return self._by_steps(sparsity)

    # ------------------------------------------------------------------------------------ the ways

    def _by_elimination(self, family: UnitFamily, sparsity: float) -> BoolArray:
        if self._ranks is None:
            self._ranks = self._eliminated(self._groups)
        scores = self._ranks.reshape(family.units(self.pattern, self.problem.shape))
        weight = self.problem.weight.numpy().reshape(self.problem.shape)
        mask = family.mask(weight, self.pattern, sparsity, scores=scores)
        return mask.reshape(self.problem.weight.shape)

    def _by_run(self, sparsity: float) -> BoolArray:
        """Chooses within runs of M inputs, each of which is a small weight of the pattern."""
        assert self.pattern.nm is not None
        run = self.pattern.nm[1]

        def choose(scores: Array, columns: Array) -> BoolArray:
            return self.family.mask(scores, self.pattern, sparsity)

        return sweep(self.problem, run, choose, self.check)[1]

    def _at_once(self, sparsity: float) -> BoolArray:
        return self._from_elements(self._importance(self.problem.target), sparsity)

    def _by_steps(self, sparsity: float) -> BoolArray:
        weight, mask = self.problem.target, np.ones(self.problem.weight.shape, dtype=bool)
        for step in range(1, _STEPS + 1):
            part = sparsity * step / _STEPS
            if step < _STEPS and self.family.why_not_sparsity(self.pattern, part):
                continue
            self.check()
            mask = self._from_elements(self._spread(weight), part)
            weight = self._set(mask)
        return self._within_tiles(mask, sparsity)

    def _within_tiles(self, mask: BoolArray, sparsity: float) -> BoolArray:
        """Chooses units anew for the outputs that a mask keeps, as many per group, by elimination."""
        outputs = np.flatnonzero(mask.any(axis=1)).astype(np.int32)
        groups = self.family.groups(self.pattern, self.problem.shape, outputs) if outputs.size else ()
        if not groups or not _one_layout(groups):
            return mask
        rank = self._eliminated(groups)
        alive = np.stack([_alive(group, mask) for group in groups])
        chosen = np.zeros_like(mask)
        for group, kept in zip(groups, _highest(rank, alive, self.pattern.uniform), strict=True):
            columns = group.units[kept].reshape(-1)
            chosen[np.ix_(group.outputs, columns[columns >= 0])] = True
        importance = self._spread(self._set(chosen))
        scaled = importance / (float(importance.max()) or 1.0)
        live = np.isin(np.arange(len(mask)), outputs)[:, None]
        # The family's own rules, such as N of M inside of what is kept, decide among what was chosen.
        return self._from_elements(np.where(live, chosen + scaled, 0.0), sparsity)

    # -------------------------------------------------------------------------------------- parts

    def _eliminated(self, groups: Sequence[Group]) -> Array:
        """Ranks units, ``[groups, units]``: of unseen columns alone, then as they are removed."""
        place = np.full(self.problem.weight.shape[1] + 1, -1, dtype=np.int32)  # the last: of no column
        place[self._columns.numpy()] = np.arange(len(self._columns))
        units = np.stack([place[group.units] for group in groups])
        removed = np.flatnonzero((units >= 0).any(axis=(0, 2)))
        units = _narrow(units[:, removed])
        seen = [Group(group.outputs, of) for group, of in zip(groups, units, strict=True)]
        dtype = getattr(torch, self.settings.dtype)
        parts = parts_of(seen, _MOST_FLOPS, _LEAST_UNITS)
        traces = eliminate(
            self._inverted(), self._seen.target, seen, self.check, dtype=dtype, parts=parts
        )
        found = np.stack([self._magnitudes(group) for group in groups])
        found = found.ravel().argsort(kind="stable").argsort().reshape(found.shape).astype(float)
        found[:, removed] = ranks(traces) + found.size
        return found

    def _magnitudes(self, group: Group) -> Array:
        rows = self.problem.target.numpy()[group.outputs][:, group.units]
        return np.asarray((np.where(group.units >= 0, rows, 0.0) ** 2).sum(axis=(0, 2)))

    def _inverted(self) -> Tensor:
        if self._inverse is None:
            large = len(self._columns) >= LARGE
            self._inverse = self._seen.inverse(
                getattr(torch, self.settings.dtype) if large else torch.float64
            )
        return self._inverse

    def _importance(self, weight: Tensor) -> Array:
        """Gives the error that the loss of each single weight costs, the others set anew."""
        diagonal = torch.full((weight.shape[1],), 1 / self.problem.ridge, dtype=torch.float64)
        diagonal[self._columns] = self._inverted().diagonal().double()
        return (weight.square() / diagonal).numpy()

    def _spread(self, weight: Tensor) -> Array:
        """Gives importances whose sums over outputs are what whole outputs are worth.

        Nothing makes up for a whole output; what it costs is its energy, w H w^T.
        """
        single = self._importance(weight)
        energy = self._energy(weight.index_select(1, self._columns))
        total = single.sum(axis=1)
        return np.asarray(single * (energy / np.where(total > 0, total, 1.0))[:, None])

    def _energy(self, weight: Tensor) -> Array:
        energy = ((weight @ self._seen.moment) * weight).sum(dim=1)
        return np.asarray(energy.clamp(min=0.0).numpy())

    def _worth_eliminating(self, groups: Sequence[Group]) -> bool:
        if not _is_single(groups):
            return True
        columns = float(len(self._columns))
        return len(groups) * elimination_flops(columns) <= _MOST_FLOPS_SINGLE

    def _from_elements(self, importance: Array, sparsity: float) -> BoolArray:
        shaped = importance.reshape(self.problem.shape)
        mask = self.family.mask(shaped, self.pattern, sparsity, criterion="l1")
        return mask.reshape(importance.shape)


def unit_layout(
    family: AbstractFamily, pattern: Pattern, shape: tuple[int, ...], groups: Sequence[Group]
) -> UnitFamily | None:
    """Gives the family if its scores are those of its groups' units, in their order; else None."""
    if not isinstance(family, UnitFamily) or pattern.nm is not None or not _one_layout(groups):
        return None
    scored = family.units(pattern, shape)
    drawn = np.random.default_rng(0).random((len(groups), len(groups[0].units))) < 0.5
    if drawn.shape[1] < 2 or drawn.size != np.prod(scored):
        return None
    mask = np.zeros((shape[0], int(np.prod(shape[1:]))), dtype=bool)
    for group, kept in zip(groups, drawn, strict=True):
        columns = group.units[kept].reshape(-1)
        mask[np.ix_(group.outputs, columns[columns >= 0])] = True
    said = family.expand(drawn.reshape(scored), shape, pattern)
    return family if np.array_equal(said.reshape(mask.shape), mask) else None


def _one_layout(groups: Sequence[Group]) -> bool:
    """Whether groups can be traced together: as many units in each, more than one."""
    shapes = {group.units.shape for group in groups}
    return len(shapes) == 1 and groups[0].units.shape[0] > 1


def _is_single(groups: Sequence[Group]) -> bool:
    return all(len(group.outputs) == 1 and group.units.shape[1] == 1 for group in groups)


def _narrow(units: IntArray) -> IntArray:
    """Moves the columns of every unit to its front, and leaves out what no unit has any in.

    Args:
        units: ``[groups, units, width]``, -1 for no column.
    """
    moved = np.take_along_axis(units, np.argsort(units < 0, axis=2, kind="stable"), axis=2)
    return np.asarray(moved[:, :, : (units >= 0).sum(axis=2).max(initial=1)])


def _alive(group: Group, mask: BoolArray) -> BoolArray:
    """Gives which units of a group keep anything."""
    columns = np.asarray(mask[group.outputs].any(axis=0))
    return np.asarray((columns[group.units] & (group.units >= 0)).any(axis=1))


def _highest(rank: Array, alive: BoolArray, uniform: bool) -> BoolArray:
    """Keeps the units of highest rank: as many as are alive, in each group or in all."""
    rows, counts = (rank, alive.sum(axis=1)) if uniform else (rank.reshape(1, -1), [alive.sum()])
    kept = np.zeros(rows.shape, dtype=bool)
    for row, count, ranked in zip(kept, counts, rows, strict=True):
        row[np.argsort(-ranked, kind="stable")[:count]] = True
    return kept.reshape(alive.shape)
