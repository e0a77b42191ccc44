"""Single weights, N:M and whole outputs against counting, and the weight of redundancy in BPAR."""

from __future__ import annotations

import numpy as np
import pytest

from autosparse.errors import PlanError
from autosparse.patterns import CRITERIA, block_scores, check, mask, parse_pattern
from autosparse.patterns.blocks import bpar_scores
from autosparse.patterns.families.nm import nm
from autosparse.patterns.family import all_families, family_of
from autosparse.patterns.pattern import onexn
from autosparse.patterns.structure import STRAY_ZEROS

FILTER, SINGLE = parse_pattern("filter"), parse_pattern("unstructured")


def weight_of(shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


@pytest.mark.parametrize("shape", [(6, 8, 3, 3), (5, 12)])
@pytest.mark.parametrize("kept", [(2, 4), (1, 4), (1, 2), (3, 4)])
def test_nm_keeps_the_largest_of_every_run_along_the_inputs(shape, kept):
    n, m = kept
    weight = weight_of(shape)
    found = mask(weight, nm(n, m), 1 - n / m)
    for output in range(shape[0]):
        for tap in np.ndindex(*shape[2:]):
            for first in range(0, shape[1], m):
                run = [abs(weight[(output, c, *tap)]) for c in range(first, first + m)]
                best = set(np.argsort(run)[m - n :] + first)
                live = {c for c in range(first, first + m) if found[(output, c, *tap)]}
                assert live == best
    assert found.sum() == weight.size * n // m
    assert {one.pattern for one in family_of(nm(n, m)).find(weight * found)} >= (
        {nm(n, m)} & {nm(1, 4), nm(2, 4)}
    )


def test_nm_refuses_inputs_that_m_does_not_divide_wherever_they_come():
    family = family_of(nm(2, 4))
    assert family.why_not(nm(2, 4), (8, 3, 3, 3)) == "the layer's 3 inputs are no multiple of 4"
    weight = weight_of((4, 6))
    for call in (
        lambda: mask(weight, nm(2, 4), 0.5),
        lambda: family.random(nm(2, 4), (4, 6), 0.5, np.random.default_rng(0)),
        lambda: family.sparsity_of(weight, nm(2, 4)),
        lambda: check(weight > 0, nm(2, 4)),
    ):
        with pytest.raises(PlanError, match="6 inputs are no multiple of 4"):
            call()
    with pytest.raises(PlanError, match=r"2:4 prunes exactly 0.5"):
        mask(weight_of((4, 8)), nm(2, 4), 0.75)


def test_nm_names_the_run_that_keeps_another_number():
    kept = mask(weight_of((4, 8, 2, 1)), nm(2, 4), 0.5)
    kept[2, 4:, 1] = True
    with pytest.raises(PlanError, match="run 3 of output 2 of 2:4 keeps 4 weights"):
        check(kept, nm(2, 4))


def test_a_few_stray_zeros_do_not_hide_nm_and_emptier_weights_are_not_taken_for_it():
    family = family_of(nm(2, 4))
    weight = weight_of((32, 64))
    weight *= mask(weight, nm(2, 4), 0.5)
    live = np.argwhere(weight)
    weight[tuple(live[: int(STRAY_ZEROS * len(live))].T)] = 0
    assert [one.pattern for one in family.find(weight)] == [nm(2, 4)]
    weight[tuple(live[: len(live) // 10].T)] = 0
    assert family.find(weight) == ()


def test_groups_of_nm_are_in_the_order_of_its_runs():
    group = family_of(nm(2, 4)).groups(nm(2, 4), (3, 4, 1, 2))[1]
    assert group.outputs.tolist() == [1]
    assert group.units[:, 0].tolist() == [0, 2, 4, 6, 1, 3, 5, 7]


@pytest.mark.parametrize("sparsity", [0.0, 0.33, 0.9, 1.0])
def test_single_weights_are_ranked_over_the_layer(sparsity):
    weight = weight_of((5, 7, 2, 1))
    kept = mask(weight, SINGLE, sparsity)
    assert kept.sum() == weight.size - int(sparsity * weight.size + 1e-9)
    assert not kept.any() or kept.all() or np.abs(weight[kept]).min() > np.abs(weight[~kept]).max()
    found = family_of(SINGLE).find(weight * kept)
    assert [one.sparsity for one in found] == ([] if kept.all() else [pytest.approx(1 - kept.mean())])


@pytest.mark.parametrize("name", ["unstructured", "2:4", "1:4"])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 3.0])
def test_units_of_one_weight_rank_alike_by_every_criterion(name, alpha):
    weight = weight_of((6, 8, 3, 1))
    weight[0] = 0
    pattern = parse_pattern(name)
    sparsity = 0.75 if name == "1:4" else 0.5
    masks = [mask(weight, pattern, sparsity, criterion=c, alpha=alpha) for c in CRITERIA]
    assert all(np.array_equal(masks[0], each) for each in masks)
    family = family_of(pattern)
    runs = family.scores(weight, pattern, "l1")
    signed = np.where(runs > 0, runs, 0)[..., None]  # angles do not know signs
    np.testing.assert_allclose(
        family.scores(weight, pattern, "bpar", alpha=alpha),
        bpar_scores(signed, alpha=alpha),
        atol=1e-12,
    )


@pytest.mark.parametrize("name", ["1x4", "1x4-layerwide", "block4", "filter", "unstructured", "2:4"])
def test_alpha_weighs_redundancy_and_dead_units_stay_lowest(name):
    weight = weight_of((8, 8, 3, 3))
    weight[:4, :4] = 0
    weight[1] = 0
    pattern = parse_pattern(name)
    one, two, none = (block_scores(weight, pattern, "bpar", alpha=a) for a in (1.0, 2.0, 0.0))
    np.testing.assert_allclose(two, 2 * one - none, atol=1e-12)
    dead = ~family_of(pattern).reduce(weight != 0, pattern)
    assert dead.any()
    for alpha, scores in ((1.0, one), (2.0, two), (0.0, none)):
        assert (scores[dead] == -alpha).all() and (scores[~dead] > -alpha).all()
    ranked = mask(weight, pattern, 0.5, criterion="bpar", alpha=0.0)
    assert np.array_equal(ranked, mask(weight, pattern, 0.5))


def test_filters_by_angle_against_loops():
    weight = weight_of((6, 3, 2, 2))
    rows = [row.ravel() for row in weight]
    size = np.array([np.abs(row).sum() for row in rows])
    cosines = np.array(
        [sum(abs(a @ b) / np.linalg.norm(a) / np.linalg.norm(b) for b in rows) for a in rows]
    )
    expected = size / size.sum() - 0.5 * cosines / cosines.sum()
    np.testing.assert_allclose(block_scores(weight, FILTER, "bpar", alpha=0.5)[0], expected)


@pytest.mark.parametrize("alpha", [-1.0, float("nan"), float("inf")])
def test_an_alpha_without_sense_is_refused(alpha):
    with pytest.raises(PlanError, match="alpha must be a finite number of at least 0"):
        block_scores(np.ones((4, 4)), onexn(2), "bpar", alpha=alpha)
    with pytest.raises(PlanError, match="alpha must be"):
        mask(np.ones((4, 4)), onexn(2), 0.5, criterion="bpar", alpha=alpha)


def test_filters_that_are_half_pruned_are_named_and_dead_ones_found():
    weight = weight_of((8, 4, 3, 3))
    weight[[1, 4, 6]] = 0
    (found,) = family_of(FILTER).find(weight)
    assert found.pattern == FILTER and found.sparsity == 3 / 8
    weight[0, 2] = 0
    assert family_of(FILTER).find(weight) == (), "an output that reads less is no whole one"
    with pytest.raises(PlanError, match="output 0 of filter is only partly pruned"):
        check(weight != 0, FILTER)
    left = family_of(FILTER).groups(FILTER, weight.shape, np.array([2, 5], dtype=np.int32))
    assert [group.outputs.tolist() for group in left] == [[2], [5]]


def test_what_1xn_covers_no_new_family_claims_for_kernels_of_1xn():
    rng = np.random.default_rng(1)
    for block_n in (4, 8, 16, 32):
        for uniform in (True, False):
            pattern = onexn(block_n, uniform=uniform)
            kept = family_of(pattern).random(pattern, (64, 32), 0.75, rng)
            claims = {
                family_of(one.pattern).contract(one.pattern).kind
                for name, family in all_families().items()
                if name not in ("onexn", "block")
                for one in family.find(kept)
            }
            assert "onexn" not in claims
    whole = np.ones((64, 32), dtype=bool)
    whole[16:32] = False
    assert family_of(FILTER).find(whole) == (), "1x16 says the same in shorter lists"
