"""Laws of soft uniform block pruning: counts, ramp, gradients, draws, determinism."""

from __future__ import annotations

import dataclasses
import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from autosparse.errors import PlanError, RunError, UsageError
from autosparse.patterns import CRITERIA, check
from autosparse.plans.plan import Plan
from autosparse.records import LayerChoice, kept_blocks, onexn
from autosparse.train.methods.subp import RAMPS, SubpSettings, choose_units, draw_regrown
from autosparse.train.recipes import Recipe

sys.path.insert(0, str(Path(__file__).parent))
from small_net import no_probe, open_method, shake, small_net

EPOCHS = 25


def recipe_of(**settings):
    return Recipe(kind="full", epochs=EPOCHS, settings=settings)


PLAN = Plan(
    model="small",
    layers={
        "0": LayerChoice(pattern=onexn(8), sparsity=0.5),  # 20 outputs: groups of 8, 8 and 4
        "2": LayerChoice(pattern=onexn(4), sparsity=0.7),
        "4": LayerChoice(pattern=onexn(16), sparsity=0.9),  # 10 outputs: one short group
    },
)


def run(recipe, plan=PLAN, epochs=EPOCHS):
    net = small_net()
    pruner = open_method(net, plan, recipe)
    history = []
    for epoch in range(epochs):
        changed = pruner.start_epoch(epoch, no_probe)
        history.append((changed, pruner.layers.masks(), pruner.layers.sparsity()))
        shake(net, epoch)
    return pruner, history


@pytest.mark.smoke
@pytest.mark.parametrize("ramp", RAMPS)
@pytest.mark.parametrize("criterion", CRITERIA)
def test_every_epoch_is_uniform_and_follows_the_ramp(ramp, criterion):
    recipe = recipe_of(ramp=ramp, criterion=criterion, ramp_start=0.08, ramp_end=0.72)
    _, history = run(recipe)
    for epoch, (_, masks, _) in enumerate(history):
        x = np.clip((epoch - 2) / (18 - 2), 0, 1)
        f = {
            "cubic": x**3,
            "linear": x,
            "cosine": 1 - np.cos(np.pi * x / 2),
            "exponential": (0.05 ** (1 - x) - 0.05) / (1 - 0.05),
            "early": 1 - (1 - x) ** 3,
        }[ramp]
        for name, kept in masks.items():
            choice = PLAN.layers[name]
            inputs = kept.shape[1]
            regrown = int((choice.sparsity - choice.sparsity * f) * inputs + 1e-9)
            expected = kept_blocks(inputs, choice.sparsity) + regrown
            check(kept.numpy(), choice.pattern)
            for start in range(0, kept.shape[0], choice.pattern.group_out):
                group = kept[start : start + choice.pattern.group_out].reshape(
                    -1, inputs, kept[0, 0].numel()
                )
                assert int(group.any(0).any(-1).sum()) == expected


def test_dense_until_the_ramp_starts_exact_and_frozen_after_it_ends():
    _, history = run(recipe_of(ramp_start=0.2, ramp_end=0.6))
    for changed, masks, _ in history[:6]:  # epochs 0 .. 5, the ramp starts at 5
        assert changed == 0 and all(kept.all() for kept in masks.values())
    assert any(changed for changed, _, _ in history[6:15])
    assert history[15][0] > 0  # the ramp ends at epoch 15
    for changed, masks, sparsity in history[16:]:
        assert changed == 0
        assert all(torch.equal(masks[name], history[15][1][name]) for name in masks)
        assert sparsity == {"0": 0.5, "2": 0.7, "4": pytest.approx(230 / 256)}


@pytest.mark.parametrize("criterion", CRITERIA)
def test_scoring_masked_weights_freezes_by_itself_and_scoring_latent_ones_does_not(criterion):
    _, masked = run(recipe_of(criterion=criterion, freeze=False, ramp_end=0.6))
    assert all(changed == 0 for changed, _, _ in masked[16:])
    if criterion == "l1":
        _, latent = run(recipe_of(criterion="l1", freeze=False, score_masked=False, ramp_end=0.6))
        assert any(changed > 0 for changed, _, _ in latent[16:])


