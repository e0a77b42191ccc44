"""A layer of tiles, and the second kernel of those whose columns are summed in parts.

A program of the first takes items in turn: a block of outputs, a part of its columns, a block of rows.
Rows come fastest, so that programs that run at a time share a block's weights, but only as many blocks
of rows as the L2 cache holds before the next block of outputs reads them again. Blocks of outputs come
longest first, so that what is left at the end is short.

The product for the gradient of x is the same kernel with other lists: rows are then input pixels of one
phase of the stride, which lie apart in memory (`APART`).
"""

from __future__ import annotations

import triton.language as tl

from .epilogue import write_block
from .jit import kernel
from .product import OUTSIDE, gathered_product, pixel_of


@kernel
def forward(
    x: tl.tensor,
    weight: tl.tensor,
    entries: tl.tensor,
    taps: tl.tensor,
    blocks: tl.tensor,
    columns: tl.tensor,
    pruned: tl.tensor,
    scale: tl.tensor,
    bias: tl.tensor,
    residual: tl.tensor,
    out: tl.tensor,
    parts: tl.tensor,
    items: int,
    block_count: int,
    row_blocks: int,
    row_group: int,
    rows: int,
    out_height: int,
    out_width: int,
    in_height: int,
    in_width: int,
    in_runs: int,
    top: int,
    left: int,
    stride_y: int,
    stride_x: int,
    out_runs: int,
    image_height: int,
    image_width: int,
    step_y: int,
    step_x: int,
    shift_y: int,
    shift_x: int,
    BM: tl.constexpr,
    BN: tl.constexpr,
    BK: tl.constexpr,
    RUN: tl.constexpr,
    OUT_RUN: tl.constexpr,
    SLICE: tl.constexpr,
    PARTS: tl.constexpr,
    CONV: tl.constexpr,
    PADDED: tl.constexpr,
    APART: tl.constexpr,
    CONTIGUOUS: tl.constexpr,
    PRUNED: tl.constexpr,
    ACTIVATION: tl.constexpr,
    INTERPRETED: tl.constexpr,
) -> None:
    """Computes a layer; with several `PARTS`, the sums of each part.

    Args:
        x: ``[images, in_height, in_width, in_runs * RUN]``.
        weight: see `product`.
        entries: see `product`.
        taps: see `product`.
        blocks: int32 ``[blocks, 8]``: steps, first step of weights, of entries, first output and how
            many they are (both in `OUT_RUN`), first and last of the pruned outputs it writes, 0.
        columns: see `epilogue`.
        pruned: see `epilogue`.
        scale: see `epilogue`.
        bias: see `epilogue`.
        residual: see `epilogue`.
        out: ``[pixels, out_runs * OUT_RUN]``; None with several parts.
        parts: float32 ``[PARTS, blocks, rows, BN]``; None with one part.
        items: blocks times parts times blocks of rows.
        block_count: blocks of outputs.
        row_blocks: blocks of rows.
        row_group: blocks of rows that all blocks of outputs are computed of before the next.
        rows: output pixels.
        out_height: rows of an image that `rows` count.
        out_width: columns that they count.
        in_height: rows of an image of `x`.
        in_width: columns of it.
        in_runs: runs of a pixel of it.
        top: rows of padding above; may be negative.
        left: columns of padding; may be negative.
        stride_y: input rows per row.
        stride_x: input columns per column.
        out_runs: runs of an output pixel.
        image_height: rows of an image of `out`; this and what follows of `APART` alone.
        image_width: columns of it.
        step_y: rows from one to the next.
        step_x: columns from one to the next.
        shift_y: the first row.
        shift_x: the first column.
        BM: rows per block.
        BN: outputs per block.
        BK: columns per step.
        RUN: inputs that lie together, a power of two.
        OUT_RUN: outputs that lie together, a power of two.
        SLICE: outputs that are written at a time.
        PARTS: parts that columns are summed in.
        CONV: whether rows are decoded to pixels; else row r reads pixel r.
        PADDED: whether taps may lead outside of the image.
        APART: whether rows of `out` lie apart.
        CONTIGUOUS: see `epilogue`.
        PRUNED: see `epilogue`.
        ACTIVATION: see `epilogue`.
        INTERPRETED: see `numbers`.
    """
    for item in range(tl.program_id(0), items, tl.num_programs(0)):
        group = item // (row_group * block_count * PARTS)
        inside = item % (row_group * block_count * PARTS)
        group_rows = tl.minimum(row_blocks - group * row_group, row_group)
        first_row = (group * row_group + inside % group_rows) * BM
        row = first_row + tl.arange(0, BM)
        part = inside // group_rows % PARTS
        block = inside // group_rows // PARTS
        from_y, from_x, pixel = row, row, row.to(tl.int64)
        if CONV:
            image, y, across = pixel_of(row, out_height, out_width)
            from_y = y * stride_y - top
            from_x = across * stride_x - left
            pixel = (image.to(tl.int64) * in_height + from_y) * in_width + from_x
        sums = gathered_product(
            x + pixel * in_runs * RUN, tl.where(row < rows, from_y, OUTSIDE), from_x,
            in_height, in_width, weight, entries, taps, blocks + block * 8, part,
            BM, BN, BK, RUN, PARTS, PADDED, INTERPRETED,
        )  # fmt: skip
        if PARTS > 1:
            place = (part * block_count + block).to(tl.int64) * rows + row
            at = place[:, None] * BN + tl.arange(0, BN)[None, :]
            tl.store(parts + at, sums, mask=(row < rows)[:, None])
        else:
            start, row_at = row_places(
                first_row, out_height, out_width, out_runs * OUT_RUN,
                image_height, image_width, step_y, step_x, shift_y, shift_x, BM, APART,
            )  # fmt: skip
            if residual is not None:
                residual_at = residual + start
            else:
                residual_at = None
            write_block(
                sums, row_at, row < rows, block, blocks, columns, pruned, scale, bias,
                residual_at, out + start, BM, BN, OUT_RUN, SLICE,
                CONTIGUOUS, PRUNED, ACTIVATION, INTERPRETED,
            )  # fmt: skip


