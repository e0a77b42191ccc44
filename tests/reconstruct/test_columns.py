"""The sweep over columns: exact where it can be, and choices in place."""

from __future__ import annotations

import numpy as np
import pytest
from layer_problems import best, by_hand, error_of, go_on, problem

from autosparse.patterns import check, family_of, parse_pattern
from autosparse.reconstruct import columns
from autosparse.reconstruct.columns import sweep


def fixed(mask):
    return lambda _, at: mask[:, at]


def test_by_hand():
    """Input 1 goes: L L^T = P with columns as they are has L_11^2 = 1/2, and input 2 is independent of
    it. Input 0 was swept before and is not set anew, so the output loses 1 / (1/2) and not 3/2.
    """
    asked = by_hand()
    weight, kept = sweep(asked, 1, fixed(np.array([[True, False, True]] * 2)), go_on)
    np.testing.assert_allclose(weight.numpy(), [[1, 0, 1], [2, 0, 1]], atol=1e-12)
    np.testing.assert_allclose(error_of(asked, weight, damped=True), 2.0)
    assert kept.tolist() == [[True, False, True]] * 2


@pytest.mark.parametrize("block", [1, 3, 128])
def test_what_goes_first_is_made_up_for_exactly(monkeypatch, block):
    """With the first columns gone and all later ones kept, a sweep is least squares, block by block."""
    monkeypatch.setattr(columns, "_BLOCK", block)
    asked = problem((5, 10))
    mask = np.ones((5, 10), dtype=bool)
    for row, count in enumerate((0, 3, 7, 10, 4)):
        mask[row, :count] = False
    weight, kept = sweep(asked, 1, fixed(mask), go_on)
    np.testing.assert_allclose(weight.numpy(), best(asked, mask), atol=1e-10)
    assert np.array_equal(kept, mask)


@pytest.mark.parametrize("shape", [(6, 8), (5, 8, 3, 3), (3, 12, 1, 2)])
def test_runs_are_of_inputs_at_one_kernel_position(shape):
    pattern = parse_pattern("2:4")
    seen = []

    def choose(scores, at):
        seen.append(at)
        return family_of(pattern).mask(scores, pattern, 0.5)

    _, kept = sweep(problem(shape), 4, choose, go_on)
    check(kept.reshape(shape), pattern)
    taps = int(np.prod(shape[2:]))
    assert sorted(np.concatenate(seen)) == list(range(shape[1] * taps))
    assert all((np.diff(at) == taps).all() and len(at) == 4 for at in seen)


def test_a_sweep_that_keeps_all_changes_nothing():
    asked = problem((4, 6, 3, 1))
    weight, _ = sweep(asked, 1, fixed(np.ones((4, 18), dtype=bool)), go_on)
    np.testing.assert_allclose(weight.numpy(), asked.target.numpy())
