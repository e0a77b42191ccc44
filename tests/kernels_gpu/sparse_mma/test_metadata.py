"""Words of metadata against the instruction's model, over every place; and against torch's words."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from autosparse.errors import PlanError
from autosparse.kernels.gpu.methods.sparse_mma import metadata as md

PAIRS = tuple(itertools.combinations(range(4), 2))
RANDOM = np.random.default_rng(12)


def two_of_four(rows: int, columns: int) -> np.ndarray:
    """Gives random rows in which every chunk has two values, never zero."""
    order = RANDOM.random((rows, columns // 4, 4)).argsort(axis=2)
    values = RANDOM.integers(1, 100, (rows, columns // 4, 4)) * RANDOM.choice([-1.0, 1.0])
    return np.where(order < 2, values, 0.0).reshape(rows, columns)


def product(rows: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Multiplies 16 rows of 64 columns by 8 columns of x, as two instructions would."""
    values, at = md.compress(rows)
    words = md.pack(at)[0, 0]
    sums = md.d_fragments(np.zeros((16, 8)))
    for selector in (0, 1):
        a = md.a_fragments(values[:, 16 * selector : 16 * selector + 16])
        b = md.b_fragments(x[:, 32 * selector : 32 * selector + 32])
        sums = md.mma_sp(a, b, sums, words, selector)
    return md.from_fragments(sums, md.d_fragments, (16, 8))


@pytest.mark.smoke
def test_all_six_positions_in_every_row_and_chunk() -> None:
    x = RANDOM.integers(-50, 50, (8, 64)).astype(np.float64)
    seen = set()
    for turn in range(6):
        rows = np.zeros((16, 64))
        for row, chunk in np.ndindex(16, 16):
            number = (row + chunk + turn) % 6
            seen.add((row, chunk, number))
            rows[row, [4 * chunk + at for at in PAIRS[number]]] = RANDOM.integers(1, 100, 2)
        np.testing.assert_array_equal(product(rows, x), rows @ x.T)
    assert len(seen) == 16 * 16 * 6


def test_chunks_with_one_value_or_none() -> None:
    x = RANDOM.integers(-50, 50, (8, 64)).astype(np.float64)
    for turn in range(5):
        rows = np.zeros((16, 64))
        for row, chunk in np.ndindex(16, 16):
            if (at := (row + chunk + turn) % 5) < 4:
                rows[row, 4 * chunk + at] = row + 16.0 * chunk + 1
        np.testing.assert_array_equal(product(rows, x), rows @ x.T)
        values, at = md.compress(rows)
        assert (np.diff(at.reshape(-1, 2), axis=1) > 0).all(), "indices must rise"
        np.testing.assert_array_equal(md.expand(values, at), rows)


def test_words_and_rows_come_back() -> None:
    rows = two_of_four(48, 128)
    values, at = md.compress(rows)
    assert values.shape == at.shape == (48, 64)
    np.testing.assert_array_equal(md.expand(values, at), rows)
    words = md.pack(at)
    assert words.shape == (3, 2, 32)
    np.testing.assert_array_equal(md.unpack(words), at)


def test_every_index_has_a_place_of_its_own_where_words_have_it() -> None:
    _, at = md.compress(two_of_four(16, 64))
    words = md.pack(at)[0, 0]
    places = {}
    for row, kept, selector in itertools.product(range(16), range(16), (0, 1)):
        lane, bit = md.place(row, kept, selector)
        places[lane, bit] = at[row, 16 * selector + kept]
        assert words[lane] >> bit & 3 == places[lane, bit]
    assert len(places) == 32 * 16


def test_only_the_lanes_that_the_selector_names_are_read() -> None:
    rows, x = two_of_four(16, 64), RANDOM.integers(-50, 50, (8, 64)).astype(np.float64)
    values, at = md.compress(rows)
    words = md.pack(at)[0, 0]
    for selector in (0, 1):
        others = np.arange(32) % 4 // 2 != selector
        a = md.a_fragments(values[:, 16 * selector : 16 * selector + 16])
        b = md.b_fragments(x[:, 32 * selector : 32 * selector + 32])
        d = md.mma_sp(a, b, np.zeros((32, 4)), np.where(others, 0, words), selector)
        part = slice(32 * selector, 32 * selector + 32)
        expected = rows[:, part] @ x[:, part].T
        np.testing.assert_array_equal(md.from_fragments(d, md.d_fragments, (16, 8)), expected)


def test_more_than_two_of_four_is_refused() -> None:
    rows = two_of_four(16, 64)
    rows[5, 8:12] = 1, 1, 0, 1
    with pytest.raises(PlanError, match="output 5 of a tile has 3 in columns 8 to 11"):
        md.compress(rows)


def test_words_are_those_that_torch_gives_cutlass() -> None:
    # CUTLASS keeps, for its 32 rows by 32 columns, a word per lane too: two lanes of four for rows 0
    # to 15, two for rows 16 to 31. Ours are of 16 rows by 64 columns.
    torch = pytest.importorskip("torch")
    from torch.sparse._semi_structured_conversions import sparse_semi_structured_from_dense_cutlass

    rows = two_of_four(96, 256)
    kept, meta = sparse_semi_structured_from_dense_cutlass(torch.from_numpy(rows).half())
    values, at = md.compress(rows)
    np.testing.assert_array_equal(kept.numpy(), values)
    theirs = meta.numpy().reshape(-1).view(np.uint32).reshape(8, 3, 8, 2, 2)
    # [32 columns, 32 rows, row of 8, half of 32 rows, half of 32 columns]
    ours = md.pack(at).reshape(3, 2, 4, 8, 2, 2)
    # [32 rows, half, 64 columns, row of 8, half of 64 columns, half of 32 columns]
    np.testing.assert_array_equal(
        theirs.transpose(1, 3, 0, 2, 4), ours.transpose(0, 1, 2, 4, 3, 5).reshape(3, 2, 8, 8, 2)
    )


def test_places_are_those_of_cutlass_for_four_warps() -> None:
    # CUTLASS gives the metadata of wgmma m64nNk32 the layout (2, 2, 8, 4), (16, 2) with the strides
    # (1024, 0, 1, 16), (64, 8): threads and values to elements of a column-major 64 x 32 matrix
    # (include/cute/atom/mma_traits_sm90_gmma_sparse.hpp, ELayout_64x32).
    for thread, value in itertools.product(range(128), range(32)):
        element = 1024 * (thread % 2) + thread // 4 % 8 + 16 * (thread // 32)
        element += 64 * (value % 16) + 8 * (value // 16)
        row, column = element % 64, element // 64
        selector = thread // 2 % 2
        lane, bit = md.place(row % 16, 2 * (column // 4), selector)
        assert (lane, row // 16) == (thread % 32, thread // 32)
        assert bit == value // 4 * 4


def test_swizzles() -> None:
    # Eight rows of 128 bytes: 16 bytes of column c of row r stand at column c ^ r. Of 64-byte rows, two
    # share 128 bytes and a number.
    chunks = md.swizzled(np.arange(0, 2048, 16), 128).reshape(16, 8) // 16
    rows, columns = np.indices((16, 8))
    np.testing.assert_array_equal(chunks, rows * 8 + (columns ^ rows % 8))
    chunks = md.swizzled(np.arange(0, 1024, 16), 64).reshape(16, 4) // 16
    rows, columns = np.indices((16, 4))
    np.testing.assert_array_equal(chunks, rows * 4 + (columns ^ rows // 2 % 4))
