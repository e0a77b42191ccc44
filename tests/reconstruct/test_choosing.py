"""The laws of every pattern, and the ways that lead to its masks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from layer_problems import best, error_of, go_on, problem

from autosparse.errors import PlanError
from autosparse.patterns import check, family_of, mask, parse_pattern
from autosparse.reconstruct import choosing
from autosparse.reconstruct.choosing import solve, unit_layout
from autosparse.reconstruct.problem import Problem
from autosparse.reconstruct.settings import ReconstructionSettings

PATTERNS = (
    "1x4",
    "1x4-layerwide",
    "1x16",
    "block4",
    "block4-layerwide",
    "unstructured",
    "2:4",
    "filter",
    "tw4",
    "tw4k2",
    "tw4-ranked",
    "tw4-inputs",
    "tvw4",
    "tvw8k4",
)
SHAPES = ((16, 8), (13, 8, 1, 3), (18, 8, 2, 1))
SPARSITIES = (0.5, 0.7, 1.0)
SETTINGS = ReconstructionSettings(dtype="float64")


def possible():
    """Gives every label and shape that it can have."""
    pairs = itertools.product(PATTERNS, SHAPES)
    return [
        (label, shape)
        for label, shape in pairs
        if not family_of(parse_pattern(label)).why_not(parse_pattern(label), shape)
    ]


def assert_lawful(asked, pattern, solutions, settings=SETTINGS):
    for sparsity, found in solutions.items():
        check(found.mask, pattern)
        weight = found.weight.numpy()
        plain = mask(asked.weight.numpy().reshape(asked.shape), pattern, sparsity)
        masked = error_of(asked, asked.weight.numpy().reshape(asked.shape) * plain)
        assert weight.shape == found.mask.shape == asked.shape
        assert not weight[~found.mask].any()
        np.testing.assert_allclose(found.masked_error, masked, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found.error, error_of(asked, weight), rtol=1e-7, atol=1e-9)
        assert found.error <= masked * (1 + 1e-9) + 1e-9


@pytest.mark.parametrize(("label", "shape"), possible(), ids=str)
@pytest.mark.parametrize("kind", ["plain", "crossed", "dependent"])
def test_masks_are_of_the_pattern_and_never_worse_than_the_largest_weights(label, shape, kind):
    pattern = parse_pattern(label)
    family = family_of(pattern)
    sparsities = [s for s in SPARSITIES if not family.why_not_sparsity(pattern, s)]
    asked = problem(
        shape,
        seed=len(label),
        crossed=kind == "crossed",
        rank=3 if kind == "dependent" else None,
        damping=1e-4 if kind == "dependent" else 1e-2,
        dead=(0, 5) if kind == "dependent" else (),
    )
    solutions = solve(asked, pattern, sparsities, SETTINGS, go_on)
    assert_lawful(asked, pattern, solutions)
    for sparsity, found in solutions.items():
        if found.mask.all():
            assert torch.equal(found.weight, asked.target.reshape(shape))
        elif kind == "plain":  # a mask of its own, and the best weights for it
            np.testing.assert_allclose(
                found.weight.numpy().reshape(asked.target.shape), best(asked, found.mask), atol=1e-8
            )
            if 0 < sparsity < 1 and label not in ("filter", "tvw8k4"):
                assert found.error < 0.9 * found.masked_error


@pytest.mark.parametrize("label", ["1x4", "1x4-layerwide", "block4", "unstructured", "tw4", "filter"])
def test_all_and_nothing(label):
    asked = problem((8, 8, 3, 1))
    found = solve(asked, parse_pattern(label), [0.0, 1.0], SETTINGS, go_on)
    assert found[0.0].mask.all() and found[0.0].error == found[0.0].masked_error == 0.0
    if label != "tw4":  # of which each tile keeps a unit
        assert not found[1.0].mask.any() and not found[1.0].weight.any()
        np.testing.assert_allclose(found[1.0].error, error_of(asked, np.zeros((8, 24))))


def test_dense_is_what_was_wanted():
    asked = problem((4, 6), crossed=True)
    found = solve(asked, parse_pattern("dense"), [0.0], SETTINGS, go_on)[0.0]
    assert torch.equal(found.weight, asked.target) and found.mask.all()
    assert found.error == 0.0 < found.masked_error


@pytest.mark.parametrize("label", ["1x4", "1x4-layerwide", "unstructured", "2:4", "tw4", "tvw4"])
def test_a_choice_that_loses_gives_way_to_the_plain_mask(label, monkeypatch):
    """Masks at random lose to the largest weights; then those are kept, set anew."""
    asked, pattern = problem((16, 8), seed=3), parse_pattern(label)
    asked.weight.copy_(asked.weight * torch.tensor([1e-3] * 4 + [1.0] * 4))
    rng = np.random.default_rng(0)
    family = family_of(pattern)

    def at_random(self, sparsity):
        return family.random(pattern, asked.shape, sparsity, rng)

    monkeypatch.setattr(choosing._Chooser, "_mask", at_random)
    found = solve(asked, pattern, [0.5], SETTINGS, go_on)[0.5]
    plain = mask(asked.weight.numpy(), pattern, 0.5)
    assert_lawful(asked, pattern, {0.5: found})
    assert np.array_equal(found.mask, plain)
    np.testing.assert_allclose(found.weight.numpy(), best(asked, plain), atol=1e-10)


def test_weights_stay_as_they_were_where_even_their_best_loses():
    """So strong a damping pulls to the target, and not to what the inputs show."""
    weight = torch.tensor([[1.0, 1.0], [1.0, 1.0]], dtype=torch.float64)
    moment = torch.tensor([[1.0, 0.99], [0.99, 1.0]], dtype=torch.float64)
    asked = Problem((2, 2), weight, torch.tensor([[5.0, -4.0]] * 2, dtype=torch.float64), moment, 1e6)
    found = solve(asked, parse_pattern("1x2"), [0.5], SETTINGS, go_on)[0.5]
    assert_lawful(asked, parse_pattern("1x2"), {0.5: found})
    assert torch.equal(found.weight, weight * torch.from_numpy(found.mask))


@pytest.mark.parametrize(
    ("label", "way"),
    [
        ("1x4", "_by_elimination"),
        ("1x4-layerwide", "_by_elimination"),
        ("block4", "_by_elimination"),
        ("unstructured", "_by_elimination"),
        ("2:4", "_by_run"),
        ("filter", "_by_steps"),
        ("tw4", "_by_steps"),
        ("tvw4", "_by_steps"),
    ],
)
def test_the_way_follows_from_what_is_shared(label, way, monkeypatch):
    taken = []
    own = getattr(choosing._Chooser, way)
    monkeypatch.setattr(choosing._Chooser, way, lambda *args: taken.append(way) or own(*args))
    solve(problem((8, 8, 1, 3)), parse_pattern(label), [0.5], SETTINGS, go_on)
    assert taken == [way]


@pytest.mark.parametrize("label", ["1x4", "unstructured", "2:4", "tw4", "tvw4", "block4"])
def test_layers_too_large_for_elimination_and_exact_weights(label, monkeypatch):
    """Large layers are chosen in parts or at once, and set by a sweep; laws hold all the same."""
    monkeypatch.setattr(choosing, "_MOST_FLOPS", 0.0)
    monkeypatch.setattr(choosing, "_LEAST_UNITS", 4)
    monkeypatch.setattr(choosing, "_MOST_FLOPS_SOLVING", 0.0)
    monkeypatch.setattr(choosing, "_MOST_FLOPS_SINGLE", 0.0)
    asked, pattern = problem((13, 12, 3, 1), seed=2), parse_pattern(label)
    found = solve(asked, pattern, [0.5], SETTINGS, go_on)
    assert_lawful(asked, pattern, found)
    assert found[0.5].error < 0.9 * found[0.5].masked_error


def test_elimination_of_all_beats_that_of_parts(monkeypatch):
    asked = [problem((16, 12, 3, 1), seed) for seed in range(4)]
    pattern = parse_pattern("1x8")
    exact = [solve(each, pattern, [0.5], SETTINGS, go_on)[0.5].error for each in asked]
    monkeypatch.setattr(choosing, "_MOST_FLOPS", 0.0)
    monkeypatch.setattr(choosing, "_LEAST_UNITS", 1)
    rough = [solve(each, pattern, [0.5], SETTINGS, go_on)[0.5].error for each in asked]
    assert sum(exact) < sum(rough)


def test_layerwide_choice_beats_the_uniform_one():
    """Groups differ in size, so more may be taken from the small one."""
    asked = problem((8, 12), seed=1)
    asked.weight[:4] *= 0.05
    asked.target.copy_(asked.weight)
    found = {
        label: solve(asked, parse_pattern(label), [0.5], SETTINGS, go_on)[0.5]
        for label in ("1x4", "1x4-layerwide")
    }
    assert found["1x4-layerwide"].error < 0.5 * found["1x4"].error
    assert found["1x4-layerwide"].mask[:4].sum() < found["1x4-layerwide"].mask[4:].sum()


def test_one_pass_serves_all_sparsities(monkeypatch):
    asked, pattern = problem((8, 12, 3, 1)), parse_pattern("1x4")
    alone = {s: solve(asked, pattern, [s], SETTINGS, go_on)[s] for s in (0.25, 0.5, 0.75)}
    passes = []
    own = choosing.eliminate
    monkeypatch.setattr(choosing, "eliminate", lambda *a, **k: passes.append(1) or own(*a, **k))
    together = solve(asked, pattern, [0.75, 0.25, 0.5], SETTINGS, go_on)
    assert len(passes) == 1 and list(together) == [0.25, 0.5, 0.75]
    assert all(torch.equal(together[s].weight, alone[s].weight) for s in alone)
    errors = [found.error for found in together.values()]
    assert errors == sorted(errors)
    assert not (together[0.75].mask & ~together[0.25].mask).any()


def test_tiles_keep_outputs_by_what_nothing_makes_up_for():
    """An output of large weights on inputs that are hardly there is worth little."""
    asked = problem((8, 8), seed=4)
    faint = torch.ones(8, dtype=torch.float64)
    faint[:4] = 1e-3
    asked.moment.mul_(faint[:, None] * faint)
    asked.weight[0], asked.weight[1] = 50.0 * (faint < 1), 0.5 * (faint == 1)
    asked.target.copy_(asked.weight)
    energy = ((asked.weight @ asked.moment) * asked.weight).sum(dim=1)
    found = solve(asked, parse_pattern("filter"), [0.5], SETTINGS, go_on)[0.5]
    kept = set(np.flatnonzero(found.mask.any(axis=1)).tolist())
    assert kept == set(energy.argsort()[4:].tolist()) and 0 not in kept


def test_families_from_outside_are_reconstructed(strangers):
    """Whatever a family is like, its masks come of its own rules."""
    from autosparse.patterns import all_families

    shape, seen = (16, 16), 0
    for family in all_families().values():
        pattern = parse_pattern(family.example)
        possible_ones = [s for s in (0.5, 0.75) if not family.why_not_sparsity(pattern, s)]
        if pattern.is_dense or family.why_not(pattern, shape):
            continue
        asked = problem(shape)
        assert_lawful(asked, pattern, solve(asked, pattern, possible_ones, SETTINGS, go_on))
        seen += len(possible_ones)
    assert seen > 8


def test_units_in_another_order_than_scores_are_noticed():
    """Scores of N:M are of runs, tap by tap; groups list columns as they lie in the weight."""
    shape = (4, 8, 1, 3)
    for label, known in (("1x4", True), ("unstructured", True), ("2:4", False), ("filter", False)):
        pattern = parse_pattern(label)
        family = family_of(pattern)
        groups = family.groups(pattern, shape)
        assert (unit_layout(family, pattern, shape, groups) is not None) is known, label


def test_a_weight_that_cannot_have_the_pattern_is_refused():
    with pytest.raises(PlanError, match="must be able to have its pattern 1x16, but a block of 16"):
        solve(problem((8, 4)), parse_pattern("1x16"), [0.5], SETTINGS, go_on)
    with pytest.raises(PlanError):
        solve(problem((8, 4)), parse_pattern("2:4"), [0.6], SETTINGS, go_on)
