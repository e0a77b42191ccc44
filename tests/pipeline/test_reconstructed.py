"""A search whose accuracies before training are of reconstructed layers, down to its weights."""

from __future__ import annotations

import json

import pytest
from safetensors.torch import load_file

from autosparse import data, models
from autosparse.patterns import check
from autosparse.plans.plan import Plan
from autosparse.train.evaluate import accuracy


@pytest.mark.usefixtures("rows_known")
def test_reported_accuracies_are_those_of_the_weights_that_are_written(shop):
    done = shop.search("--one-shot", "obs", "--train", "none")
    assert done.returncode == 0, done.stderr
    [run] = [p for p in (shop.folder / "results").iterdir() if p.is_dir() and not p.is_symlink()]
    document = json.loads((run / "pareto.json").read_text())
    sparse = [row for row in document["configs"] if row["sparsity"] > 0]
    assert sparse
    images = data.resolve(f"{shop.folder / 'my_data.py'}:load", resolution=12)
    for row in sparse:
        state = load_file(run / row["weights"])
        plan = Plan.load(run / row["plan"])
        for name, choice in plan.layers.items():
            check((state[f"{name}.weight"] != 0).numpy(), choice.pattern)
        source = f"{shop.folder / 'net.py'}:build"
        module = models.resolve(source, classes=10, weights=run / row["weights"])
        assert row["accuracy_kind"] == "one-shot" and row["accuracy_split"] == "test"
        assert accuracy(module.module, images.test) == pytest.approx(row["accuracy"], abs=0.003)