@kernel
def row_places(
    first: tl.tensor,
    out_height: int,
    out_width: int,
    out_size: tl.tensor,
    image_height: int,
    image_width: int,
    step_y: int,
    step_x: int,
    shift_y: int,
    shift_x: int,
    BM: tl.constexpr,
    APART: tl.constexpr,
) -> tl.tensor:
    """Gives elements from `out` to the first row, int64, and from there to each, int32 ``[BM]``.

    So it takes one register per row, not two, and one addition more.
    """
    row = tl.arange(0, BM)
    pixel = first.to(tl.int64)
    if APART:
        image, y, across = pixel_of(first, out_height, out_width)
        to_image, to_y, to_x = pixel_of(first + row, out_height, out_width)
        pixel = (image.to(tl.int64) * image_height + y * step_y + shift_y) * image_width
        pixel += across * step_x + shift_x
        row = ((to_image - image) * image_height + (to_y - y) * step_y) * image_width
        row += (to_x - across) * step_x
    return pixel * out_size, row * out_size


@kernel
def finish(
    parts: tl.tensor,
    blocks: tl.tensor,
    columns: tl.tensor,
    pruned: tl.tensor,
    scale: tl.tensor,
    bias: tl.tensor,
    residual: tl.tensor,
    out: tl.tensor,
    row_blocks: int,
    block_count: int,
    rows: int,
    out_height: int,
    out_width: int,
    out_runs: int,
    image_height: int,
    image_width: int,
    step_y: int,
    step_x: int,
    shift_y: int,
    shift_x: int,
    BM: tl.constexpr,
    BN: tl.constexpr,
    OUT_RUN: tl.constexpr,
    SLICE: tl.constexpr,
    PARTS: tl.constexpr,
    APART: tl.constexpr,
    CONTIGUOUS: tl.constexpr,
    PRUNED: tl.constexpr,
    ACTIVATION: tl.constexpr,
    INTERPRETED: tl.constexpr,
) -> None:
    """Adds the parts of sums up, and does what follows; one program per block and block of rows.

    Args are those of `forward`.
    """
    item = tl.program_id(0)
    block = item // row_blocks
    row = item % row_blocks * BM + tl.arange(0, BM)
    sums = tl.full((BM, BN), 0.0, tl.float32)
    for part in range(PARTS):
        place = (part * block_count + block).to(tl.int64) * rows + row
        at = place[:, None] * BN + tl.arange(0, BN)[None, :]
        sums += tl.load(parts + at, mask=(row < rows)[:, None], other=0.0)
    start, row_at = row_places(
        item % row_blocks * BM, out_height, out_width, out_runs * OUT_RUN,
        image_height, image_width, step_y, step_x, shift_y, shift_x, BM, APART,
    )  # fmt: skip
    if residual is not None:
        residual_at = residual + start
    else:
        residual_at = None
    write_block(
        sums, row_at, row < rows, block, blocks, columns, pruned, scale, bias,
        residual_at, out + start, BM, BN, OUT_RUN, SLICE,
        CONTIGUOUS, PRUNED, ACTIVATION, INTERPRETED,
    )  # fmt: skip
