"""Arithmetic on blocks: cut a weight into blocks, score them, choose them, spread them again.

A block is `block_n` consecutive outputs by `unit_in` consecutive inputs by all taps. The last group of
outputs and the last run of inputs of a weight are short where these do not divide its extents.
"""

from __future__ import annotations

import numpy as np

from autosparse.patterns.structure import Array, BoolArray, group_count, live_kernels


def block_vectors(weight: Array, block_n: int, unit_in: int = 1) -> Array:
    """Cuts a weight OIHW or OI into block vectors ``[G, U, block_n * unit_in * taps]``.

    Short blocks at the ends are filled up with zeros, which change no norm and no angle.
    """
    outputs, inputs = weight.shape[:2]
    groups, units = group_count(outputs, block_n), group_count(inputs, unit_in)
    taps = int(np.prod(weight.shape[2:]))
    full = np.zeros((groups * block_n, units * unit_in, taps), dtype=weight.dtype)
    full[:outputs, :inputs] = weight.reshape(outputs, inputs, -1)
    blocks = full.reshape(groups, block_n, units, unit_in, taps).transpose(0, 2, 1, 3, 4)
    return blocks.reshape(groups, units, -1)


def norms(vectors: Array, criterion: str) -> Array:
    """Gives the ``l1`` or ``l2`` norm of every vector ``[..., length]``, float64 ``[...]``."""
    if criterion == "l1":
        return np.asarray(np.abs(vectors).sum(axis=-1, dtype=np.float64))
    return np.asarray(np.sqrt(np.square(vectors).sum(axis=-1, dtype=np.float64)))


def bpar_scores(vectors: Array, *, layer_wide: bool = False, alpha: float = 1.0) -> Array:
    """Scores blocks by block pruning via angular redundancy, float64 ``[G, U]``.

    Within one group, with v_j its block j: ``n_j = |v_j|_1 / sum_i |v_i|_1``,
    ``c_j = sum_i |cos(v_j, v_i)|`` with i = j included, ``r_j = c_j / sum_i c_i`` and, for an
    all-zero block, ``r_j = 1``; the score is ``n_j - alpha * r_j``. A block is worth keeping if it is
    large and points where few others of its group point. All-zero blocks get ``-alpha``, the least of
    all: -1 as a rule. With `alpha` 0 blocks rank as by their L1 norm.

    Args:
        vectors: ``[G, U, length]`` as `block_vectors` gives them.
        layer_wide: scores are compared across groups: ``n_j`` is ``G`` times the share of the layer, so
            that a strong group's blocks stay ahead of a weak one's; ``r_j`` stays within the group.
        alpha: weight of the redundancy, 0 or more.

    Source: arXiv 2310.06218, "BPAR"; its release fixes `alpha` at 1. It has uniform patterns alone, so
    `layer_wide` is ours.
    """
    mean = np.abs(vectors).sum(dtype=np.float64) / len(vectors) if layer_wide else None
    return np.stack([_bpar_of_group(group, mean, alpha) for group in vectors])


def single_bpar_scores(weights: Array, alpha: float) -> Array:
    """Scores single weights as `bpar_scores` does blocks, float64 ``[G, U]``; they rank as by size.

    Any two numbers but 0 point alike, so all of a group that are not zero are equally redundant.

    Args:
        weights: ``[G, U]``.
        alpha: see `bpar_scores`.
    """
    size = np.abs(weights).astype(np.float64)
    live = np.count_nonzero(weights, axis=1, keepdims=True)
    total = size.sum(axis=1, keepdims=True)
    share = np.divide(size, total, out=np.zeros_like(size), where=total != 0)
    redundancy = np.where(weights != 0, 1.0 / np.maximum(live, 1), 1.0)
    return np.asarray(share - alpha * redundancy)


def _bpar_of_group(blocks: Array, total: float | None, alpha: float) -> Array:
    # One group at a time: the Gram matrix of 2048 inputs is 16 MB, that of all groups a gigabyte.
    lengths = norms(blocks, "l2")
    unit = blocks / np.where(lengths > 0, lengths, 1.0).astype(blocks.dtype)[:, None]
    similar = np.abs(unit @ unit.T).sum(axis=1, dtype=np.float64)
    size = np.abs(blocks).sum(axis=1, dtype=np.float64)
    share = size / ((size.sum() if total is None else total) or 1.0)
    redundancy = similar / (similar.sum() or 1.0)
    return np.asarray(share - alpha * np.where(lengths > 0, redundancy, 1.0))


def highest_per_group(scores: Array, kept: int) -> BoolArray:
    """Keeps the `kept` highest scores of every group ``[G, U]``; of equals, the later one."""
    order = np.argsort(scores, axis=1, kind="stable")
    blocks = np.ones(scores.shape, dtype=bool)
    np.put_along_axis(blocks, order[:, : scores.shape[1] - kept], False, axis=1)
    return blocks


def expand_blocks(
    blocks: BoolArray, shape: tuple[int, ...], block_n: int, unit_in: int = 1
) -> BoolArray:
    """Spreads a mask of blocks ``[G, U]`` over the outputs, inputs and taps of a weight of `shape`."""
    rows = np.repeat(blocks, block_n, axis=0)[: shape[0]]
    kernels = np.repeat(rows, unit_in, axis=1)[:, : shape[1]]
    full = kernels.reshape(*kernels.shape, *(1 for _ in shape[2:]))
    return np.array(np.broadcast_to(full, shape))


def reduce_blocks(mask: BoolArray, block_n: int, unit_in: int = 1) -> BoolArray:
    """Gives which blocks of a weight's mask keep anything, ``[G, U]``."""
    return _over_blocks(np.logical_or, live_kernels(mask), block_n, unit_in)


def mixed_group(mask: BoolArray, block_n: int, unit_in: int = 1) -> int | None:
    """Gives the first group with a block that is neither all kept nor all pruned, or None."""
    some = _over_blocks(np.logical_or, live_kernels(mask), block_n, unit_in)
    every = _over_blocks(np.logical_and, ~live_kernels(~mask), block_n, unit_in)
    mixed = np.flatnonzero((some != every).any(axis=1))
    return int(mixed[0]) if mixed.size else None


def _over_blocks(join: np.ufunc, kernels: BoolArray, block_n: int, unit_in: int) -> BoolArray:
    rows = join.reduceat(kernels, np.arange(0, kernels.shape[0], block_n), axis=0)
    if unit_in == 1:
        return np.asarray(rows)
    return np.asarray(join.reduceat(rows, np.arange(0, rows.shape[1], unit_in), axis=1))
