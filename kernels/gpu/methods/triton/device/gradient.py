"""The gradient of condensed weights: gathered columns of x times outputs' gradients, summed over rows.

    for each block of rows:                                   BR rows
        ahead = places[rows + BR]                             [BR]      one block early, see `product`
        a = x[places[row] + entry + lane]                     [BR, BK]  gathered as in the layer itself
        g = grad[row, outputs of the block]                   [BR, BN]
        sums += g.T @ a                                       [BN, BK]  float32

A program computes one step of one block, over a part of all rows. Parts are added up afterwards, in
order, so that results do not depend on which program was faster.
"""

from __future__ import annotations

import triton.language as tl

from .jit import kernel
from .numbers import multiply


@kernel
def weight_gradient(
    x: tl.tensor,
    grad: tl.tensor,
    entries: tl.tensor,
    taps: tl.tensor,
    steps: tl.tensor,
    places: tl.tensor,
    parts: tl.tensor,
    step_count: int,
    rows: int,
    rows_per_part: int,
    in_height: int,
    in_width: int,
    in_runs: int,
    grad_runs: int,
    BR: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    RUN: tl.constexpr,
    OUT_RUN: tl.constexpr,
    CONV: tl.constexpr,
    PADDED: tl.constexpr,
    INTERPRETED: tl.constexpr,
) -> None:
    """Computes one step of a block's weights over a part of the rows.

    Args:
        x: ``[images, in_height, in_width, in_runs * RUN]``.
        grad: ``[rows, grad_runs * OUT_RUN]``.
        entries: int32 ``[steps of all lists + 1, BK / RUN]``, in runs.
        taps: int32 as `entries`; None unless `PADDED`.
        steps: int32 ``[step_count, 4]``: step of the entries, first output of the block and how many
            they are (both in `OUT_RUN`), 0.
        places: int32 ``[rows, 2]``: pixel that a row starts from; its row and, from bit 16 on, its
            column, both with a sign. None unless `CONV`.
        parts: float32 ``[programs / step_count, step_count, BN, BK]``.
        step_count: steps of all blocks.
        rows: output pixels.
        rows_per_part: a multiple of BR.
        in_height: rows of an image of `x`.
        in_width: columns of it.
        in_runs: runs of a pixel of it.
        grad_runs: runs of outputs of a row.
        BR: rows that are multiplied at a time.
        BN: outputs of a block.
        BK: columns of a step.
        RUN: inputs that lie together.
        OUT_RUN: outputs that lie together.
        CONV: whether rows start from listed places; else row r reads pixel r.
        PADDED: whether taps may lead outside of the image.
        INTERPRETED: see `numbers`.
    """
    step = tl.program_id(0) % step_count
    part = tl.program_id(0) // step_count
    r = tl.arange(0, BR)
    n = tl.arange(0, BN)
    k = tl.arange(0, BK)
    entry_at = tl.load(steps + step * 4) * (BK // RUN) + k // RUN
    entry = tl.load(entries + entry_at)
    inside = (entry * RUN + k % RUN)[None, :]
    is_column = (entry >= 0)[None, :]
    if PADDED:
        tap = tl.load(taps + entry_at)
    first = part * rows_per_part
    last = tl.minimum(first + rows_per_part, rows)
    output = tl.load(steps + step * 4 + 1) * OUT_RUN + n
    is_output = (n < tl.load(steps + step * 4 + 2) * OUT_RUN)[:, None]
    grad_size = grad_runs * OUT_RUN
    grad_at = grad + first.to(tl.int64) * grad_size
    inside_grad = r[None, :] * grad_size + output[:, None]
    if CONV:
        pixel = tl.load(places + (first + r) * 2, mask=first + r < last, other=0)
        if PADDED:
            corner = tl.load(places + (first + r) * 2 + 1, mask=first + r < last, other=0)
    sums = tl.full((BN, BK), 0.0, tl.float32)
    for row in range(first, last, BR):
        is_row = row + r < last
        is_there = is_row[:, None] & is_column
        if CONV:
            x_at = x + pixel.to(tl.int64) * in_runs * RUN
            is_next = row + BR + r < last
            pixel = tl.load(places + (row + BR + r) * 2, mask=is_next, other=0)
            if PADDED:
                # As unsigned numbers, those below 0 are too large as well.
                y = ((corner << 16) >> 16)[:, None] + (tap & 0xFFFF)[None, :]
                across = (corner >> 16)[:, None] + (tap >> 16)[None, :]
                is_there &= y.to(tl.uint32) < tl.cast(in_height, tl.uint32)
                is_there &= across.to(tl.uint32) < tl.cast(in_width, tl.uint32)
                corner = tl.load(places + (row + BR + r) * 2 + 1, mask=is_next, other=0)
        else:
            x_at = x + (row + r).to(tl.int64) * in_runs * RUN
        a = tl.load(x_at[:, None] + inside, mask=is_there, other=0.0)
        g = tl.load(grad_at + inside_grad, mask=is_row[None, :] & is_output, other=0.0)
        sums = multiply(g, a, sums, INTERPRETED)
        grad_at += BR * grad_size
    to = parts + tl.program_id(0).to(tl.int64) * (BN * BK)
    tl.store(to + n[:, None] * BK + k[None, :], sums)