def test_ramp_before_the_first_epoch_is_one_shot_pruning():
    net = small_net()
    dense = net[0].weight.detach().clone()
    pruner = open_method(net, PLAN, recipe_of(ramp_start=0.0, ramp_end=0.0, criterion="l1"))
    pruner.start_epoch(0, no_probe)
    kept = pruner.layers.masks()["0"][:, :, 0, 0].numpy()
    for start in (0, 8, 16):
        norms = dense[start : start + 8].abs().sum(dim=(0, 2, 3))
        assert set(np.flatnonzero(kept[start])) == set(norms.topk(3).indices.tolist())


def loss_of(net, images):
    return functional.cross_entropy(net(images), torch.arange(4))


def test_gradients_are_straight_through_plus_the_pull_of_pruned_weights():
    recipe = recipe_of(ramp_start=0, ramp_end=0, decay=0.03)
    net = small_net().double()
    latent = {n: p.detach().clone() for n, p in net.named_parameters()}
    pruner = open_method(net, PLAN, recipe)
    pruner.start_epoch(0, no_probe)
    masks = pruner.layers.masks()
    images = torch.randn(4, 6, 4, 4, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    with pruner.layers.masked():
        assert torch.equal(net[0].weight, latent["0.weight"] * masks["0"])
        loss_of(net, images).backward()
    assert all(torch.equal(p, latent[n]) for n, p in net.named_parameters())
    pruner.shape_gradients()

    other = small_net().double()
    with torch.no_grad():
        for name, kept in masks.items():
            other.get_submodule(name).weight.mul_(kept)
    for name, kept in masks.items():
        weight = other.get_submodule(name).weight
        grad = net.get_submodule(name).weight.grad
        for index in itertools.islice(torch.nonzero(~kept), 6):
            assert_finite_difference(
                other, images, weight, index, grad, 0.03 * latent[f"{name}.weight"]
            )
        for index in itertools.islice(torch.nonzero(kept), 6):
            assert_finite_difference(other, images, weight, index, grad, torch.zeros_like(grad))


def assert_finite_difference(net, images, weight, index, grad, extra):
    at = tuple(index.tolist())
    values = []
    with torch.no_grad():
        before = float(weight[at])
        for step in (1e-5, -1e-5):
            weight[at] = before + step
            values.append(float(loss_of(net, images)))
        weight[at] = before
    assert float(grad[at]) == pytest.approx((values[0] - values[1]) / 2e-5 + float(extra[at]), abs=1e-8)


def test_no_pull_without_decay_and_latent_weights_are_never_zeroed_before_the_end():
    net = small_net()
    pruner = open_method(net, PLAN, recipe_of(ramp_start=0, ramp_end=0, decay=0.0))
    pruner.start_epoch(0, no_probe)
    with pruner.layers.masked():
        net(torch.randn(4, 6, 4, 4)).sum().backward()
    before = net[0].weight.grad.clone()
    pruner.shape_gradients()
    assert torch.equal(before, net[0].weight.grad)
    assert (net[0].weight != 0).all()
    pruner.layers.finish()
    for name, kept in pruner.layers.masks().items():
        assert torch.equal(net.get_submodule(name).weight != 0, kept)


def test_latent_weights_return_when_the_step_fails():
    net = small_net()
    before = net[0].weight.detach().clone()
    pruner = open_method(net, PLAN, recipe_of(ramp_start=0, ramp_end=0))
    pruner.start_epoch(0, no_probe)
    with pytest.raises(RuntimeError, match="boom"), pruner.layers.masked():
        raise RuntimeError("boom")
    assert torch.equal(net[0].weight, before)


def test_regrowth_draws_follow_the_softmax_without_replacement():
    scores = np.array([[0.0, 0.5, 1.0, 2.0]])
    tau = 0.5
    logits = scores[0] / np.linalg.norm(scores[0]) / tau
    q = np.exp(logits) / np.exp(logits).sum()
    expected = {
        pair: q[pair[0]] * q[pair[1]] / (1 - q[pair[0]]) for pair in itertools.permutations(range(4), 2)
    }
    draws = 40_000
    rng = np.random.default_rng(3)
    drawn = draw_regrown(np.repeat(scores, draws, axis=0), 2, tau, rng)
    assert (drawn[:, 0] != drawn[:, 1]).all()
    for pair, probability in expected.items():
        seen = np.mean((drawn[:, 0] == pair[0]) & (drawn[:, 1] == pair[1]))
        assert seen == pytest.approx(probability, abs=4 * np.sqrt(probability / draws))


def test_small_tau_regrows_the_best_and_all_dead_groups_regrow_evenly():
    rng = np.random.default_rng(0)
    assert draw_regrown(np.array([[0.1, 0.9, 0.2]] * 50), 1, 1e-3, rng).ravel().tolist() == [1] * 50
    even = draw_regrown(np.zeros((30_000, 3)), 1, 1.0, rng)
    np.testing.assert_allclose(np.bincount(even.ravel()) / 30_000, 1 / 3, atol=0.012)


def test_without_regrowth_the_ramp_keeps_the_best():
    scores = np.arange(10.0)[None, :]
    kept = choose_units(scores, 0.8, 0.5, SubpSettings(regrow="none"), np.random.default_rng(0))
    assert np.flatnonzero(kept[0]).tolist() == [4, 5, 6, 7, 8, 9]
    drawn = choose_units(scores, 0.8, 0.5, SubpSettings(), np.random.default_rng(1))
    assert drawn.sum() == 6 and drawn[0, 8] and drawn[0, 9]


def test_layerwide_patterns_count_over_the_layer():
    plan = Plan(model="s", layers={"0": LayerChoice(pattern=onexn(8, uniform=False), sparsity=0.5)})
    _, history = run(recipe_of(ramp="linear"), plan)
    for _, masks, _ in history:
        check(masks["0"].numpy(), onexn(8, uniform=False))
    assert history[-1][2] == {"0": 0.5}


def test_masks_depend_on_seed_epoch_and_layer_only():
    first, again = run(recipe_of())[1], run(recipe_of())[1]
    other = run(dataclasses.replace(recipe_of(), seed=1))[1]
    same = [torch.equal(a[1]["2"], b[1]["2"]) for a, b in zip(first, again, strict=True)]
    differ = [not torch.equal(a[1]["2"], b[1]["2"]) for a, b in zip(first, other, strict=True)]
    assert all(same) and any(differ)


def test_a_restored_pruner_goes_on_as_if_nothing_happened():
    recipe = recipe_of()
    whole, history = run(recipe)
    net = small_net()
    pruner = open_method(net, PLAN, recipe)
    for epoch in range(12):
        pruner.start_epoch(epoch, no_probe)
        shake(net, epoch)
    resumed = open_method(net, PLAN, recipe)
    resumed.restore(pruner.state())
    for epoch in range(12, EPOCHS):
        assert resumed.start_epoch(epoch, no_probe) == history[epoch][0]
        shake(net, epoch)
    assert resumed.layers.checksum() == whole.layers.checksum()
    with pytest.raises(RunError, match="must fit the plan"):
        resumed.restore({"masks": {"0": torch.ones(1, dtype=torch.uint8)}})


def test_wrong_plans_and_recipes_are_refused():
    with pytest.raises(PlanError, match="'9'"):
        open_method(small_net(), Plan(model="s", layers={"9": PLAN.layers["0"]}), recipe_of())
    for change, message in [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"lr": float("nan")}, "lr must be above 0"),
        ({"settings": {"ramp_end": 0.99}}, "before the last epoch"),
        ({"settings": {"ramp_start": 0.9}}, "ramp_start"),
        ({"settings": {"tau": 0}}, "tau"),
        ({"settings": {"ramp": "steep"}}, "ramp .*must be one of"),
        ({"settings": {"criterion": "magic"}}, "criterion .*must be one of"),
        ({"settings": {"regrow": "some"}}, "regrow .*must be one of"),
        ({"settings": {"rampstart": 0}}, "no field 'rampstart'"),
        ({"method": "sub"}, "did you mean 'subp'"),
    ]:
        with pytest.raises(UsageError, match=message):
            dataclasses.replace(recipe_of(), **change)


def test_learning_rate_warms_up_and_falls_to_zero():
    recipe = dataclasses.replace(recipe_of(), lr=0.4, warmup_epochs=2)
    rates = [recipe.lr_at(e, s, 10) for e in range(EPOCHS) for s in range(10)]
    assert rates[0] == pytest.approx(0.4 / 21) and max(rates) == pytest.approx(0.4)
    assert rates.index(max(rates)) == 20
    assert all(a > b for a, b in itertools.pairwise(rates[20:]))
    assert rates[-1] < 0.4 * 1e-3
    assert dataclasses.replace(recipe_of(), lr=0.4).lr_at(0, 0, 10) == pytest.approx(0.4)


def test_recipe_travels_as_json():
    recipe = recipe_of(tau=0.1)
    assert Recipe.from_json(recipe.to_json()) == recipe
