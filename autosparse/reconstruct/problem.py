"""One layer's question: which weights, of those that a mask keeps, give back its output best?

With weights W ``[outputs, columns]``, what they shall be like T, and the moment H of the inputs, the
error of weights V is tr((T - V) H (T - V)^T), the squared error of the output per position. Solutions
are those of the damped moment H + ridge * 1; errors are told of the undamped one.

From `LARGE` columns on, errors are summed up in float32 (to some six digits) and systems solved in it:
its rounding is that of a ridge which differs by some hundredths. With 2,304 of 4,608 columns kept and a
condition of 7e4, the error so reached was that of float64 to 2e-8 of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from autosparse.errors import UsageError
from autosparse.measuring.lock import making_way
from autosparse.patterns.structure import Array, BoolArray
from autosparse.reconstruct.hessians import Check, Moments

# Float32 is some three times as fast; below, a layer takes a fraction of a second anyway.
LARGE = 768
_BASE = 256
_TOO_DEPENDENT = (
    "damping must make a layer's moment positive definite, but its inputs are too nearly dependent; "
    "raise it, 0.01 suits most layers"
)


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """A layer's weights, and what its inputs are like.

    Attributes:
        shape: of the layer's weight, OIHW or OI.
        weight: float64 ``[outputs, columns]``, as trained.
        target: the same shape: what weights give back the wanted output if none is pruned.
        moment: float64 ``[columns, columns]``, H.
        ridge: what the damped moment has more on its diagonal.
    """

    shape: tuple[int, ...]
    weight: Tensor
    target: Tensor
    moment: Tensor
    ridge: float
    _rounded: list[Tensor] = field(default_factory=list, init=False, repr=False)

    def error(self, weight: Tensor) -> float:
        """Gives the squared error of the output per position, summed over outputs."""
        missing, moment = self.target - weight, self.rounded()
        through = missing.to(moment.dtype) @ moment
        return float((through * missing).sum().clamp(min=0.0))

    def rounded(self) -> Tensor:
        """Gives H in the type that its size calls for: float32 if it is large. Not to be changed."""
        if len(self.moment) < LARGE:
            return self.moment
        if not self._rounded:
            self._rounded.append(self.moment.float())
        return self._rounded[0]

    def seen(self) -> Tensor:
        """Gives the columns that are not always 0, ascending; all if there is none.

        Nothing depends on the weights of others, such as those of taps that meet padding alone.
        """
        found = torch.nonzero(self.moment.diagonal() > 0).flatten()
        return found if len(found) else torch.arange(len(self.moment))

    def of(self, columns: Tensor) -> Problem:
        """Gives the problem of some columns, as if there were no others; itself if they are all."""
        if len(columns) == len(self.moment):
            return self
        return Problem(
            (len(self.weight), len(columns)),
            self.weight.index_select(1, columns),
            self.target.index_select(1, columns),
            self.moment.index_select(0, columns).index_select(1, columns),
            self.ridge,
        )

    def damped(self) -> Tensor:
        """Gives H + ridge * 1; a copy."""
        damped = self.moment.clone()
        damped.diagonal().add_(self.ridge)
        return damped

    def inverse(self, dtype: torch.dtype = torch.float64) -> Tensor:
        """Gives the inverse of the damped moment.

        Args:
            dtype: of the arithmetic. What float32 cannot factor is inverted in float64; where it can,
                rounding changes the ridge by about a hundredth.

        Raises:
            UsageError: the damping is too small for float64.
        """
        damped = self.damped()
        lower, broken = torch.linalg.cholesky_ex(damped.to(dtype))
        if bool(broken.any()):
            lower = factor(damped)
        return _gram(_inverted(lower))


def _inverted(lower: Tensor) -> Tensor:
    """Inverts a triangular matrix by halves: on two threads LAPACK takes several times as long."""
    if len(lower) <= _BASE:
        unit = torch.eye(len(lower), dtype=lower.dtype)
        small: Tensor = torch.linalg.solve_triangular(lower, unit, upper=False)
        return small
    half = len(lower) // 2
    found = torch.zeros_like(lower)
    found[:half, :half] = _inverted(lower[:half, :half])
    found[half:, half:] = _inverted(lower[half:, half:])
    found[half:, :half] = -found[half:, half:] @ (lower[half:, :half] @ found[:half, :half])
    return found


def _gram(lower: Tensor) -> Tensor:
    """Gives L^T L of a triangular matrix, by halves."""
    if len(lower) <= _BASE:
        return lower.T @ lower
    half = len(lower) // 2
    below, last = lower[half:, :half], lower[half:, half:]
    found = torch.empty_like(lower)
    found[:half, :half] = _gram(lower[:half, :half]).addmm_(below.T, below)
    found[half:, half:] = _gram(last)
    found[half:, :half] = last.T @ below
    found[:half, half:] = found[half:, :half].T
    return found


def factor(matrix: Tensor) -> Tensor:
    """Gives the lower Cholesky factor of a damped moment.

    Raises:
        UsageError: it has none in this arithmetic.
    """
    found: Tensor
    found, broken = torch.linalg.cholesky_ex(matrix)
    if bool(broken.any()):
        raise UsageError(_TOO_DEPENDENT)
    return found


def problem_of(weight: Tensor, moments: Moments, damping: float) -> Problem:
    """Poses the question for a layer.

    With a cross moment G the wanted output is the dense model's. The weights that give it back from the
    inputs at hand are T = (W G + ridge * W) (H + ridge * 1)^-1; without, T = W.

    Args:
        weight: OIHW or OI.
        moments: of the layer's inputs.
        damping: the ridge, as a fraction of the mean of H's diagonal.
    """
    flat = weight.detach().cpu().double().reshape(len(weight), -1)
    mean = float(moments.own.diagonal().mean())
    ridge = damping * mean if mean > 0 else 1.0  # inputs that are all zero say nothing of any weight
    shape = tuple(weight.shape)
    problem = Problem(shape, flat, flat, moments.own, ridge)
    if moments.cross is None:
        return problem
    wanted = flat @ moments.cross + ridge * flat
    target = torch.cholesky_solve(wanted.T, factor(problem.damped())).T.contiguous()
    return Problem(shape, flat, target, moments.own, ridge)


def rows_alike(mask: BoolArray) -> Iterator[tuple[Array, Array]]:
    """Gives the outputs that keep the same columns, and those columns.

    Args:
        mask: ``[outputs, columns]``.
    """
    packed = np.packbits(mask, axis=1)
    _, first, which = np.unique(packed, axis=0, return_index=True, return_inverse=True)
    for number, row in enumerate(first):
        yield np.flatnonzero(which.ravel() == number), np.flatnonzero(mask[row])


def solving_flops(mask: BoolArray) -> float:
    """Estimates the operations of `least_squares`: a Cholesky factor per set of outputs."""
    return sum(len(columns) ** 3 / 3 for _, columns in rows_alike(mask))


def least_squares(problem: Problem, mask: BoolArray, check: Check) -> Tensor:
    """Gives the best weights that a mask allows, on the damped moment.

    Outputs that keep the same columns S share one solution: V_S = (T D)_S D_SS^-1 with D the damped
    moment.

    Args:
        problem: the layer.
        mask: ``[outputs, columns]``.
        check: called between solutions; what it raises ends the work.

    Returns:
        Float64 ``[outputs, columns]``, 0 where the mask is false.
    """
    wanted = problem.target @ problem.moment + problem.ridge * problem.target
    found = torch.zeros_like(problem.target)
    moment = problem.rounded().numpy()
    for rows, columns in rows_alike(mask):
        check()
        if not columns.size:
            continue
        right = wanted[torch.from_numpy(rows)[:, None], torch.from_numpy(columns)]
        with making_way(check):
            # Numpy picks a square of columns several times faster than torch.
            inside = torch.from_numpy(moment[np.ix_(columns, columns)])
            solved = _solution(inside, problem.ridge, right.T.to(inside.dtype))
            if solved is None:
                precise = problem.moment.numpy()[np.ix_(columns, columns)]
                solved = _solution(torch.from_numpy(precise), problem.ridge, right.T)
            if solved is None:
                raise UsageError(_TOO_DEPENDENT)
            found[torch.from_numpy(rows)[:, None], torch.from_numpy(columns)] = solved.T.double()
    return found


def _solution(matrix: Tensor, ridge: float, right: Tensor) -> Tensor | None:
    """Solves a damped system, ``[columns, right sides]``; None where it has no factor.

    Args:
        matrix: without the ridge; it is changed.
        ridge: see `Problem`.
        right: of the same type.
    """
    matrix.diagonal().add_(ridge)
    lower, broken = torch.linalg.cholesky_ex(matrix)
    return None if bool(broken.any()) else torch.cholesky_solve(right, lower)
