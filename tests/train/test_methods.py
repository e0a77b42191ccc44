"""Laws of the methods besides SUBP: when masks move, what pruned weights feel, what a resume keeps."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from autosparse.errors import PlanError, UsageError
from autosparse.patterns import check, mask, parse_pattern
from autosparse.plans.plan import Plan
from autosparse.records import LayerChoice, onexn
from autosparse.train.methods.method import all_methods, method_named
from autosparse.train.methods.runs import Runs
from autosparse.train.methods.tvw import runs_inside
from autosparse.train.methods.tw import with_apriori
from autosparse.train.recipes import Recipe

sys.path.insert(0, str(Path(__file__).parent))
from small_net import no_probe, open_method, shake, small_net

EPOCHS = 20


def plan_of(**layers):
    named = {name.lstrip("_"): label for name, label in layers.items()}
    choices = {
        name: LayerChoice(pattern=parse_pattern(pattern), sparsity=sparsity)
        for name, (pattern, sparsity) in named.items()
    }
    return Plan(model="small", layers=choices)


BLOCKS = plan_of(_0=("1x8", 0.5), _2=("1x4-layerwide", 0.7))
TILES = plan_of(_0=("tw4", 0.75), _2=("tw8-ranked", 0.5), _4=("tw4-inputs", 0.5))
VECTORS = plan_of(_0=("tvw4", 0.75), _2=("tvw8", 0.5))
NM = plan_of(_2=("2:4", 0.5), _4=("1:4", 0.75))


def recipe_of(method, **settings):
    return Recipe(kind="full", epochs=EPOCHS, method=method, settings=settings)


def run(recipe, plan, epochs=EPOCHS, probe=no_probe):
    net = small_net()
    method = open_method(net, plan, recipe)
    history = []
    for epoch in range(epochs):
        changed = method.start_epoch(epoch, probe)
        history.append((changed, method.layers.masks()))
        shake(net, epoch)
    return method, history


def weights_kept(masks):
    return [float(kept.float().mean()) for kept in masks.values()]


def backward(net, method, seed=0):
    images = torch.randn(4, 6, 4, 4, generator=torch.Generator().manual_seed(seed))
    with method.layers.masked():
        net(images).square().sum().backward()


def test_every_file_is_a_method_and_a_wrong_name_is_told():
    assert {"dense", "gmp", "onexn", "srste", "subp", "tvw", "tw"} <= set(all_methods())
    with pytest.raises(UsageError, match="did you mean 'srste'"):
        method_named("sr-ste")


@pytest.mark.parametrize("name", sorted(all_methods()))
def test_settings_travel_and_defaults_are_complete(name):
    kind = method_named(name)
    settings = kind.Settings()
    assert kind.Settings.from_json(settings.to_json()) == settings
    recipe = Recipe(kind="full", epochs=30, method=name)
    assert recipe.settings == settings.to_json()
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert recipe.phases()[0].start == 0
    assert 0 <= recipe.first_final_epoch < 30


class TestDense:
    def test_it_changes_nothing_and_refuses_zeros(self):
        empty = Plan(model="small", layers={"0": LayerChoice(pattern=onexn(8), sparsity=0.0)})
        _, history = run(recipe_of("dense"), empty)
        assert all(changed == 0 and masks["0"].all() for changed, masks in history)
        with pytest.raises(PlanError, match=r"without zeros, but 0 shall be 1x8@0\.5"):
            open_method(small_net(), BLOCKS, recipe_of("dense"))


class TestOneShot:
    def test_it_prunes_once_by_the_trained_weights(self):
        _, history = run(recipe_of("onexn", pretrain=0.5), BLOCKS)
        net = small_net()
        for epoch in range(10):
            shake(net, epoch)
        for epoch, (changed, masks) in enumerate(history):
            assert (changed > 0) == (epoch == 10)
            for name, choice in BLOCKS.layers.items():
                weight = net.get_submodule(name).weight.detach().numpy()
                expected = mask(weight, choice.pattern, choice.sparsity)
                assert np.array_equal(masks[name], expected) == (epoch >= 10)

    def test_pruned_weights_feel_nothing(self):
        net = small_net()
        method = open_method(net, BLOCKS, recipe_of("onexn"))
        method.start_epoch(0, no_probe)
        backward(net, method)
        assert (net[0].weight.grad[~method.layers.masks()["0"]] != 0).any()
        method.shape_gradients()
        for name, kept in method.layers.masks().items():
            grad = net.get_submodule(name).weight.grad
            assert (grad[~kept] == 0).all() and (grad[kept] != 0).any()

    def test_the_learning_rate_begins_anew_after_the_shot(self):
        recipe = recipe_of("onexn", pretrain=0.5, finetune_lr=0.1, finetune_warmup_epochs=1.0)
        rates = [recipe.lr_at(epoch, 5, 10) for epoch in range(EPOCHS)]
        assert all(a > b for a, b in itertools.pairwise(rates[:10]))
        assert rates[9] < 0.01 * recipe.lr < rates[10] <= max(rates[10:]) <= 0.1 * recipe.lr
        assert all(a > b for a, b in itertools.pairwise(rates[11:]))
        assert recipe_of("onexn").lr_at(0, 0, 10) == pytest.approx(0.1 * 0.1)


class TestGradual:
    def test_masks_only_shrink_and_end_at_the_plan(self):
        for plan in (BLOCKS, TILES):
            _, history = run(recipe_of("gmp", ramp_start=0.1, ramp_end=0.6), plan)
            assert all(kept.all() for kept in history[2][1].values())
            for (_, before), (_, after) in itertools.pairwise(history[:12]):
                assert all((after[name] & ~before[name]).sum() == 0 for name in plan.layers)
            for name, choice in plan.layers.items():
                check(history[12][1][name].numpy(), choice.pattern)
                assert all(torch.equal(masks[name], history[12][1][name]) for _, masks in history[12:])

    def test_sparsity_rises_early(self):
        settings = recipe_of("gmp", ramp_start=0.0, ramp_end=0.5).rules
        assert settings.enforced(5, EPOCHS) == pytest.approx(1 - 0.5**3)
        assert settings.enforced(0, EPOCHS) == 0 and settings.enforced(10, EPOCHS) == 1

    def test_patterns_of_one_sparsity_are_refused(self):
        with pytest.raises(PlanError, match="any sparsity, but 2 shall be 2:4"):
            open_method(small_net(), NM, recipe_of("gmp"))


class TestSrste:
    @pytest.mark.smoke
    def test_masks_follow_the_latent_weights_in_every_step(self):
        net = small_net()
        method = open_method(net, NM, recipe_of("srste"))
        method.start_epoch(0, no_probe)
        seen = []
        for step in range(4):
            shake(net, step)
            method.start_step()
            masks = method.layers.masks()
            seen.append(masks)
            for name, choice in NM.layers.items():
                weight = net.get_submodule(name).weight.detach().numpy()
                assert np.array_equal(masks[name], mask(weight, choice.pattern, choice.sparsity))
        assert not torch.equal(seen[0]["2"], seen[3]["2"])

    def test_other_patterns_are_chosen_every_few_steps(self):
        net = small_net()
        method = open_method(net, BLOCKS, recipe_of("srste", every=3))
        method.start_epoch(0, no_probe)
        stood = []
        for step in range(7):
            shake(net, step)
            before = method.layers.checksum()
            method.start_step()
            stood.append(before == method.layers.checksum())
        assert stood == [False, True, True, False, True, True, False]

    def test_gradients_are_straight_through_plus_the_pull(self):
        net = small_net()
        method = open_method(net, NM, recipe_of("srste", decay=0.05))
        method.start_epoch(0, no_probe)
        backward(net, method)
        before = net[2].weight.grad.clone()
        method.shape_gradients()
        kept = method.layers.masks()["2"]
        expected = before + 0.05 * net[2].weight * ~kept
        torch.testing.assert_close(net[2].weight.grad, expected)
        assert (before[~kept] != 0).any()

    @pytest.mark.parametrize("label", ["1:4", "2:4", "1:2", "4:8"])
    def test_runs_on_a_tensor_choose_what_the_pattern_chooses(self, label):
        pattern = parse_pattern(label)
        net = torch.nn.Conv2d(8, 5, 3, bias=False)
        with torch.no_grad():
            net.weight[0, :4, 0, 0] = 1.0  # equal ones
            net.weight[1] = 0.0
        plan = Plan(
            model="m",
            layers={"0": LayerChoice(pattern=pattern, sparsity=1 - pattern.nm[0] / pattern.nm[1])},
        )
        method = open_method(torch.nn.Sequential(net), plan, recipe_of("srste"))
        method.start_step()
        expected = mask(net.weight.detach().numpy(), pattern, plan.layers["0"].sparsity)
        assert np.array_equal(method.layers.masks()["0"], expected)


class TestTiles:
    def test_stages_rise_and_the_last_is_the_plan(self):
        recipe = recipe_of("tw", stages=(0.4, 0.8, 1.0), pretrain=0.25, last=0.25, apriori=0.0)
        assert recipe.rules.starts(EPOCHS) == (5, 10, 15)
        _, history = run(recipe, TILES)
        kept = [weights_kept(masks) for _, masks in history]
        assert all(part == 1 for part in kept[4])
        for epoch in (5, 10, 15):
            assert history[epoch][0] > 0
            pairs = zip(kept[epoch - 1], kept[epoch], strict=True)
            assert all(after < before for before, after in pairs)
        assert sum(changed > 0 for changed, _ in history) == 3
        for name, choice in TILES.layers.items():
            check(history[-1][1][name].numpy(), choice.pattern)

    def test_what_regrouped_tiles_bring_back_comes_back_as_zero(self):
        net = small_net()
        method = open_method(net, TILES, recipe_of("tw"))
        revived = 0
        for epoch in range(EPOCHS):
            before = method.layers.masks()
            method.start_epoch(epoch, no_probe)
            for name, kept in method.layers.masks().items():
                weight = net.get_submodule(name).weight
                assert (weight[~kept] == 0).all()
                back = kept & ~before[name]
                assert (weight[back] == 0).all()
                revived += int(back.sum())
            with torch.no_grad():
                for layer in method.layers:
                    layer.weight.mul_(1 + 0.5 * torch.rand(layer.shape) * layer.mask)
        assert revived > 0

    def test_stages_that_fall_together_prune_at_once(self):
        recipe = dataclasses.replace(recipe_of("tw"), epochs=1)
        assert recipe.rules.starts(1) == (0, 0, 0, 0)
        assert recipe.rules.enforced(0, 1) == 1.0 and recipe.first_final_epoch == 0

    def test_taylor_scores_decide_where_they_are_asked_for(self):
        generator = np.random.default_rng(3)
        shapes = {"0": (20, 6, 3, 3), "2": (16, 20, 1, 1), "4": (10, 256)}
        scores = {name: generator.random(shape) for name, shape in shapes.items()}
        asked = []

        def probe(batches):
            asked.append(batches)
            return scores

        recipe = recipe_of("tw", score="taylor", taylor_batches=7, apriori=0.0)
        _, history = run(recipe, TILES, probe=probe)
        assert asked == [7] * 4
        for name, choice in TILES.layers.items():
            expected = mask(scores[name], choice.pattern, choice.sparsity)
            assert np.array_equal(history[-1][1][name], expected)

    def test_apriori_tuning_decides_both_ends_by_the_mask_of_single_weights(self):
        pattern = parse_pattern("tw4-inputs")
        scores = np.full((4, 20), 0.2)
        scores[:, :10] += np.linspace(0, 0.01, 10)
        scores[0, 3] = 10.0  # alone strong enough for its unit, though most of the unit is weak
        scores[:, 19] = [0.4, 0.4, 0.4, 0.0]  # three of four survive single-weight pruning
        # With one place, the unit of most surviving weights is protected, not the strongest.
        assert np.flatnonzero(mask(scores, pattern, 0.95)[0]).tolist() == [3]
        tuned = mask(with_apriori(scores, pattern, 0.95, 0.05), pattern, 0.95)
        left = scores >= np.sort(scores, axis=None)[int(0.95 * scores.size)]
        assert np.flatnonzero(tuned[0]).tolist() == [int(left.mean(axis=0).argmax())] == [19]

    def test_apriori_tuning_keeps_the_counts_and_the_outputs_decided(self):
        generator = np.random.default_rng(0)
        for label in ("tw4", "tw8-ranked", "tw4k2", "1x4", "filter"):
            pattern, scores = parse_pattern(label), generator.random((24, 12, 3, 3))
            for sparsity in (0.0, 0.3, 0.75, 1.0):
                kept = mask(with_apriori(scores, pattern, sparsity, 0.1), pattern, sparsity)
                check(kept, pattern)
                if pattern.uniform or pattern.family == "filter":
                    assert kept.sum() == mask(scores, pattern, sparsity).sum()


class TestVectors:
    def test_tiles_come_first_and_two_of_four_kept_inputs_last(self):
        recipe = recipe_of("tvw", last=0.25)
        method, history = run(recipe, VECTORS)
        for _, masks in history[:15]:
            kept = masks["2"].reshape(16, -1)
            assert kept.all()  # at 50 % nothing is left for tiles to prune
        for name, choice in VECTORS.layers.items():
            kept = method.layers.masks()[name]
            check(kept.numpy(), choice.pattern)
            weight = small_net().get_submodule(name).weight
            least = 1 - choice.sparsity
            assert float(kept.float().mean()) == pytest.approx(least, abs=4 / weight[0].numel() + 0.06)

    def test_inside_of_tiles_masks_move_with_every_step_and_outside_never(self):
        net = small_net()
        method = open_method(net, VECTORS, recipe_of("tvw", last=0.25))
        for epoch in range(16):
            method.start_epoch(epoch, no_probe)
        outside = ~method.state()["tiles"]["0"]
        first = method.layers.masks()["0"]
        shake(net, 3)
        method.start_step()
        second = method.layers.masks()["0"]
        assert not torch.equal(first, second)
        assert not (second & outside).any()
        backward(net, method)
        method.shape_gradients()
        grad = net[0].weight.grad
        assert (grad[outside] == 0).all()
        assert (grad[~outside & ~second] != 0).any()  # straight through, inside

    def test_tiles_with_nothing_inside_are_pruned_as_by_tw(self):
        (one, _), (other, _) = (run(recipe_of(name), TILES) for name in ("tw", "tvw"))
        first, second = one.layers.masks(), other.layers.masks()
        assert first.keys() == second.keys()
        assert all(np.array_equal(first[name], second[name]) for name in first)

    def test_it_wants_tiles(self):
        with pytest.raises(PlanError, match=r"tvw takes tiles.*0 shall be 1x8@.*; take tw"):
            open_method(small_net(), BLOCKS, recipe_of("tvw"))
        with pytest.raises(PlanError, match="take srste"):
            open_method(small_net(), NM, recipe_of("tw"))

    def test_runs_inside_follow_the_kept_columns_in_the_order_of_kernels(self):
        pattern = parse_pattern("tvw2")
        tiles = np.zeros((3, 3, 1, 2), dtype=bool)  # columns (input, tap); kernels read taps outermost
        tiles[:2, [0, 2], 0, 0] = True
        tiles[:2, [0, 1, 2], 0, 1] = True
        tiles[2, 1] = True
        found = runs_inside(tiles, pattern, 4)
        # Flattened [outputs, inputs * taps]: column = 2 * input + tap; tap 0 first.
        expected = [
            [0, 4, 1, 3],
            [5, -1, -1, -1],
            [6, 10, 7, 9],
            [11, -1, -1, -1],
            [14, 15, -1, -1],
        ]
        assert found.tolist() == expected
        weight = torch.arange(18.0).reshape(3, 3, 1, 2)
        kept = Runs(found, 2, weight).mask(weight).reshape(-1)
        assert torch.nonzero(kept).reshape(-1).tolist() == [3, 4, 5, 9, 10, 11, 14, 15]


@pytest.mark.parametrize(
    ("method", "plan"),
    [("gmp", BLOCKS), ("onexn", BLOCKS), ("srste", NM), ("tw", TILES), ("tvw", VECTORS), ("subp", NM)],
)
def test_a_restored_method_goes_on_as_if_nothing_happened(method, plan):
    recipe = recipe_of(method)
    whole, _ = run(recipe, plan)
    for stop in (1, 9, 17):
        net = small_net()
        first = open_method(net, plan, recipe)
        for epoch in range(stop):
            first.start_epoch(epoch, no_probe)
            shake(net, epoch)
        second = open_method(net, plan, recipe)
        second.restore(first.state())
        for epoch in range(stop, EPOCHS):
            second.start_epoch(epoch, no_probe)
            shake(net, epoch)
        assert second.layers.checksum() == whole.layers.checksum()


@pytest.mark.parametrize(
    ("method", "settings", "rule"),
    [
        ("onexn", {"pretrain": 1.0}, r"pretrain must lie in \[0, 1\)"),
        ("onexn", {"finetune_lr": 0.0}, "finetune_lr must be above 0"),
        ("gmp", {"ramp_start": -0.1}, "ramp_start must lie in"),
        ("srste", {"every": 0}, "every must be at least 1"),
        ("tw", {"stages": (0.5, 0.4, 1.0)}, "stages must rise"),
        ("tw", {"stages": (0.5, 0.9)}, "stages must rise"),
        ("tw", {"apriori": 0.5}, "apriori must lie in"),
        ("tw", {"score": "size"}, "one of magnitude, taylor"),
        ("tvw", {"decay": -1.0}, "decay must be at least 0"),
        ("dense", {"tau": 1.0}, "no field 'tau'"),
    ],
)
def test_settings_out_of_range_are_refused(method, settings, rule):
    with pytest.raises(UsageError, match=rule):
        recipe_of(method, **settings)
