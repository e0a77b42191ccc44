"""A small network, and one of each method over it, for tests of masks that move."""

from __future__ import annotations

import torch
from torch import nn

from autosparse.train.methods.latent import MaskedLayers
from autosparse.train.methods.method import method_named


def small_net(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(6, 20, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(20, 16, 1),
        nn.Flatten(),
        nn.Linear(16 * 16, 10),
    )


def open_method(net, plan, recipe):
    kind = method_named(recipe.method)
    return kind(MaskedLayers(net, plan), recipe.rules, epochs=recipe.epochs, seed=recipe.seed)


def no_probe(batches):
    raise AssertionError("nothing here looks at gradients")


def shake(net, seed):
    """Stands for an epoch of training: moves all latent weights."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.3 * p.std() * torch.randn(p.shape, generator=generator))
