"""A trained network on real images keeps most of its accuracy where masking alone destroys it."""

from __future__ import annotations

import pytest
from torch import nn

from autosparse import data, models
from autosparse.patterns import parse_pattern
from autosparse.plans.plan import Plan
from autosparse.plans.pruning import sparsify
from autosparse.reconstruct import ReconstructionSettings, reconstruct, reconstruct_alone
from autosparse.records import LayerChoice
from autosparse.train.evaluate import recalibrate_batchnorm, score


@pytest.fixture(scope="module")
def network(real_data):
    """Gives what makes a trained ResNet-20, the images, and a plan of its inner convolutions."""
    weights = real_data / "cifar10_resnets" / "resnet20-12fca82f.th"
    if not weights.exists():
        pytest.skip(f"AUTOSPARSE_DATA holds no {weights.relative_to(real_data)}")
    images = data.resolve(f"cifar10:{real_data}")

    def make():
        return models.resolve("resnet20", classes=10, weights=weights).module

    inner = [name for name, layer in make().named_modules() if isinstance(layer, nn.Conv2d)][1:]
    choice = LayerChoice(pattern=parse_pattern("1x16"), sparsity=0.5)
    return make, images, Plan(model="resnet20", layers=dict.fromkeys(inner, choice))


def test_reconstruction_without_training(network):
    make, images, plan = network

    def accuracy(model):
        recalibrate_batchnorm(model, images.train, batches=2)
        return score(model, images.test, limit=500).accuracy

    settings = ReconstructionSettings(samples=128, positions=16)
    batches = list(images.train.batches(64, shuffle_seed=0, limit=128))
    masked, alone, pruned = make(), make(), make()
    sparsify(masked, plan)
    choices = {name: [choice] for name, choice in plan.layers.items()}
    reconstruct_alone(alone, choices, batches, settings=settings).stitch(alone, plan)
    reconstruct(pruned, plan, batches, settings=settings)
    found = [accuracy(model) for model in (masked, alone, pruned)]
    assert found[0] + 0.1 < found[1], found
    assert found[1] + 0.02 < found[2], found
