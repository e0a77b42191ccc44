"""TW and TVW against loops in float64 that know nothing of columns, tiles of arrays or reductions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autosparse.errors import PlanError
from autosparse.patterns import block_scores, check, mask, parse_pattern
from autosparse.patterns.families.tvw import tvw
from autosparse.patterns.families.tw import tw
from autosparse.patterns.family import family_of, is_at_least_as_accurate
from autosparse.patterns.pattern import Contract, kept_blocks
from autosparse.patterns.tiles import nm_groups

# Tails of tiles and of runs, one kernel position and several, one output, one input.
SHAPES = [(10, 9, 2, 3), (12, 16), (7, 8, 1, 1), (1, 12, 3, 1), (9, 1, 2, 2)]
NAMES = ["tw4", "tw4k4", "tw4-inputs", "tw4-ranked", "tw3k4-ranked-inputs", "tw64"]
NAMES += ["tvw4", "tvw4k4", "tvw4-inputs", "tvw4-1:4", "tvw4-ranked", "tvw3k4-2:8-ranked-inputs"]


def weight_of(shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def norm_over_count(values, criterion):
    total = sum(abs(v) for v in values) if criterion == "l1" else math.sqrt(sum(v * v for v in values))
    return total / len(values)


def by_loops(weight, pattern, sparsity, criterion="l1"):
    """The mask, weight by weight."""
    outputs, inputs, *kernel = weight.shape
    taps = list(np.ndindex(*kernel))
    n, m = pattern.nm or (1, 1)
    density = (1 - sparsity) * m / n
    even = pattern.split == "even"
    share = 1 - math.sqrt(density) if even else 1 - density
    left = list(range(outputs))
    if even:
        strength = [norm_over_count(list(weight[o].ravel()), criterion) for o in left]
        left = sorted(sorted(left, key=lambda o: strength[o])[outputs - kept_blocks(outputs, share) :])
    size = pattern.group_out
    tiles = [left[i : i + size] for i in range(0, len(left), size)]
    runs = [
        [(c, tap) for c in range(first, min(first + pattern.unit_in, inputs))]
        for tap in taps
        for first in range(0, inputs, pattern.unit_in)
    ]
    scores = {
        (t, r): norm_over_count([weight[(o, c, *tap)] for o in tile for c, tap in run], criterion)
        for t, tile in enumerate(tiles)
        for r, run in enumerate(runs)
    }
    kept = np.zeros(weight.shape, dtype=bool)
    for t, r in chosen(scores, len(tiles), len(runs), pattern.uniform, share):
        for o in tiles[t]:
            for c, tap in runs[r]:
                kept[(o, c, *tap)] = True
    for o in left if pattern.nm else ():
        row = [(o, c, *tap) for tap in taps for c in range(inputs) if kept[(o, c, *tap)]]
        for first in range(0, len(row), m):
            some = sorted(row[first : first + m], key=lambda at: abs(weight[at]))
            for at in some[: max(0, len(some) - n)]:
                kept[at] = False
    return kept


def chosen(scores, tiles, runs, uniform, share):
    if uniform:
        for t in range(tiles):
            order = sorted(range(runs), key=lambda r: scores[t, r])
            yield from ((t, r) for r in order[runs - kept_blocks(runs, share) :])
        return
    best = {(t, max(range(runs), key=lambda r: scores[t, r])) for t in range(tiles)}
    count = kept_blocks(tiles * runs, share)
    others = sorted(scores.keys() - best, key=lambda key: scores[key], reverse=True)
    yield from [*best, *others][: max(count, tiles)] if count else []


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("criterion", ["l1", "l2"])
def test_masks_are_those_of_the_loops(name, shape, criterion):
    pattern = parse_pattern(name)
    for sparsity in (0.0, 0.4, 0.5, 0.75, 0.9, 1.0):
        if family_of(pattern).why_not_sparsity(pattern, sparsity):
            continue
        kept = mask(weight_of(shape), pattern, sparsity, criterion=criterion)
        expected = by_loops(weight_of(shape), pattern, sparsity, criterion)
        assert np.array_equal(kept, expected), sparsity
        check(kept, pattern)


@pytest.mark.parametrize("split", ["even", "inputs"])
@pytest.mark.parametrize("inside", [None, (2, 4), (1, 4), (4, 16)])
@pytest.mark.parametrize("sparsity", [0.5, 0.75, 0.8125, 0.9, 0.95])
def test_both_steps_together_leave_what_the_sparsity_says(split, inside, sparsity):
    n, m = inside or (1, 1)
    pattern = tw(32, 8, split=split) if inside is None else tvw(32, 8, inside=inside, split=split)
    shape = (512, 512, 3, 3)
    family = family_of(pattern)
    if why := family.why_not_sparsity(pattern, sparsity):
        assert sparsity < 1 - n / m and "its N:M alone" in why
        return
    kept = family.kept_weights(pattern, shape, family.kept(pattern, shape, sparsity))
    units = 512 // 8 * 9
    outputs_left = 1.0
    if split == "even":
        outputs_left = kept_blocks(512, 1 - math.sqrt((1 - sparsity) * m / n)) / 512
    units_left = kept / (math.prod(shape) * outputs_left) * m / n
    one_more = 1 / 512 + 1 / units  # what rounding up may add
    assert outputs_left * units_left * n / m == pytest.approx(kept / math.prod(shape))
    assert 0 <= outputs_left * units_left - (1 - sparsity) * m / n <= one_more
    if split == "even":
        assert outputs_left == pytest.approx(units_left, abs=one_more)
    assert family.achieved(pattern, shape, sparsity) == pytest.approx(1 - kept / math.prod(shape))


def test_the_shares_of_tvw_are_those_of_its_source():
    # 50, 62.5, 75 and 87.5 % are 0, 25, 50 and 75 % of TW, with 2:4 inside.
    shape = (64, 64)
    for sparsity, tiles in ((0.5, 0.0), (0.625, 0.25), (0.75, 0.5), (0.875, 0.75)):
        outer, inner = tw(16, split="inputs"), tvw(16, split="inputs")
        weight = weight_of(shape)
        whole, half = mask(weight, outer, tiles), mask(weight, inner, sparsity)
        assert not (half & ~whole).any() and 2 * half.sum() == whole.sum()


def test_any_importance_of_weights_chooses_in_place_of_their_size():
    rng = np.random.default_rng(4)
    weight, gradient = rng.standard_normal((2, 10, 9, 3, 3))
    taylor = (gradient * weight) ** 2
    for name in ("tw4", "tw4k4-ranked", "tvw4", "1x4", "unstructured", "filter"):
        kept = mask(taylor, parse_pattern(name), 0.75, criterion="l1")
        assert not np.array_equal(kept, mask(weight, parse_pattern(name), 0.75))
        if name[0] == "t":
            assert np.array_equal(kept, by_loops(taylor, parse_pattern(name), 0.75))
    sums = taylor.reshape(10, -1).sum(axis=1)
    kept = mask(taylor, parse_pattern("filter"), 0.5)
    assert set(np.flatnonzero(kept.any(axis=(1, 2, 3)))) == set(np.argsort(sums)[5:])


def test_survivors_keep_their_order_and_the_last_tile_is_short():
    weight = np.ones((6, 4)) * np.array([[9], [1], [8], [7], [1], [6]])
    weight[[0, 2], :2] += 1
    weight[[3, 5], 2:] += 1
    kept = mask(weight, tw(2), 0.5)  # each step prunes 0.29: one output of six, one input of four
    assert kept.any(axis=1).tolist() == [True, False, True, True, True, True]
    groups = family_of(tw(2)).groups(tw(2), (6, 4), np.array([0, 2, 3, 4, 5], dtype=np.int32))
    assert [group.outputs.tolist() for group in groups] == [[0, 2], [3, 4], [5]]
    assert [int(kept[group.outputs[0]].sum()) for group in groups] == [3, 3, 3]


def test_units_are_runs_of_inputs_at_one_position():
    (group,) = family_of(tw(4, 2)).groups(tw(4, 2), (4, 3, 1, 2))
    # Column = input * 2 + position; the run of the third input is short.
    assert group.units.tolist() == [[0, 2], [4, -1], [1, 3], [5, -1]]


def test_ranked_tiles_share_unequally_and_none_is_left_empty():
    weight = weight_of((8, 16))
    weight[4:] *= 1e-3
    kept = mask(weight, tw(4, uniform=False, split="inputs"), 0.5)
    assert kept[:4].sum() == 4 * 15 and kept[4:].sum() == 4
    check(kept, tw(4, uniform=False, split="inputs"))
    with pytest.raises(PlanError, match="tile 1 of tw4-inputs keeps 1 units, but tile 0 keeps 15"):
        check(kept, tw(4, split="inputs"))
    sparse = mask(weight, tw(4, uniform=False, split="inputs"), 0.97)
    assert sparse[:4].sum() == sparse[4:].sum() == 4


def test_masks_that_break_a_rule_are_refused_by_tile():
    kept = mask(weight_of((12, 16, 3, 1)), tw(4, 4), 0.75)
    second = np.flatnonzero(kept.any(axis=(1, 2, 3)))[4:]
    broken = kept.copy()
    at = tuple(np.argwhere(kept[second[0]])[0])
    broken[(second[0], *at)] = False
    with pytest.raises(PlanError, match="tile 1 of tw4k4 has a unit that is only partly pruned"):
        check(broken, tw(4, 4))
    half = mask(weight_of((12, 16)), tvw(4), 0.75)
    row = np.flatnonzero(half.any(axis=1))[0]
    unequal = half.copy()
    unequal[row, np.flatnonzero(half[row])[0]] = False
    with pytest.raises(PlanError, match="tile 0 of tvw4 has outputs that keep unequal numbers"):
        check(unequal, tvw(4))
    with pytest.raises(PlanError, match="tile 0 of tvw4-inputs is not 2:4 over the inputs"):
        check(np.ones((4, 8), dtype=bool), tvw(4, split="inputs"))
    crowded = np.zeros((2, 8), dtype=bool)
    crowded[0, [0, 1, 2, 7]] = crowded[1, [0, 5, 6, 7]] = True  # three of one four, wherever it ends
    with pytest.raises(PlanError, match="is not 2:4"):
        check(crowded, tvw(2, split="inputs"))


def test_inputs_that_no_output_of_a_tile_kept_do_not_confuse_what_is_left():
    # One output per tile: of every four kept inputs two are dead, and look like inputs never kept.
    for seed in range(20):
        weight = weight_of((3, 24, 1, 1), seed)
        kept = mask(weight, tvw(1), 0.75)
        check(kept, tvw(1))
        groups = list(
            nm_groups(np.ones((1, int(kept[kept.any(axis=(1, 2, 3))][0].sum())), bool), (2, 4))
        )
        assert [end - first for first, end in groups[:-1]] == [2] * (len(groups) - 1)


def test_groups_of_a_kernel_are_as_few_as_were_chosen():
    weight = weight_of((16, 64))
    kept = mask(weight, tvw(16, split="inputs"), 0.75)
    columns = np.flatnonzero(kept.any(axis=0))
    groups = list(nm_groups(kept[:, columns], (2, 4)))
    assert len(groups) == 8 and groups[0][0] == 0 and groups[-1][1] == len(columns)
    assert all(kept[:, columns[a:b]].sum(axis=1).max() <= 2 and b - a <= 4 for a, b in groups)
    assert list(nm_groups(np.zeros((4, 0), dtype=bool), (2, 4))) == []


def test_what_tiles_cannot_do_is_refused_with_a_remedy():
    weight = weight_of((8, 8))
    with pytest.raises(PlanError, match=r"tw4 takes the criteria l1 and l2, but got bpar.*take l1"):
        mask(weight, tw(4), 0.5, criterion="bpar")
    with pytest.raises(PlanError, match="in place of the weight"):
        mask(weight, tw(4), 0.5, np.ones((2, 8)))
    with pytest.raises(PlanError, match="follow from the weights"):
        block_scores(weight, tw(4))
    with pytest.raises(PlanError, match=r"tvw4 prunes at least 0.5, its N:M alone, but got 0.4"):
        mask(weight, tvw(4), 0.4)
    family = family_of(tw(16, 16))
    assert "larger than the layer's 8" in family.why_not(tw(16), (8, 8))
    assert "run of 16 inputs" in family.why_not(tw(8, 16), (8, 8))


def test_tiles_of_half_the_size_hold_what_larger_ones_keep():
    shape, rng = (32, 32, 3, 1), np.random.default_rng(5)
    family = family_of(tw(8))
    proved = 0
    for fine, coarse in ((tw(8), tw(16)), (tw(8), tw(8, 4)), (tw(8, 4), tvw(16, 8)), (tw(4), tw(8))):
        for sparsity in (0.5, 0.75):
            pair = [(p, family.kept(p, shape, sparsity)) for p in (fine, coarse)]
            if not is_at_least_as_accurate(*pair, shape):
                continue
            target = family_of(coarse).random(coarse, shape, sparsity, rng)
            able = mask(target.astype(float), fine, sparsity)
            assert not (target & ~able).any()
            proved += 1
    assert proved >= 4
    more = [(tw(8), family.kept(tw(8), shape, s)) for s in (0.25, 0.5)]
    assert not is_at_least_as_accurate((tw(16), more[0][1]), more[1], shape)


def test_nothing_is_pruned_below_what_nm_alone_prunes():
    family, shape = family_of(tvw(4)), (8, 8)
    full, half = (family.kept(tvw(4), shape, s) for s in (0.0, 0.5))
    assert full > half
    assert family.kept_weights(tvw(4), shape, full) == 64
    assert family.kept_weights(tvw(4), shape, half) == 32
    assert family.achieved(tvw(4), shape, 0.0) == 0.0


def test_kernels_of_tiles_are_told_apart_by_all_that_they_need():
    labels = {"tw64": "tw64", "tw64k8": "tw64k8", "tvw64k8": "tw64k8+2:4", "tvw32-1:4": "tw32+1:4"}
    for name, wanted in labels.items():
        pattern = parse_pattern(name)
        assert str(family_of(pattern).contract(pattern)) == wanted
    assert family_of(tvw(64, 8)).contract(tvw(64, 8)) == Contract("tw", 64, 8, (2, 4))


def test_zeros_show_tiles_and_what_is_inside():
    rng = np.random.default_rng(6)
    for name in ("tw8", "tw16k4", "tw8-inputs", "tw8-ranked", "tvw8", "tvw16k8", "tvw8-ranked-inputs"):
        pattern, shape = parse_pattern(name), (64, 32, 3, 1)
        kept = family_of(pattern).random(pattern, shape, 0.75, rng)
        found = family_of(pattern).find(weight_of(shape) * kept)
        assert pattern in [one.pattern for one in found], name
        assert {one.sparsity for one in found} == {1 - kept.mean()}
    scattered = rng.random((64, 32)) < 0.25
    assert family_of(tw(8)).find(scattered) == family_of(tvw(8)).find(scattered) == ()
    assert family_of(tw(8)).find(np.zeros((8, 8))) == family_of(tvw(8)).find(np.zeros((8, 8))) == ()
