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
