"""Sums of gathered columns times condensed weights: the main loop.

    for each step of a block:                     BK columns
        ahead = entries[step + 1]                 [BK]      one step early
        a = x[base of row + entry + lane]         [BM, BK]  gathered in runs of RUN
        b = weight[block, step]                   [BN, BK]  one piece of memory
        sums += a @ b.T                           [BM, BN]  float32

An entry is the distance from a row's base to a run of columns. Asked for in the same step as what it
leads to, it would take a place in the pipeline and halve its depth; so each is asked for a step early.
Entries below 0 fill steps up, and read nothing. Rows that are not there read nothing either.
"""

from __future__ import annotations

import triton.language as tl

from .jit import kernel
from .numbers import multiply

OUTSIDE = tl.constexpr(1 << 30)
"""A row of no image: so far down that no tap leads back into one."""


@kernel
def pixel_of(row: tl.tensor, height: int, width: int) -> tl.tensor:
    """Gives image, row and column of pixels that are counted row by row."""
    down = row // width
    return down // height, down % height, row % width


@kernel
def gathered_product(
    x_at: tl.tensor,
    from_y: tl.tensor,
    from_x: tl.tensor,
    in_height: int,
    in_width: int,
    weight: tl.tensor,
    entries: tl.tensor,
    taps: tl.tensor,
    block_at: tl.tensor,
    part: tl.tensor,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    RUN: tl.constexpr,
    PARTS: tl.constexpr,
    PADDED: tl.constexpr,
    INTERPRETED: tl.constexpr,
) -> tl.tensor:
    """Sums a part of a block's columns, float32 ``[BM, BN]``.

    Args:
        x_at: where the bases of rows are, ``[BM]``; a base may lie outside of `x`.
        from_y: rows of the input that bases lie in, `OUTSIDE` for rows that are not there, ``[BM]``.
        from_x: columns of the input that they lie in, ``[BM]``.
        in_height: rows of an image.
        in_width: columns of an image.
        weight: ``[steps of all blocks, BN, BK]``.
        entries: int32 ``[steps of all lists + 1, BK / RUN]``, in runs.
        taps: int32 as `entries`: rows and, from bit 16 on, columns from the base; None unless `PADDED`.
        block_at: where the numbers of the block are.
        part: of its steps.
        BM: rows.
        BN: outputs.
        BK: columns per step.
        RUN: columns that lie together, a power of two.
        PARTS: how many parts there are.
        PADDED: whether taps may lead outside of the image.
        INTERPRETED: see `numbers`.
    """
    n = tl.arange(0, BN)
    k = tl.arange(0, BK)
    steps = tl.load(block_at)
    first = 0
    if PARTS > 1:
        each = (steps + PARTS - 1) // PARTS
        first = part * each
        steps = tl.minimum(steps, first + each)
    weight_at = weight + (tl.load(block_at + 1) + first).to(tl.int64) * (BN * BK)
    inside = n[:, None] * BK + k[None, :]
    entry_at = (tl.load(block_at + 2) + first) * (BK // RUN) + k // RUN
    entry = tl.load(entries + entry_at)
    if PADDED:
        tap = tl.load(taps + entry_at)
    sums = tl.full((BM, BN), 0.0, tl.float32)
    for _ in range(first, steps):
        entry_at += BK // RUN
        next_entry = tl.load(entries + entry_at)
        is_there = (entry >= 0)[None, :]
        if PADDED:
            next_tap = tl.load(taps + entry_at)
            y = from_y[:, None] + (tap & 0xFFFF)[None, :]
            across = from_x[:, None] + (tap >> 16)[None, :]
            # As unsigned numbers, those below 0 are too large as well.
            is_there &= y.to(tl.uint32) < tl.cast(in_height, tl.uint32)
            is_there &= across.to(tl.uint32) < tl.cast(in_width, tl.uint32)
            tap = next_tap
        else:
            is_there &= (from_y != OUTSIDE)[:, None]
        a = tl.load(x_at[:, None] + (entry * RUN + k % RUN)[None, :], mask=is_there, other=0.0)
        b = tl.load(weight_at + inside)
        sums = multiply(a, tl.trans(b), sums, INTERPRETED)
        weight_at += BN * BK
        entry = next_entry
    return sums
