"""Choosing and setting weights column by column, where every output keeps columns of its own.

With L L^T = P the Cholesky decomposition of the inverse damped moment, columns in any order, row j of
L^T is what the removal of column j does to itself and to those after it once those before are fixed.
So one sweep sets every output's weights, whichever each prunes, at the cost of one factor.

Source: Frantar, Alistarh, "SparseGPT", arXiv 2301.00774, section 3: the sweep, and the choice of N of M
by w^2 / L_jj^2 when the sweep comes to them. Differs: M consecutive are inputs at one kernel position,
so columns are swept position by position.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from autosparse.measuring.lock import making_way
from autosparse.patterns.structure import Array, BoolArray
from autosparse.reconstruct.hessians import Check
from autosparse.reconstruct.problem import Problem, factor

Choose = Callable[[Array, Array], BoolArray]
_BLOCK = 128


def sweep(problem: Problem, run: int, choose: Choose, check: Check) -> tuple[Tensor, BoolArray]:
    """Sets weights column by column.

    Args:
        problem: the layer.
        run: consecutive inputs, at one kernel position, that are chosen together.
        choose: given importances ``[outputs, run]`` and the columns they are of, which are kept.
        check: called between blocks; what it raises ends the work.

    Returns:
        Float64 weights ``[outputs, columns]`` and the mask of those kept.
    """
    inputs, count = problem.shape[1], problem.target.shape[1]
    order = np.arange(count).reshape(inputs, count // inputs).T.reshape(-1)  # tap by tap
    at = torch.from_numpy(order)
    upper = factor(problem.inverse().index_select(0, at).index_select(1, at)).T
    left = problem.target.index_select(1, at)
    mask = np.zeros(left.shape, dtype=bool)
    for start in range(0, count, _BLOCK * run):
        check()
        stop = min(start + _BLOCK * run, count)
        with making_way(check):
            errors = _block(left, mask, upper, (start, stop), run, lambda s, c: choose(s, order[c]))
            left[:, stop:] -= errors @ upper[start:stop, stop:]
    weights, kept = torch.empty_like(left), np.empty_like(mask)
    weights[:, at] = left
    kept[:, order] = mask
    return weights, kept


def _block(
    left: Tensor, mask: BoolArray, upper: Tensor, span: tuple[int, int], run: int, choose: Choose
) -> Tensor:
    """Sets the weights of a block of columns in place, and gives their scaled errors."""
    start, stop = span
    errors = left.new_zeros(len(left), stop - start)
    for column in range(start, stop):
        if (column - start) % run == 0:
            ahead = np.arange(column, min(column + run, stop))
            scaled = left[:, ahead] / upper.diagonal()[ahead]
            mask[:, ahead] = choose(scaled.square().numpy(), ahead)
        gone = torch.from_numpy(~mask[:, column])
        error = torch.where(gone, left[:, column], 0.0) / upper[column, column]
        left[:, column + 1 : stop] -= error[:, None] * upper[column, column + 1 : stop]
        left[gone, column] = 0.0
        errors[:, column - start] = error
    return errors
