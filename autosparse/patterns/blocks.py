"""Arithmetic on 1xN blocks: cut a weight into blocks, score them, choose them, spread them again."""

from __future__ import annotations

import numpy as np

from autosparse.patterns.structure import Array, BoolArray, group_count


def block_vectors(weight: Array, block_n: int) -> Array:
    """Cuts a weight OIHW or OI into block vectors ``[G, Cin, block_n * taps]``.

    A short last group is filled up with zeros, which change no norm and no angle.
    """
    outputs, inputs = weight.shape[:2]
    groups = group_count(outputs, block_n)
    rows = np.zeros((groups * block_n, inputs, int(np.prod(weight.shape[2:]))), dtype=weight.dtype)
    rows[:outputs] = weight.reshape(outputs, inputs, -1)
    blocks = rows.reshape(groups, block_n, inputs, -1).transpose(0, 2, 1, 3)
    return blocks.reshape(groups, inputs, -1)


def bpar_scores(vectors: Array) -> Array:
    """Scores blocks by block pruning via angular redundancy, float64 ``[G, Cin]``.

    Within one group, with v_j the block of input j: ``n_j = |v_j|_1 / sum_i |v_i|_1``,
    ``c_j = sum_i |cos(v_j, v_i)|`` with i = j included, ``r_j = c_j / sum_i c_i`` and, for an
    all-zero block, ``r_j = 1``; the score is ``n_j - r_j``. A block is worth keeping if it is large
    and points where few others of its group point. All-zero blocks get -1, the least of all.

    Args:
        vectors: ``[G, Cin, length]`` as `block_vectors` gives them.

    Source: arXiv 2310.06218, "BPAR"; the weight of the redundancy term is 1.
    """
    return np.stack([_bpar_of_group(group) for group in vectors])


def _bpar_of_group(blocks: Array) -> Array:
    # One group at a time: the Gram matrix of 2048 inputs is 16 MB, that of all groups a gigabyte.
    norms = np.sqrt(np.square(blocks).sum(axis=1, dtype=np.float64))
    unit = blocks / np.where(norms > 0, norms, 1.0).astype(blocks.dtype)[:, None]
    similar = np.abs(unit @ unit.T).sum(axis=1, dtype=np.float64)
    size = np.abs(blocks).sum(axis=1, dtype=np.float64)
    share = size / (size.sum() or 1.0)
    redundancy = similar / (similar.sum() or 1.0)
    return np.asarray(share - np.where(norms > 0, redundancy, 1.0))


def highest_per_group(scores: Array, kept: int) -> BoolArray:
    """Keeps the `kept` highest scores of every group ``[G, Cin]``; of equals, the later input."""
    order = np.argsort(scores, axis=1, kind="stable")
    blocks = np.ones(scores.shape, dtype=bool)
    np.put_along_axis(blocks, order[:, : scores.shape[1] - kept], False, axis=1)
    return blocks


def expand_blocks(blocks: BoolArray, shape: tuple[int, ...], block_n: int) -> BoolArray:
    """Spreads a mask of blocks ``[G, Cin]`` over the outputs and taps of a weight of `shape`."""
    rows = np.repeat(blocks, block_n, axis=0)[: shape[0]]
    full = rows.reshape(*rows.shape, *(1 for _ in shape[2:]))
    return np.array(np.broadcast_to(full, shape))


def reduce_blocks(mask: BoolArray, block_n: int) -> BoolArray:
    """Gives which blocks of a weight's mask keep anything, ``[G, Cin]``."""
    kernels = mask.reshape(*mask.shape[:2], -1).any(axis=2)
    starts = np.arange(0, mask.shape[0], block_n)
    return np.asarray(np.logical_or.reduceat(kernels, starts, axis=0))


def mixed_group(mask: BoolArray, block_n: int) -> int | None:
    """Gives the first group with a block that is neither all kept nor all pruned, or None."""
    kernels = mask.reshape(*mask.shape[:2], -1)
    starts = np.arange(0, mask.shape[0], block_n)
    some = np.logical_or.reduceat(kernels.any(axis=2), starts, axis=0)
    every = np.logical_and.reduceat(kernels.all(axis=2), starts, axis=0)
    mixed = np.flatnonzero((some != every).any(axis=1))
    return int(mixed[0]) if mixed.size else None
