"""Recipes: rules, learning rates of every schedule, files and presets."""

from __future__ import annotations

import dataclasses

import pytest

from autosparse.data.raw import Augmentation
from autosparse.errors import AutosparseError, UsageError
from autosparse.train.presets import PRESETS
from autosparse.train.recipes import Recipe


def recipe_of(**changes):
    return Recipe(kind="full", epochs=20, method="dense", **changes)


def rates_of(recipe, steps=10):
    return [recipe.lr_at(e, s, steps) for e in range(recipe.epochs) for s in range(steps)]


def test_one_cycle_rises_for_three_tenths_and_falls_to_zero():
    rates = rates_of(recipe_of(schedule="one-cycle", lr=0.5))
    assert rates[0] == pytest.approx(0.5 / 25)
    assert max(rates) == pytest.approx(0.5, rel=1e-6) and rates.index(max(rates)) == 60
    assert rates[:60] == sorted(rates[:60]) and rates[60:] == sorted(rates[60:], reverse=True)
    assert rates[-1] < 1e-3


def test_a_constant_rate_stays_after_its_warmup():
    rates = rates_of(recipe_of(schedule="constant", lr=0.2, warmup_epochs=3))
    assert rates[:30] == sorted(rates[:30]) and rates[0] > 0
    assert all(rate == pytest.approx(0.2) for rate in rates[30:])


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_presets_travel_through_files(name, tmp_path):
    recipe = PRESETS[name](45_000, seed=3)
    file = tmp_path / "recipe.yaml"
    recipe.save(file)
    assert Recipe.load(file) == recipe
    assert recipe.seed == 3


def test_the_papers_preset_is_the_releases_own():
    recipe = PRESETS["paper-imagenet"](1_281_167)
    assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.schedule) == (250, 256, 0.1, "cosine")
    assert recipe.first_final_epoch == 180 and recipe.from_scratch
    assert recipe.augmentation == Augmentation(flip=True, crop_area=(0.08, 1.0))
    assert recipe.rules.enforced(10, 250) == 0 < recipe.rules.enforced(11, 250)


def test_a_file_may_leave_out_what_has_a_default_and_is_told_what_is_wrong(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text("kind: short\nepochs: 3\nmethod: onexn\nsettings: {criterion: l2}\nlr: 1\n")
    recipe = Recipe.load(file)
    assert (recipe.lr, recipe.settings["criterion"], recipe.settings["pretrain"]) == (1.0, "l2", 0.0)
    for text, told in [
        ("epochs: 3", "kind"),
        ("kind: short\nepochs: 3\nlearning_rate: 1", "no field 'learning_rate'"),
        ("kind: short\nepochs: 0", "epochs must be at least 1"),
        ("kind: short\nepochs: 3\nsettings: [1]", "settings"),
        ("- 1", "mapping of keys"),
        ("kind: [", "readable YAML"),
    ]:
        file.write_text(text)
        with pytest.raises(UsageError, match=told) as caught:
            Recipe.load(file)
        assert str(file) in str(caught.value)
    with pytest.raises(UsageError, match="No such file"):
        Recipe.load(tmp_path / "none.yaml")


def test_how_images_vary_is_typed_and_checked(tmp_path):
    recipe = recipe_of().with_changes(["augmentation={flip: true, crop_area: [0.5, 1], erase: 0.25}"])
    assert recipe.augmentation == Augmentation(flip=True, crop_area=(0.5, 1.0), erase=0.25)
    assert recipe.id != recipe_of().id
    recipe.save(tmp_path / "recipe.yaml")
    assert Recipe.load(tmp_path / "recipe.yaml") == recipe
    assert "augmentation" not in recipe_of().to_json()  # ids of earlier recipes stay
    for text, rule in (("{crop_area: [0, 1]}", "rising shares"), ("{blur: 1}", "no field 'blur'")):
        with pytest.raises(AutosparseError, match=rule):
            recipe_of().with_changes([f"augmentation={text}"])


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"augment": False, "augmentation": Augmentation()}, "augmentation must be left out"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"batch_size": 64, "accumulate": 3}, "accumulate must divide batch_size"),
        ({"clip_norm": -1.0}, "clip_norm must be at least 0"),
        ({"ema": 1.0}, "ema must lie in"),
        ({"distill": 1.5}, "distill must lie in"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"mixup": float("inf")}, "mixup must be at least 0"),
        ({"schedule": "steps"}, "schedule must be one of"),
        ({"autocast": "fp16"}, "autocast must be one of"),
        ({"optimizer": "lion"}, "optimizer must be one of"),
        ({"kind": "long"}, "kind must be one of"),
        ({"warmup_epochs": 20.0}, "warmup_epochs must be below epochs"),
        ({"label_smoothing": 1.0}, "label_smoothing must lie in"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_value(change, rule):
    with pytest.raises(UsageError, match=rule) as caught:
        dataclasses.replace(recipe_of(), **change)
    assert "but got" in str(caught.value)


def test_changes_set_keys_of_recipe_and_method():
    recipe = PRESETS["full"](45_000)
    changes = ["lr=5e-2", "settings.tau=0.1", "nesterov=true", "settings.ramp=early"]
    changed = recipe.with_changes(changes)
    assert (changed.lr, changed.nesterov) == (0.05, True)
    assert (changed.settings["tau"], changed.settings["ramp"]) == (0.1, "early")
    assert changed.epochs == recipe.epochs and recipe.settings["tau"] == 1.0
    assert recipe.with_changes([]) == recipe
    for change, told in [
        ("lr", "KEY=VALUE"),
        ("lr=fast", "lr .*must be a number"),
        ("tau=0.1", "no field 'tau'"),
        ("settings.lr=0.1", "no field 'lr'"),
        ("epochs=2.5", "whole number"),
        ("settings.tau=[", "KEY=VALUE"),
    ]:
        with pytest.raises(UsageError, match=told):
            recipe.with_changes([change])
