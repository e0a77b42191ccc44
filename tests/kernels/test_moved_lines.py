"""Lines that move between workers, against numbers worked out by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from autosparse.errors import UsageError
from autosparse.kernels.binding import (
    MovedLines,
    NativeOp,
    NativeProgram,
    OpKind,
    kernel_table,
    kernel_why_not,
)

CHANNELS, ROWS, WIDTH = 4, 32, 15
"""With one column of padding a row of float32 is a line."""


def by_rows(op: NativeOp) -> int:
    """Gives the kernel that runs here, does whole rows and computes the fewest outputs at once."""
    rows = [
        row
        for row in kernel_table()
        if row.method == "oc" and not kernel_why_not(row.row, op, (1, CHANNELS, ROWS, WIDTH))
    ]
    return min(rows, key=lambda row: row.tile_out).row


def two_convolutions(threads: int) -> NativeProgram:
    """Gives two convolutions, 3x3, one behind the other."""
    program = NativeProgram(threads, pin=False)
    shape = (1, CHANNELS, ROWS, WIDTH)
    before, between, behind = (program.tensor(shape) for _ in range(3))
    program.input(before)
    for source, target in ((before, between), (between, behind)):
        op = NativeOp(
            kind=OpKind.CONV,
            inputs=(source,),
            output=target,
            weight=np.ones((CHANNELS, CHANNELS, 3, 3), np.float32),
            kernel_size=(3, 3),
            padding=(1, 1, 1, 1),
        )
        program.op(dataclasses.replace(op, kernel=by_rows(op)))
    program.output(behind)
    program.finish()
    return program


def test_two_convolutions_fetch_their_halos() -> None:
    with two_convolutions(threads=2) as program:
        first, second, borders = program.moved_lines()
    # Worker 0 does rows 0 to 15. It reads row 16 too; worker 1 reads row 15, whose left padding is the
    # end of row 14.
    assert first.read == second.read == 3 * CHANNELS
    # Nobody but their writers writes the tensor between.
    assert first.written == 0
    # Outputs leave plane by plane, two for each worker, half of them written by the other one: 16 rows
    # of 15 pixels, without padding 15 lines.
    assert borders.read == CHANNELS * 15


def test_a_worker_alone_fetches_nothing() -> None:
    with two_convolutions(threads=1) as program:
        assert program.moved_lines() == (MovedLines(0, 0),) * 3


def test_is_of_finished_programs() -> None:
    with NativeProgram(2, pin=False) as program, pytest.raises(UsageError, match="finish"):
        program.moved_lines()


def test_says_the_same_before_and_after_a_run() -> None:
    with two_convolutions(threads=2) as program:
        before = program.moved_lines()
        program.run([np.zeros((1, CHANNELS, ROWS, WIDTH), np.float32)])
        assert program.moved_lines() == before


def conv(source: int, target: int, kernel: int, stride: int = 1, residual: int = -1) -> NativeOp:
    """Gives a convolution of all channels whose padding keeps the size, but for its stride."""
    pad = kernel // 2
    return NativeOp(
        kind=OpKind.CONV,
        inputs=(source,),
        output=target,
        residual=residual,
        weight=np.ones((CHANNELS, CHANNELS, kernel, kernel), np.float32),
        kernel_size=(kernel, kernel),
        stride=(stride, stride),
        padding=(pad, pad, pad, pad),
    )


def flat(op: NativeOp, shape: tuple[int, int, int, int]) -> NativeOp:
    """Names the kernel along flattened pixels that computes the fewest outputs at once here."""
    rows = [
        row
        for row in kernel_table()
        if row.method == "px" and row.dtype == "f32" and not kernel_why_not(row.row, op, shape)
    ]
    return dataclasses.replace(op, kernel=min(rows, key=lambda row: row.tile_out).row)


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_strided_convolution_reads_its_own_rows(kernel: int) -> None:
    shape, halved = (1, CHANNELS, 2 * ROWS, 2 * WIDTH), (1, CHANNELS, ROWS, WIDTH)
    with NativeProgram(2, pin=False) as program:
        source, target = program.tensor(shape), program.tensor(halved)
        program.input(source)
        program.op(flat(conv(source, target, kernel, stride=2), shape))
        program.output(target)
        program.finish()
        strided, _ = program.moved_lines()
    # At most the rows above and below a band, of 31 pixels each, which begin in any line.
    assert strided.read <= 2 * 3 * CHANNELS
    assert strided.written == 0


def test_tensors_of_one_shape_lie_in_one_place() -> None:
    large, small = (1, CHANNELS, 2 * ROWS, 2 * WIDTH), (1, CHANNELS, ROWS, WIDTH)
    with NativeProgram(2, pin=False) as program:
        source = program.tensor(large)
        tensors = [program.tensor(small) for _ in range(8)]
        program.input(source)
        program.op(flat(conv(source, tensors[0], 1, stride=2), large))
        for i in range(1, 8):
            residual = tensors[i - 2] if i > 1 and i % 2 == 0 else -1
            program.op(flat(conv(tensors[i - 1], tensors[i], 3, residual=residual), small))
        program.output(tensors[-1])
        program.finish()
        moved = program.moved_lines()
    # Three places do for all of them but the last, which nothing reads the borders of: each was written
    # by the same worker before.
    assert [lines.written for lines in moved[4:7]] == [0, 0, 0]
