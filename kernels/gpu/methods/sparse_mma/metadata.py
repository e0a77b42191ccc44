"""2:4 operands of sparse tensor cores: what is kept, words that say where, and the instruction itself.

A row of operand A is kept as K/2 values. Of every 4 consecutive columns, a chunk, two are kept; each
kept value has a 2-bit index, its column in the chunk, the lower one in the lower bits. Both
instructions for 16-bit types, `mma.sp` m16n8k32 of a warp and `wgmma.mma_async.sp` m64nNk32 of four,
read the indices of 16 rows by 32 columns from one 32-bit register of two threads out of every four:

    lane  4 * (row % 8) + 2 * selector + (column // 16)     the selector is 0 or 1, the instruction's
    bits  16 * (row // 8) + 4 * (column % 16 // 4)          4 bits for a chunk, two indices

Of `wgmma`, warp w of the four does so for rows 16 w to 16 w + 15. As the selector names the threads,
one register of all 32 lanes holds two instructions' words. Words here are those of 64 columns, the
first 32 of which are selector 0's.

Source: NVIDIA, PTX ISA 9.1, "Sparse matrix storage" (9.7.14.6.1 and 9.7.15.6.1), "Matrix Fragments for
sparse mma.m16n8k32 with .f16 and .bf16 types" (9.7.14.6.2.2, figures 120 to 122), "Matrix Fragments
for sparse wgmma.mma_async.m64nNk32" (9.7.15.6.2.1, figure 176, which is figure 122), "Matrix Fragments
for mma.m16n8k16 with floating point type" (9.7.14.5.8, for C and D), and "Canonical Layouts"
(9.7.15.5.1.2.1.3, for swizzles).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from autosparse.errors import PlanError
from autosparse.patterns.structure import Array, IntArray

ROWS = 16
"""Rows whose indices one register of a warp holds."""
COLUMNS = 64
"""Columns whose indices one register of a warp holds: of two instructions."""
CHUNK = 4
"""Consecutive columns of which two are kept."""
LANES = 32
Words = NDArray[np.uint32]


def compress(rows: Array) -> tuple[Array, IntArray]:
    """Gives what is kept of 2:4 rows, and where it was.

    A chunk with one value keeps a zero beside: the next column's, or of column 3 the one before.

    Args:
        rows: ``[R, K]``, K a multiple of 4, at most two of every chunk not zero.

    Returns:
        Values ``[R, K/2]`` and their columns in chunks, 0 to 3 and rising in each, ``[R, K/2]``.

    Raises:
        PlanError: a chunk has more than two values.
    """
    chunks = rows.reshape(len(rows), -1, CHUNK)
    live = chunks != 0
    counts = live.sum(axis=2)
    if (counts > 2).any():
        row, chunk = np.argwhere(counts > 2)[0]
        raise PlanError(
            f"at most 2 of 4 consecutive kept columns may live, but output {row} of a tile has "
            f"{counts[row, chunk]} in columns {CHUNK * chunk} to {CHUNK * chunk + 3}"
        )
    first = np.where(counts > 0, live.argmax(axis=2), 0)
    first = np.where((counts == 1) & (first == CHUNK - 1), CHUNK - 2, first)
    last = np.where(counts == 2, CHUNK - 1 - live[:, :, ::-1].argmax(axis=2), first + 1)
    at = np.stack([first, last], axis=2)
    values = np.take_along_axis(chunks, at, axis=2)
    return values.reshape(len(rows), -1), at.reshape(len(rows), -1).astype(np.int32)


def expand(values: Array, at: IntArray) -> Array:
    """Gives the rows that `compress` was given."""
    rows, kept = values.shape
    chunks = np.zeros((rows, kept // 2, CHUNK), dtype=values.dtype)
    np.put_along_axis(chunks, at.reshape(rows, -1, 2), values.reshape(rows, -1, 2), axis=2)
    return chunks.reshape(rows, -1)


def pack(at: IntArray) -> Words:
    """Gives the words of registers.

    Args:
        at: columns in chunks, ``[R, K/2]``, R a multiple of 16 and K of 64.

    Returns:
        uint32 ``[R/16, K/64, 32]``, one word per lane.
    """
    groups, steps = len(at) // ROWS, at.shape[1] * 2 // COLUMNS
    # [group, half of 8 rows, row, step, 16 columns, index] -> [group, step, row, 16 columns, bit pair]
    by_bits = at.reshape(groups, 2, 8, steps, 4, 8).transpose(0, 3, 2, 4, 1, 5).astype(np.uint32)
    pairs = by_bits.reshape(groups, steps, LANES, ROWS)
    words = np.bitwise_or.reduce(pairs << (2 * np.arange(ROWS, dtype=np.uint32)), axis=3)
    return np.asarray(words, dtype=np.uint32)


def unpack(words: Words) -> IntArray:
    """Gives the columns in chunks that `pack` was given."""
    groups, steps, _ = words.shape
    pairs = (words[..., None] >> (2 * np.arange(ROWS, dtype=np.uint32))) & 3
    by_bits = pairs.reshape(groups, steps, 8, 4, 2, 8)
    return by_bits.transpose(0, 4, 2, 1, 3, 5).reshape(groups * ROWS, -1).astype(np.int32)


def place(row: int, kept: int, selector: int) -> tuple[int, int]:
    """Gives the lane and the lower bit of the index of one kept value of an instruction.

    Args:
        row: 0 to 15.
        kept: number of the value in its row, 0 to 15: columns ``4 * (kept // 2)`` and the next three.
        selector: 0 or 1.
    """
    column = CHUNK * (kept // 2)
    lane = 4 * (row % 8) + 2 * selector + column // 16
    return lane, 16 * (row // 8) + 4 * (column % 16 // CHUNK) + 2 * (kept % 2)


# ------------------------------------------------------------- fragments: what a lane holds of a matrix


def a_fragments(values: Array) -> Array:
    """Gives lanes their values of A: ``[16, 16]`` kept ones to ``[32, 8]``, four registers of two.

    Lane ``4 g + t`` holds values ``2 t`` and the next of rows ``g`` and ``g + 8``, which are of the
    chunk at column ``4 t``, and the same of the chunk 16 columns further.
    """
    return np.array([_of_lane(values, lane) for lane in range(LANES)])


def _of_lane(values: Array, lane: int) -> list[Any]:
    group, thread = divmod(lane, 4)
    places = [(row, first) for first in (0, 8) for row in (group, group + 8)]
    return [values[row, first + 2 * thread + low] for row, first in places for low in (0, 1)]


def b_fragments(columns: Array) -> Array:
    """Gives lanes their values of B: its 8 columns ``[8, 32]`` to ``[32, 8]``, four registers of two.

    Lane ``4 g + t`` holds rows ``2 t`` and the next of column ``g``, and those 8, 16 and 24 further.
    """
    group, thread = np.divmod(np.arange(LANES), 4)
    rows = [8 * register + 2 * thread + low for register in range(4) for low in (0, 1)]
    return np.stack([columns[group, row] for row in rows], axis=1)


def d_fragments(matrix: Array) -> Array:
    """Gives lanes their values of C or D: ``[16, 8]`` to ``[32, 4]``.

    Lane ``4 g + t`` holds columns ``2 t`` and the next of rows ``g`` and ``g + 8``.
    """
    group, thread = np.divmod(np.arange(LANES), 4)
    places = [(half, low) for half in (0, 8) for low in (0, 1)]
    return np.stack([matrix[group + half, 2 * thread + low] for half, low in places], axis=1)


def from_fragments(fragments: Array, gather: Any, shape: tuple[int, int]) -> Array:
    """Gives the matrix that lanes hold, by asking `gather` which element each of them would get."""
    numbers = gather(np.arange(shape[0] * shape[1]).reshape(shape))
    matrix = np.empty(shape[0] * shape[1], dtype=fragments.dtype)
    matrix[numbers.reshape(-1)] = fragments.reshape(-1)
    return matrix.reshape(shape)


def mma_sp(a: Array, b: Array, c: Array, words: Words, selector: int) -> Array:
    """Does what ``mma.sp::ordered_metadata`` m16n8k32 does: D = A * B + C, in float64.

    Args:
        a: fragments ``[32, 8]`` of the kept values.
        b: fragments ``[32, 8]``.
        c: fragments ``[32, 4]``.
        words: one per lane, ``[32]``; those of lanes that the selector does not name are not read.
        selector: 0 or 1.

    Raises:
        PlanError: two indices of a chunk that do not rise, which the instruction leaves undefined.
    """
    values = from_fragments(a, a_fragments, (16, 16)).astype(np.float64)
    columns = from_fragments(b, b_fragments, (8, 32)).astype(np.float64)
    result = from_fragments(c, d_fragments, (16, 8)).astype(np.float64)
    for row in range(16):
        at = [_index(words, row, kept, selector) for kept in range(16)]
        if any(at[kept] >= at[kept + 1] for kept in range(0, 16, 2)):
            raise PlanError(f"indices of a chunk must rise, but row {row} has {at}")
        reads = [CHUNK * (kept // 2) + at[kept] for kept in range(16)]
        result[row] += columns[:, reads] @ values[row]
    return d_fragments(result)


def _index(words: Words, row: int, kept: int, selector: int) -> int:
    lane, bit = place(row, kept, selector)
    return int(words[lane]) >> bit & 3


def swizzled(offsets: Any, row_bytes: int) -> Any:
    """Gives the place of bytes in shared memory whose rows are swizzled.

    16 bytes at a time change places in their row, by the row's number: in 64-byte rows bits 4 and 5 of
    an address by bits 7 and 8, in 128-byte rows bits 4 to 6 by bits 7 to 9.

    Args:
        offsets: bytes from an address that 1024 divides, rows one after another.
        row_bytes: 64 or 128.
    """
    return offsets ^ (offsets >> 7 & row_bytes // 16 - 1) << 4
