"""Every model of the zoo, masked at random, against torch."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from autosparse import models
from autosparse.engine import CompiledModel

CASES = ((1, 37, 53), (3, 33, 32))
# Of many weights or layers: one case is enough.
HEAVY = ("vgg16_bn", "resnet34", "resnet50", "resnet56")
NAMES = [
    pytest.param(name, marks=pytest.mark.long) if name == "vgg16_bn" else name  # 134 million weights
    for name in models.names()
]


@pytest.mark.usefixtures("largest_blocks")
@pytest.mark.parametrize("name", NAMES)
def test_zoo_model_agrees_with_torch(
    name: str,
    check: Callable[..., CompiledModel],
    stir: Callable[..., nn.Module],
    prune: Callable[..., nn.Module],
) -> None:
    dense = stir(models.resolve(name, classes=10, seed=1).module)
    for index, (batch, height, width) in enumerate(CASES[: 1 if name in HEAVY else None]):
        module = dense if name in HEAVY else copy.deepcopy(dense)
        prune(module, seed=index, share=0.8)
        x = torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(index))
        model = check(module, (x,))
        weights = {n.removesuffix(".weight") for n, p in module.named_parameters() if p.dim() >= 2}
        assert {layer.name for layer in model.layers} == weights
        assert any(layer.pattern != "dense" for layer in model.layers)
