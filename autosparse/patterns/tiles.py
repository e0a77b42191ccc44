"""Arithmetic on tiles: columns in the order of kernels, units of columns, N:M inside of what is kept.

Columns are those of a weight ``[outputs, taps * inputs]``: kernel positions row by row, and the inputs
of one position side by side. A unit is a run of `unit_in` inputs at one position; the last run of each
position is short where `unit_in` does not divide the inputs.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from autosparse.patterns.blocks import highest_per_group
from autosparse.patterns.pattern import WeightShape
from autosparse.patterns.structure import Array, BoolArray, IntArray


def to_columns(weight: Array) -> Array:
    """Flattens a weight OIHW or OI to ``[outputs, taps * inputs]``."""
    return np.moveaxis(weight, 1, -1).reshape(len(weight), -1)


def from_columns(columns: Array, shape: WeightShape) -> Array:
    """Gives columns the shape of their weight again; a copy."""
    return np.moveaxis(columns.reshape(shape[0], *shape[2:], shape[1]), -1, 1).copy()


def unit_starts(shape: WeightShape, unit_in: int) -> IntArray:
    """Gives the first column of every unit, int32 ``[units]``."""
    positions = np.arange(int(np.prod(shape[2:])))[:, None] * shape[1]
    return (positions + np.arange(0, shape[1], unit_in)).reshape(-1).astype(np.int32)


def unit_sizes(shape: WeightShape, unit_in: int) -> IntArray:
    """Gives the columns of every unit, int32 ``[units]``."""
    return np.diff(unit_starts(shape, unit_in), append=int(np.prod(shape[1:]))).astype(np.int32)


def unit_columns(shape: WeightShape, unit_in: int) -> IntArray:
    """Gives the columns of every unit in a weight ``[outputs, inputs * taps]``, as `Group` has them."""
    taps = int(np.prod(shape[2:]))
    inputs = np.arange(0, shape[1], unit_in)[:, None] + np.arange(unit_in)
    at = np.where(inputs < shape[1], inputs * taps, -taps)
    columns = at[None] + np.arange(taps)[:, None, None]
    return np.where(at[None] < 0, -1, columns).reshape(-1, unit_in).astype(np.int32)


def tiles_of(survivors: IntArray, group_out: int) -> list[IntArray]:
    """Cuts the outputs that are left into tiles of `group_out`, in order; the last may be short."""
    if not survivors.size:
        return []
    return np.split(survivors, range(group_out, survivors.size, group_out))


def mean_sizes(size: Array, lengths: Array, starts: IntArray, criterion: str) -> Array:
    """Scores the units of one tile: a norm over its weights, divided by how many they are.

    Args:
        size: importance of every weight, ``[rows, columns]``, at least 0.
        lengths: weights per unit, ``[units]``.
        starts: first column of every unit, ``[units]``.
        criterion: ``l1`` or ``l2``.
    """
    if criterion == "l1":
        return np.asarray(np.add.reduceat(size.sum(axis=0, dtype=np.float64), starts) / lengths)
    squares = np.square(size).sum(axis=0, dtype=np.float64)
    return np.asarray(np.sqrt(np.add.reduceat(squares, starts)) / lengths)


def highest_of_all(scores: Array, kept: int) -> BoolArray:
    """Keeps the `kept` highest scores of all groups ``[G, U]``, the best of each among them."""
    best = highest_per_group(scores, 1)
    order = np.argsort(scores, axis=None, kind="stable")
    blocks = np.ones(scores.size, dtype=bool)
    blocks[order[~best.reshape(-1)[order]][: scores.size - kept]] = False
    return blocks.reshape(scores.shape)


def keep_inside(size: Array, nm: tuple[int, int]) -> BoolArray:
    """Keeps the N largest of every M consecutive columns, row by row; of a shorter tail N too, or all.

    Args:
        size: importance of every weight that is left, ``[rows, columns]``, at least 0.
        nm: (N, M).
    """
    rows, columns = size.shape
    runs = -(-columns // nm[1])
    full = np.full((rows, runs * nm[1]), -1.0)
    full[:, :columns] = size
    return highest_per_group(full.reshape(-1, nm[1]), nm[0]).reshape(rows, -1)[:, :columns]


def kept_inside(columns: int, nm: tuple[int, int] | None) -> int:
    """Counts the weights of a row that N:M leaves of that many columns; all without N:M."""
    if nm is None:
        return columns
    return nm[0] * (columns // nm[1]) + min(nm[0], columns % nm[1])


def nm_groups(live: BoolArray, nm: tuple[int, int]) -> Iterator[tuple[int, int]]:
    """Cuts columns into the fewest groups of at most M with at most N live weights in every row.

    So a kernel packs them: a group of fewer columns is filled up. Where N:M was chosen over columns of
    which some live in no row, so that zeros do not tell where they were, no more groups come out than
    were chosen.

    Args:
        live: bool ``[rows, columns]``.
        nm: (N, M).

    Yields:
        First column of a group, and the one after its last.
    """
    counts = np.zeros((live.shape[0], live.shape[1] + 1), dtype=np.int32)
    np.cumsum(live, axis=1, out=counts[:, 1:])
    first = 0
    while first < live.shape[1]:
        ahead = counts[:, first + 1 : first + nm[1] + 1] - counts[:, first : first + 1]
        end = first + int(np.count_nonzero(ahead.max(axis=0) <= nm[0]))
        yield first, end
        first = end
