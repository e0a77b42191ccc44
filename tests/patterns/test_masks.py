"""Laws of masks and scores, against independent loops in float64."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from autosparse.errors import PlanError
from autosparse.patterns import CRITERIA, block_scores, check, mask
from autosparse.records import DENSE, Pattern, kept_blocks, onexn

SHAPES = [(32, 20, 3, 3), (20, 16, 1, 1), (10, 33), (3, 5, 2, 2)]


def weight_of(shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def blocks_of(weight, block_n):
    """Every block as a flat float64 vector: a list of groups of lists of inputs."""
    weight = np.asarray(weight, dtype=np.float64)
    starts = range(0, weight.shape[0], block_n)
    return [[weight[s : s + block_n, c].ravel() for c in range(weight.shape[1])] for s in starts]


def bpar_by_hand(group):
    total = sum(sum(abs(x) for x in v) for v in group)
    redundancy = []
    for v in group:
        row = 0.0
        for u in group:
            norms = math.sqrt(float(v @ v)) * math.sqrt(float(u @ u))
            row += abs(float(v @ u)) / norms if norms > 0 else 0.0
        redundancy.append(row)
    whole = sum(redundancy)
    scores = []
    for v, c in zip(group, redundancy, strict=True):
        n = sum(abs(x) for x in v) / total if total > 0 else 0.0
        r = c / whole if c > 0 else 1.0
        scores.append(n - r)
    return scores


@pytest.mark.smoke
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("block_n", [1, 4, 8, 16])
def test_scores_agree_with_loops(shape, block_n):
    weight = weight_of(shape)
    weight[:, 1] = 0  # a dead input
    weight[:block_n, 2] = 0  # a dead block
    blocks = blocks_of(weight, block_n)
    expected = {
        "l1": [[np.abs(v).sum() for v in group] for group in blocks],
        "l2": [[math.sqrt(float(v @ v)) for v in group] for group in blocks],
        "bpar": [bpar_by_hand(group) for group in blocks],
    }
    for criterion in CRITERIA:
        scores = block_scores(weight, onexn(block_n), criterion)
        np.testing.assert_allclose(scores, expected[criterion], rtol=2e-5, atol=2e-6)


def test_bpar_gives_dead_blocks_minus_one_and_survives_a_dead_group():
    weight = weight_of((32, 12, 3, 3))
    weight[:16, [3, 7]] = 0
    weight[16:] = 0
    scores = block_scores(weight, onexn(16), "bpar")
    assert (scores[0, [3, 7]] == -1).all()
    assert (np.delete(scores[0], [3, 7]) > -1).all()
    assert (scores[1] == -1).all()


def test_bpar_prefers_the_lone_direction_over_a_repeated_one():
    weight = np.zeros((2, 3), dtype=np.float32)
    weight[:, 0] = weight[:, 1] = (1, 0)
    weight[:, 2] = (0, 1)
    scores = block_scores(weight, onexn(2), "bpar")
    np.testing.assert_allclose(scores[0], [1 / 3 - 0.4, 1 / 3 - 0.4, 1 / 3 - 0.2], rtol=1e-6)


@pytest.mark.smoke
@pytest.mark.parametrize("inputs", [1, 3, 10, 16, 31, 64, 96, 130])
@pytest.mark.parametrize("tenths", [0, 1, 3, 5, 7, 9, 10])
def test_uniform_counts_follow_the_floor_rule(inputs, tenths):
    weight = weight_of((20, inputs))
    kept = mask(weight, onexn(8), tenths / 10)
    exact = inputs - math.floor(Fraction(tenths, 10) * inputs)
    assert exact == kept_blocks(inputs, tenths / 10)
    for start in (0, 8, 16):
        assert kept[start : start + 8].any(axis=0).sum() == exact
    check(kept, onexn(8))


def test_seven_tenths_of_ten_prunes_seven():
    assert mask(weight_of((4, 10)), onexn(4), 0.7).sum() == 4 * 3


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("sparsity", [0.0, 0.35, 0.9, 1.0])
def test_mask_laws(shape, uniform, criterion, sparsity):
    pattern = onexn(8, uniform=uniform)
    weight = weight_of(shape)
    kept = mask(weight, pattern, sparsity, criterion=criterion)
    assert kept.shape == shape and kept.dtype == bool
    check(kept, pattern)
    assert np.array_equal(kept, mask(weight, pattern, sparsity, criterion=criterion))
    assert np.array_equal(kept, mask(weight * kept, pattern, sparsity, criterion=criterion))
    groups = -(-shape[0] // 8)
    pruned = sum(not v.any() for group in blocks_of(kept, 8) for v in group)
    if uniform:
        assert pruned == groups * (shape[1] - kept_blocks(shape[1], sparsity))
    else:
        assert pruned == int(round(sparsity * 100) * groups * shape[1] // 100)


@pytest.mark.parametrize("uniform", [True, False])
def test_kept_magnitude_beats_every_random_legal_mask(uniform):
    weight = weight_of((32, 24, 3, 3))
    pattern = onexn(8, uniform=uniform)
    best = np.abs(weight[mask(weight, pattern, 0.5)]).sum()
    rng = np.random.default_rng(1)
    for _ in range(50):
        other = mask(weight, pattern, 0.5, rng.random((4, 24)))
        assert np.abs(weight[other]).sum() <= best


def test_layerwide_prunes_the_lowest_of_the_whole_layer():
    weight = np.ones((16, 10, 1, 1), dtype=np.float32)
    weight[8:] *= 0.1
    kept = mask(weight, onexn(8, uniform=False), 0.5)
    assert kept[:8].all() and not kept[8:].any()


def test_ties_prune_the_earlier_block():
    kept = mask(np.ones((4, 6)), onexn(4), 0.5)
    assert kept[0].tolist() == [False] * 3 + [True] * 3
    layerwide = mask(np.ones((4, 4)), onexn(2, uniform=False), 0.5)
    assert layerwide[:, 0].tolist() == [False, False, True, True]


def test_given_scores_decide():
    scores = np.array([[5.0, 1.0, 3.0, 2.0]])
    kept = mask(np.ones((4, 4, 3, 3)), onexn(4), 0.5, scores)
    assert kept[:, :, 0, 0].tolist() == [[True, False, True, False]] * 4


def test_dense_keeps_all_and_refuses_a_sparsity():
    weight = weight_of((4, 4, 3, 3))
    assert mask(weight, DENSE, 0.0).all()
    with pytest.raises(PlanError, match="sparsity 0"):
        mask(weight, DENSE, 0.5)
    broken = np.ones((4, 4), dtype=bool)
    broken[2, 1] = False
    with pytest.raises(PlanError, match="output 2"):
        check(broken, DENSE)


def test_check_names_the_first_violating_group():
    kept = mask(weight_of((32, 20, 3, 3)), onexn(8), 0.5)
    for where in [(17, 4, 1, 1), (16, slice(None), 0, 0)]:
        broken = kept.copy()
        broken[where] = ~broken[where]
        with pytest.raises(PlanError, match=r"group 2 .* partly pruned"):
            check(broken, onexn(8))
    uneven = kept.copy()
    uneven[24:, int(np.flatnonzero(~kept[24].any(axis=(1, 2)))[0])] = True
    with pytest.raises(PlanError, match=r"group 3 .* keeps 11 blocks, but group 0 keeps 10"):
        check(uneven, onexn(8))
    check(uneven, onexn(8, uniform=False))


def test_straddling_last_group_is_checked_as_short():
    kept = np.zeros((20, 6), dtype=bool)
    kept[:16, :3] = True
    kept[16:, 3:] = True
    check(kept, onexn(8))
    kept[19, 3] = False
    with pytest.raises(PlanError, match="group 2"):
        check(kept, onexn(8))


@pytest.mark.parametrize("bad", [-0.1, 1.2, float("nan")])
def test_impossible_sparsity_is_refused(bad):
    with pytest.raises(PlanError, match=r"lie in \[0, 1\]"):
        mask(np.ones((4, 4)), onexn(4), bad)


def test_unknown_criterion_and_pattern_are_refused():
    with pytest.raises(PlanError, match="criterion must be one of"):
        block_scores(np.ones((4, 4)), onexn(4), "magic")
    with pytest.raises(PlanError, match="belong to its family, but got 2x4: blocks are one input wide"):
        mask(np.ones((4, 4)), Pattern(group_out=4, unit_in=2), 0.5)
    with pytest.raises(PlanError, match="outputs, inputs"):
        mask(np.ones(4), onexn(4), 0.5)


def test_layer_wide_bpar_keeps_more_of_strong_groups():
    weight = weight_of((32, 12, 3, 3))
    weight[16:] *= 0.1
    kept = mask(weight, onexn(16, uniform=False), 0.5, criterion="bpar")
    strong, weak = kept[0, :, 0, 0].sum(), kept[16, :, 0, 0].sum()
    assert (strong, weak) == (12, 0), "shares of each group by itself would keep about six of both"
    even = block_scores(weight, onexn(16), "bpar")
    wide = block_scores(weight, onexn(16, uniform=False), "bpar")
    size = np.abs(weight).reshape(2, 16, 12, 9).sum(axis=(1, 3), dtype=np.float64)
    shares = size / size.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(wide - even, 2 * size / size.sum() - shares, atol=1e-6)
