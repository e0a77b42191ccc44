"""What follows the sums: scale, bias, residual, activation function, and where results go.

Outputs of a tile may lie anywhere in a row, so they are scattered, in runs where they are contiguous.
What lies between them was pruned and has no sum, but bias, residual and activation all the same; the
block whose outputs surround it writes it too, so that sectors are whole before they leave the cache.

Blocks are written in slices of few outputs: all at once would take more registers than the main loop.
"""

from __future__ import annotations

import triton.language as tl

from .jit import kernel
from .numbers import activate, rounded


@kernel
def write_block(
    sums: tl.tensor,
    row_at: tl.tensor,
    is_row: tl.tensor,
    block: tl.tensor,
    blocks: tl.tensor,
    columns: tl.tensor,
    pruned: tl.tensor,
    scale: tl.tensor,
    bias: tl.tensor,
    residual: tl.tensor,
    out: tl.tensor,
    BM: tl.constexpr,
    BN: tl.constexpr,
    OUT_RUN: tl.constexpr,
    SLICE: tl.constexpr,
    CONTIGUOUS: tl.constexpr,
    PRUNED: tl.constexpr,
    ACTIVATION: tl.constexpr,
    INTERPRETED: tl.constexpr,
) -> None:
    """Writes the outputs of a block, and the pruned ones between them.

    Args:
        sums: float32 ``[BM, BN]``.
        row_at: elements from `out` to each row, ``[BM]``.
        is_row: which rows are there, ``[BM]``.
        block: its number.
        blocks: int32 ``[blocks, 8]``.
        columns: int32 ``[blocks, BN]``, outputs of each block, -1 beyond them; None if `CONTIGUOUS`.
        pruned: int32, outputs of no tile; None unless `PRUNED`.
        scale: float32, one per output; or None.
        bias: float32, one per output; or None.
        residual: as `out`; or None.
        out: where row 0 of the block of rows is.
        BM: rows.
        BN: outputs.
        OUT_RUN: of contiguous outputs, a power of two that divides first ones and counts.
        SLICE: outputs that are written at a time.
        CONTIGUOUS: whether outputs of blocks lie side by side.
        PRUNED: whether there are outputs of no tile.
        ACTIVATION: applied last.
        INTERPRETED: see `numbers`.
    """
    block_at = blocks + block * 8
    first = block * BN
    last = first + BN
    if CONTIGUOUS:
        first = tl.load(block_at + 3) * OUT_RUN
        last = first + tl.load(block_at + 4) * OUT_RUN
    write_slices(
        sums, row_at, is_row, first, last, columns, scale, bias, residual, out,
        SLICE, CONTIGUOUS, ACTIVATION, INTERPRETED,
    )  # fmt: skip
    if PRUNED:
        last = tl.load(block_at + 6)
        for first in range(tl.load(block_at + 5), last, SLICE):
            none = tl.full((BM, SLICE), 0.0, tl.float32)
            write(
                none, row_at, is_row, first, last, pruned, None, bias, residual, out,
                False, ACTIVATION, INTERPRETED,
            )  # fmt: skip


@kernel
def write_slices(
    sums: tl.tensor,
    row_at: tl.tensor,
    is_row: tl.tensor,
    first: tl.tensor,
    last: tl.tensor,
    columns: tl.tensor,
    scale: tl.tensor,
    bias: tl.tensor,
    residual: tl.tensor,
    out: tl.tensor,
    SLICE: tl.constexpr,
    CONTIGUOUS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    INTERPRETED: tl.constexpr,
) -> None:
    """Cuts sums in halves until they are no wider than a slice, and writes those in turn."""
    if sums.shape[1] <= SLICE:
        write(
            sums, row_at, is_row, first, last, columns, scale, bias, residual, out,
            CONTIGUOUS, ACTIVATION, INTERPRETED,
        )  # fmt: skip
    else:
        HALF: tl.constexpr = sums.shape[1] // 2
        low, high = tl.split(tl.permute(tl.reshape(sums, (sums.shape[0], 2, HALF)), (0, 2, 1)))
        write_slices(
            low, row_at, is_row, first, last, columns, scale, bias, residual, out,
            SLICE, CONTIGUOUS, ACTIVATION, INTERPRETED,
        )  # fmt: skip
        write_slices(
            high, row_at, is_row, first + HALF, last, columns, scale, bias, residual, out,
            SLICE, CONTIGUOUS, ACTIVATION, INTERPRETED,
        )  # fmt: skip


@kernel
def write(
    sums: tl.tensor,
    row_at: tl.tensor,
    is_row: tl.tensor,
    first: tl.tensor,
    last: tl.tensor,
    columns: tl.tensor,
    scale: tl.tensor,
    bias: tl.tensor,
    residual: tl.tensor,
    out: tl.tensor,
    CONTIGUOUS: tl.constexpr,
    ACTIVATION: tl.constexpr,
    INTERPRETED: tl.constexpr,
) -> None:
    """Finishes and stores one slice, whose outputs are numbers `first` to `last`, or listed there."""
    column = first + tl.arange(0, sums.shape[1])
    is_column = column < last
    if not CONTIGUOUS:
        column = tl.load(columns + column, mask=is_column, other=-1)
        is_column = column >= 0
    at = row_at[:, None] + column[None, :]
    is_there = is_row[:, None] & is_column[None, :]
    if scale is not None:
        sums *= tl.load(scale + column, mask=is_column, other=0.0)[None, :]
    if bias is not None:
        sums += tl.load(bias + column, mask=is_column, other=0.0)[None, :]
    if residual is not None:
        sums += tl.load(residual + at, mask=is_there, other=0.0).to(tl.float32)
    tl.store(out + at, rounded(activate(sums, ACTIVATION), out, INTERPRETED), mask=is_there)
