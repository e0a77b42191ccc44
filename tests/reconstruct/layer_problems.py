"""Layers to reconstruct, and independent answers in float64 numpy."""

from __future__ import annotations

import numpy as np
import torch

from autosparse.reconstruct.hessians import Moments
from autosparse.reconstruct.problem import Problem, problem_of


def go_on():
    """The check of work that nobody stops."""


def problem(shape, seed=0, *, damping=1e-2, rank=None, dead=(), crossed=False):
    """Draws a layer with correlated inputs.

    Args:
        shape: of the weight.
        seed: of everything.
        damping: of the moment.
        rank: independent directions of the inputs; None is more than there are columns.
        dead: columns that are always 0.
        crossed: whether a dense model shows other inputs.
    """
    rng = np.random.default_rng(seed)
    columns = int(np.prod(shape[1:]))
    mixed = rng.normal(size=(rank or columns, columns)) * rng.uniform(0.1, 2.0, columns)
    rows = rng.normal(size=(3 * columns, len(mixed))) @ mixed + 0.3
    rows[:, list(dead)] = 0.0
    other = rows + 0.3 * rng.normal(size=rows.shape)
    own, cross = (torch.from_numpy(each.T @ rows / len(rows)) for each in (rows, other))
    weight = torch.from_numpy(rng.normal(size=shape))
    return problem_of(weight, Moments(own, cross if crossed else None, len(rows)), damping)


def by_hand() -> Problem:
    """A moment of [[2, 1, 0], [1, 2, 0], [0, 0, 1]], half of its diagonal by damping."""
    damped = torch.tensor([[2.0, 1, 0], [1, 2, 0], [0, 0, 1]], dtype=torch.float64)
    weight = torch.tensor([[1.0, 1, 1], [2, 0, 1]], dtype=torch.float64)
    ridge = 0.5
    return Problem((2, 3), weight, weight, damped - ridge * torch.eye(3, dtype=torch.float64), ridge)


def best(asked: Problem, mask):
    """Solves for the weights that a mask keeps, output by output, in numpy."""
    target, damped = asked.target.numpy(), asked.damped().numpy()
    found = np.zeros_like(target)
    for row, kept in enumerate(np.asarray(mask).reshape(target.shape)):
        if kept.any():
            inside = damped[np.ix_(kept, kept)]
            found[row, kept] = np.linalg.solve(inside, damped[kept] @ target[row])
    return found


def error_of(asked: Problem, weight, *, damped=False):
    """Gives tr((T - V) H (T - V)^T) in numpy."""
    missing = asked.target.numpy() - np.asarray(weight).reshape(asked.target.shape)
    moment = (asked.damped() if damped else asked.moment).numpy()
    return float(np.einsum("ij,jk,ik->", missing, moment, missing))
