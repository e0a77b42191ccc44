"""Laws that every family of patterns keeps: those of the project, and strangers added by a test."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from autosparse.errors import PlanError
from autosparse.patterns import (
    check,
    label_of,
    mask,
    parse_label,
    parse_pattern,
    why_not_criterion,
)
from autosparse.patterns.blockwise import BlockwiseFamily
from autosparse.patterns.family import (
    CRITERIA,
    UnitFamily,
    all_families,
    family_of,
    is_at_least_as_accurate,
    unit_family_of,
)
from autosparse.patterns.pattern import DENSE, Contract, Pattern, onexn
from autosparse.plans.plan import Plan
from autosparse.records import LayerChoice, LayerShape

SHAPES = [(32, 24, 3, 3), (20, 18, 1, 1), (12, 33)]
# Sizes that no grid offers for weights so small, tails and all splits among them.
SMALL = (
    "tw4",
    "tw8k8",
    "tw4k4-ranked",
    "tw8-inputs",
    "tvw4",
    "tvw8k8",
    "tvw4-1:4",
    "tvw4-ranked-inputs",
)
SPARSITIES = (0.0, 0.3, 0.5, 0.75, 1.0)


def weight_of(shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def offered(shape):
    """Every pattern that any family offers for a weight, uniform and layer-wide."""
    found = [pattern for family in all_families().values() for pattern in family.grid(shape)]
    found += [parse_pattern(name) for name in SMALL]
    wide = [Pattern.from_json(p.to_json() | {"uniform": False}) for p in found]
    sound = (p for p in wide if family_of_or_none(p) is not None)
    return [*dict.fromkeys(p for p in (*found, *sound) if not family_of(p).why_not(p, shape))]


def is_exact(pattern, shape):
    """Whether all masks of one amount keep as many weights: nothing is short, or no choice is made."""
    whole = shape[0] % max(1, pattern.group_out) == shape[1] % pattern.unit_in == 0
    if pattern.family in ("tw", "tvw"):
        return pattern.uniform and shape[1] % pattern.unit_in == 0
    return whole


def family_of_or_none(pattern):
    try:
        return family_of(pattern)
    except PlanError:
        return None


def allowed(pattern):
    family = family_of(pattern)
    return [s for s in SPARSITIES if not family.why_not_sparsity(pattern, s)]


@pytest.mark.usefixtures("strangers")
class TestLaws:
    def test_labels_tell_all_patterns_apart_and_are_read_back(self):
        patterns = [*offered((128, 128, 3, 3)), DENSE, onexn(32), onexn(3), onexn(48, uniform=False)]
        patterns += [parse_pattern(name) for name in ("tw32k4", "3:8", "tvw16-2:8-ranked-inputs")]
        assert {"tw64", "tw64k8", "tvw64", "tvw64k8", "2:4", "filter", "unstructured"} <= {
            pattern.name for pattern in patterns
        }
        labels = {pattern.name for pattern in patterns}
        assert len(labels) == len(set(patterns))
        assert len({family_of(p).contract(p) for p in (onexn(32), parse_pattern("tw32k4"))}) == 2
        for pattern in patterns:
            assert parse_pattern(pattern.name) == pattern
            assert Pattern.from_json(pattern.to_json()) == pattern
            for sparsity in (0.75, 1 / 3, math.nextafter(0.75, 1)):
                if not pattern.is_dense:
                    assert parse_label(label_of(pattern, sparsity)) == (pattern, sparsity)

    @pytest.mark.parametrize("shape", SHAPES)
    def test_masks_keep_what_the_family_counts(self, shape):
        for pattern in offered(shape):
            family = family_of(pattern)
            assert not family.why_not(pattern, shape)
            for sparsity in allowed(pattern):
                weight = weight_of(shape)
                kept = mask(weight, pattern, sparsity)
                assert kept.shape == shape and kept.dtype == bool
                check(kept, pattern)
                assert np.array_equal(kept, mask(weight, pattern, sparsity))
                amount = family.kept(pattern, shape, sparsity)
                if isinstance(family, UnitFamily):
                    really = family.achieved(pattern, shape, sparsity)
                    assert family.sparsity_of(weight * kept, pattern) == pytest.approx(really)
                least = family.kept_weights(pattern, shape, amount)
                assert least <= kept.sum() <= kept.size
                assert family.kept(pattern, shape, 0.0) >= amount
                found = family.sparsity_of(weight * kept, pattern)
                assert found >= family.achieved(pattern, shape, sparsity) - 1e-9
                if is_exact(pattern, shape):
                    assert kept.sum() == least, (pattern, sparsity)
                    assert found <= sparsity + 1e-9
                elif isinstance(family, UnitFamily):
                    assert found <= sparsity + 1e-9

    @pytest.mark.parametrize("shape", SHAPES)
    def test_random_masks_are_as_sparse_as_chosen_ones_and_differ(self, shape):
        for pattern in offered(shape):
            family = family_of(pattern)
            for sparsity in allowed(pattern):
                drawn = [
                    family.random(pattern, shape, sparsity, np.random.default_rng(seed))
                    for seed in (0, 0, 1, 2, 3)
                ]
                chosen = mask(weight_of(shape), pattern, sparsity)
                for each in drawn:
                    check(each, pattern)
                    found = family.sparsity_of(each, pattern)
                    assert found >= family.achieved(pattern, shape, sparsity) - 1e-9
                    if isinstance(family, UnitFamily) or is_exact(pattern, shape):
                        assert found == pytest.approx(family.sparsity_of(chosen, pattern))
                assert np.array_equal(drawn[0], drawn[1])
                if 0.3 <= sparsity <= 0.75 and 0.1 < found < 0.9:
                    assert any(not np.array_equal(drawn[0], each) for each in drawn[2:])

    @pytest.mark.parametrize("shape", SHAPES)
    def test_zeros_show_the_pattern_that_made_them(self, shape):
        for pattern in offered(shape):
            family = family_of(pattern)
            sparsity = next(s for s in (0.5, 0.75) if not family.why_not_sparsity(pattern, s))
            kept = family.random(pattern, shape, sparsity, np.random.default_rng(5))
            if family.kept(pattern, shape, sparsity) == family.kept(pattern, shape, 0.0):
                continue
            found = family.find(weight_of(shape) * kept)
            assert found, pattern
            for one in found:
                assert one.sparsity > 0
                assert family_of(one.pattern).sparsity_of(kept, one.pattern) > 0
                if not isinstance(family, BlockwiseFamily):  # there zeros may lie inside kept blocks
                    assert family.violation(kept, one.pattern) is None
            # Layer-wide masks may be uniform by chance, and large blocks are made of smaller ones.
            inside = pattern.nm in (None, (2, 4))  # no tiles with other N:M are looked for
            sizes = {one.pattern.group_out for one in found}
            assert pattern.group_out in sizes or not inside, pattern

    def test_a_weight_without_zeros_shows_nothing(self):
        for family in all_families().values():
            assert family.find(np.ones((32, 16, 3, 3), np.float32)) == ()

    def test_what_embeds_another_can_keep_all_that_it_keeps(self):
        shape = (32, 32, 1, 1)
        patterns = [p for p in offered(shape) if p.family not in ("tw", "tvw", "window")]
        proved = 0
        for finer, coarser in itertools.product(patterns, patterns):
            for one, other in itertools.product((0.25, 0.5, 0.75), (0.25, 0.5, 0.75)):
                if family_of(finer).why_not_sparsity(finer, one):
                    continue
                if family_of(coarser).why_not_sparsity(coarser, other):
                    continue
                pair = [
                    (p, family_of(p).kept(p, shape, s)) for p, s in ((finer, one), (coarser, other))
                ]
                if not is_at_least_as_accurate(*pair, shape):
                    continue
                target = family_of(coarser).random(coarser, shape, other, np.random.default_rng(1))
                able = mask(target.astype(np.float32), finer, one)
                assert not (target & ~able).any(), (finer.name, one, coarser.name, other)
                proved += finer != coarser
        assert proved > 50

    def test_units_are_shaped_as_scores_and_spread_over_the_weight(self):
        shape = (20, 18, 3, 3)
        for pattern in offered(shape):
            if not isinstance(family_of(pattern), UnitFamily):
                with pytest.raises(PlanError, match="follow from the weights"):
                    unit_family_of(pattern)
                continue
            family = unit_family_of(pattern)
            units = np.random.default_rng(3).random(family.units(pattern, shape)) < 0.5
            spread = family.expand(units, shape, pattern)
            assert np.array_equal(family.reduce(spread, pattern), units)
            for criterion in CRITERIA:
                scores = family.scores(weight_of(shape), pattern, criterion)
                assert scores.shape == units.shape and scores.dtype == np.float64

    def test_masks_keep_whole_units_of_their_groups_and_nothing_else(self):
        for shape, pattern in ((s, p) for s in ((20, 18, 3, 1), (12, 33)) for p in offered(s)):
            family = family_of(pattern)
            sparsity = next(s for s in (0.5, 0.75) if not family.why_not_sparsity(pattern, s))
            flat = family.random(pattern, shape, sparsity, np.random.default_rng(3)).reshape(
                shape[0], -1
            )
            alive = flat.any(axis=1)
            left = np.arange(shape[0]) if pattern.split == "inputs" else np.flatnonzero(alive)
            tiled = pattern.family in ("tw", "tvw")
            groups = family.groups(pattern, shape, left.astype(np.int32) if tiled else None)
            rest = flat.copy()
            for group in groups:
                assert (np.diff(group.outputs) > 0).all()
                assert group.outputs.dtype == group.units.dtype == np.int32
                columns = group.units[group.units >= 0]
                assert np.array_equal(np.sort(columns), np.arange(flat.shape[1])), pattern
                for unit in group.units if pattern.nm is None or not tiled else ():
                    inside = flat[np.ix_(group.outputs, unit[unit >= 0])]
                    assert inside.all() or not inside.any(), pattern
                rest[group.outputs] = False
            assert not rest.any()

    def test_every_family_prunes_as_its_source_does_by_hand(self):
        for family in all_families().values():
            examples = family.worked()
            assert examples
            for one in examples:
                assert family_of(one.pattern) is family and one.source
                kept = mask(one.weight, one.pattern, one.sparsity, criterion=one.criterion)
                assert np.array_equal(kept, one.mask), (one.pattern.name, kept)
                check(one.mask, one.pattern)
                found = [each.pattern for each in family.find(one.weight * one.mask)]
                assert one.pattern in found or one.pattern.is_dense, (one.pattern.name, found)

    def test_criteria_that_a_family_refuses_are_named_beforehand(self):
        shape = (20, 18, 3, 3)
        for pattern, criterion in itertools.product(offered(shape), CRITERIA):
            sparsity = next(
                s for s in (0.5, 0.75) if not family_of(pattern).why_not_sparsity(pattern, s)
            )
            why = why_not_criterion(pattern, criterion)
            if why:
                assert not isinstance(family_of(pattern), UnitFamily)
                with pytest.raises(PlanError, match=f"but got {criterion}"):
                    mask(weight_of(shape), pattern, sparsity, criterion=criterion)
            else:
                check(mask(weight_of(shape), pattern, sparsity, criterion=criterion), pattern)
        assert "one of l1, l2, bpar" in why_not_criterion(onexn(4), "magic")

    def test_a_weight_that_is_not_a_number_is_kept_longest(self):
        for pattern in offered((20, 18, 1, 1)):
            if pattern.family == "window":
                continue
            weight = weight_of((20, 18, 1, 1))
            weight[7, 5] = np.nan
            sparsity = next(
                s for s in (0.5, 0.75) if not family_of(pattern).why_not_sparsity(pattern, s)
            )
            assert mask(weight, pattern, sparsity)[7, 5], pattern.name

    def test_ranks_order_sizes_and_kinds_tell_families_apart(self):
        shape = (64, 64, 3, 3)
        for family in all_families().values():
            ranks = [family.rank(pattern) for pattern in family.grid(shape)]
            assert ranks == sorted(ranks)
        kinds = {family_of(p).kind(p) for p in (onexn(8), onexn(16), parse_pattern("block8"))}
        assert len(kinds) == 2


def test_blocks_hold_against_loops():
    rng = np.random.default_rng(2)
    weight = rng.standard_normal((10, 7, 2, 2)).astype(np.float32)
    pattern = parse_pattern("block4")
    kept = mask(weight, pattern, 0.5)
    sizes = [[float(np.abs(weight[o : o + 4, i : i + 4]).sum()) for i in (0, 4)] for o in (0, 4, 8)]
    for row, o in zip(sizes, (0, 4, 8), strict=True):
        best = (0, 4)[int(np.argmax(row))]
        for i in (0, 4):
            assert kept[o : o + 4, i : i + 4].all() == (i == best)
            assert kept[o : o + 4, i : i + 4].any() == (i == best)
    family = family_of(pattern)
    assert family.kept(pattern, weight.shape, 0.5) == 1
    # The least that one block of every group can be: the short run of three inputs.
    assert family.kept_weights(pattern, weight.shape, 1) == 10 * 3 * 4
    assert family.contract(pattern) == Contract("onexn", 4)
    assert "larger than the layer's 7" in family.why_not(parse_pattern("block8"), (10, 7, 2, 2))


def test_half_pruned_blocks_are_named():
    kept = mask(weight_of((16, 16)), parse_pattern("block8"), 0.5)
    kept[3, 0] = ~kept[3, 0]
    with pytest.raises(PlanError, match="group 0 of block8 has a block that is only partly pruned"):
        check(kept, parse_pattern("block8"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"family": "block", "group_out": 8}, "as many outputs as inputs"),
        ({"group_out": 8, "unit_in": 2}, "one input wide, not runs of 2"),
        ({"group_out": 8, "order": "shuffled"}, "not a shuffled one"),
        ({"family": "blok", "group_out": 8}, "did you mean 'block'"),
        ({"group_out": 8, "split": "inputs"}, "nothing to split by inputs"),
        ({"family": "nm", "group_out": 1}, "nm is None"),
        ({"family": "nm", "group_out": 1, "nm": (4, 4)}, r"nm is \(4, 4\)"),
        ({"family": "nm", "group_out": 2, "nm": (2, 4)}, "for every output by itself"),
        ({"family": "filter", "group_out": 1}, "one way to rank whole outputs"),
        (
            {"family": "unstructured", "group_out": 8, "uniform": False},
            "one way to rank single weights",
        ),
        ({"family": "tw", "group_out": 8}, "order of surviving outputs"),
        ({"family": "tw", "group_out": 8, "order": "rsc", "nm": (2, 4)}, "N:M inside is of tvw alone"),
        (
            {"family": "tw", "group_out": 8, "order": "rsc", "split": "odd"},
            "one of even, inputs, but got odd",
        ),
        ({"family": "tvw", "group_out": 8, "order": "rsc"}, "nm is None"),
    ],
)
def test_patterns_without_sense_are_refused(values, message):
    with pytest.raises(PlanError, match=message):
        family_of(Pattern(**values))


NO_NAMES = ["", "1x0", "1x", "block", "block0", "16x1", "dense@", "1x16@", "4:4", "0:4", "tw", "tw64k1"]
NO_NAMES += [
    "tw64-inputs-ranked",
    "tw64-even",
    "tvw64-2:4",
    "tvw64-4:2",
    "tw64+2:4",
    "inputs",
    "window",
]


@pytest.mark.parametrize("name", NO_NAMES)
def test_names_that_no_family_knows_are_refused(name):
    with pytest.raises(PlanError, match=r"a pattern must be one|label must be"):
        parse_pattern(name)
    with pytest.raises(PlanError):
        parse_label("1x16@much")


def test_old_json_and_old_ids_are_what_they_were():
    old = {"group_out": 16, "unit_in": 1, "uniform": True, "order": "natural", "nm": None}
    assert Pattern.from_json(old) == onexn(16) and onexn(16).to_json() == old
    assert "split" not in parse_pattern("tw64").to_json()
    assert Pattern.from_json(old | {"group_out": 0}) == DENSE
    plan = Plan(
        model="resnet18",
        layers={
            "layer1.0.conv1": LayerChoice(pattern=onexn(16), sparsity=0.75),
            "fc": LayerChoice(),
            "layer1.0.conv2": LayerChoice(pattern=onexn(8, uniform=False), sparsity=0.5, kernel="k"),
        },
    )
    assert plan.id == "f186f824"


def test_a_layer_gives_the_extents_that_families_ask_for():
    layer = LayerShape(
        op="conv2d",
        batch_size=2,
        in_channels=24,
        out_channels=32,
        groups=2,
        kernel=(3, 5),
        in_width=9,
        in_height=9,
    )
    assert layer.weight_shape == (32, 12, 3, 5)
    assert math.prod(layer.weight_shape) == layer.weights
