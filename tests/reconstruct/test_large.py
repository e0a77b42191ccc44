"""What large layers are spared: unseen columns, float64 factors, and orders of all units at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from layer_problems import best, error_of, go_on, problem

from autosparse.patterns import check, family_of, parse_pattern
from autosparse.reconstruct import choosing
from autosparse.reconstruct import problem as problem_file
from autosparse.reconstruct.choosing import solve
from autosparse.reconstruct.elimination import eliminate, parts_of
from autosparse.reconstruct.problem import least_squares
from autosparse.reconstruct.settings import ReconstructionSettings

SETTINGS = ReconstructionSettings(dtype="float64")


def test_taps_that_meet_padding_alone_are_never_looked_at(monkeypatch):
    """Of three taps the middle one is seen: the choice is that of the layer without the others."""
    unseen = tuple(column for column in range(24) if column % 3 != 1)
    asked, pattern = problem((8, 8, 1, 3), dead=unseen), parse_pattern("1x4")
    seen, sizes = asked.of(asked.seen()), []
    own = choosing.eliminate
    monkeypatch.setattr(
        choosing,
        "eliminate",
        lambda p, w, g, *a, **k: sizes.append(g[0].units.shape) or own(p, w, g, *a, **k),
    )
    found = solve(asked, pattern, [0.5], SETTINGS, go_on)[0.5]
    alone = solve(seen, pattern, [0.5], SETTINGS, go_on)[0.5]
    assert sizes == [(8, 1), (8, 1)]
    assert np.array_equal(found.mask[:, :, 0, 1], alone.mask)
    np.testing.assert_allclose(found.weight[:, :, 0, 1].numpy(), alone.weight.numpy())
    kept = torch.from_numpy(found.mask.reshape(8, 24)[:, list(unseen)])
    same = asked.target[:, list(unseen)] * kept
    assert torch.equal(found.weight.reshape(8, 24)[:, list(unseen)], same)


def test_unseen_inputs_go_first_the_smallest_before_others():
    asked = problem((4, 6), dead=(1, 4))
    asked.weight[:, 1], asked.weight[:, 4] = 50.0, 40.0
    pattern = parse_pattern("1x4")
    found = solve(asked, pattern, [1 / 6, 2 / 6], SETTINGS, go_on)
    assert [np.flatnonzero(~each.mask[0]).tolist() for each in found.values()] == [[4], [1, 4]]
    assert all(each.error < 1e-9 for each in found.values())


def test_inputs_that_are_all_zero():
    asked = problem((4, 6), dead=range(6))
    found = solve(asked, parse_pattern("1x4"), [0.5], SETTINGS, go_on)[0.5]
    check(found.mask, parse_pattern("1x4"))
    assert found.error == 0.0 and found.mask.sum() == 12


@pytest.mark.parametrize("shape", [(6, 40), (3, 11, 3, 1)])
@pytest.mark.parametrize("rank", [None, 3])
def test_float32_solutions_cost_next_to_nothing(shape, rank, monkeypatch):
    asked = problem(shape, rank=rank)
    mask = np.random.default_rng(0).random(asked.target.shape) < 0.5
    exact = least_squares(asked, mask, go_on)
    monkeypatch.setattr(problem_file, "LARGE", 1)
    found = least_squares(asked, mask, go_on)
    assert not torch.equal(found, exact)
    np.testing.assert_allclose(
        error_of(asked, found, damped=True), error_of(asked, best(asked, mask), damped=True), rtol=1e-6
    )


def test_what_float32_cannot_factor_is_solved_for_in_float64(monkeypatch):
    asked = problem((4, 12), rank=2, damping=1e-10)
    mask = np.ones((4, 12), dtype=bool)
    mask[:, 3] = False
    exact = least_squares(asked, mask, go_on)
    monkeypatch.setattr(problem_file, "LARGE", 1)
    assert torch.equal(least_squares(asked, mask, go_on), exact)
    assert asked.inverse(torch.float32).dtype == torch.float64


@pytest.mark.parametrize("columns", [1, 7, 40])
def test_inverse_by_halves(columns, monkeypatch):
    monkeypatch.setattr(problem_file, "_BASE", 3)
    asked = problem((2, columns))
    product = asked.inverse() @ asked.damped()
    np.testing.assert_allclose(product.numpy(), np.eye(columns), atol=1e-9)
    rough = asked.inverse(torch.float32).double() @ asked.damped()
    np.testing.assert_allclose(rough.numpy(), np.eye(columns), atol=1e-2)


def test_parts_are_removed_as_if_all_others_stayed():
    asked, pattern = problem((4, 12)), parse_pattern("1x4")
    (group,) = groups = family_of(pattern).groups(pattern, (4, 12))
    (trace,) = eliminate(asked.inverse(), asked.target, groups, go_on, dtype=torch.float64, parts=2)
    assert sorted(trace.order.tolist()) == list(range(12)) and len(group.units) == 12
    for part in (range(6), range(6, 12)):
        mask = np.ones((4, 12), dtype=bool)
        mask[:, list(part)] = False
        rise = trace.rise[np.isin(trace.order, list(part))].sum()
        np.testing.assert_allclose(rise, error_of(asked, best(asked, mask), damped=True))


def test_parts_follow_from_the_operations():
    pattern = parse_pattern("1x4")
    groups = family_of(pattern).groups(pattern, (8, 100))  # two of 0.4e6
    assert [parts_of(groups, most, 10) for most in (1e6, 0.8e6, 0.2e6, 0.0)] == [1, 1, 2, 10]
