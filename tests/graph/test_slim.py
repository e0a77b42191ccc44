"""Networks of fewer channels: as many operations as were asked for, and the strongest channels."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autosparse import models
from autosparse.errors import UsageError
from autosparse.graph import capture_layers
from autosparse.graph.slim import slimmed

X = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def flops(module: nn.Module, x: torch.Tensor = X) -> int:
    return sum(layer.shape.flops for layer in capture_layers(module, (x,)) if layer.shape)


class Dense(nn.Module):
    """Channels of two layers side by side, as in a DenseNet, and a depthwise convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 16, 3, padding=1)
        self.two = nn.Conv2d(16, 24, 3, padding=1)
        self.norm = nn.BatchNorm2d(40)
        self.depthwise = nn.Conv2d(40, 40, 3, groups=40)
        self.out = nn.Linear(40, 7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.one(x)
        both = self.norm(torch.cat([first, self.two(first.relu())], 1))
        return self.out(self.depthwise(both).mean((2, 3)))  # type: ignore[no-any-return]


@torch.no_grad()
@pytest.mark.parametrize("share", [0.9, 0.5, 0.3])
def test_it_has_as_many_operations_as_were_asked_for(share: float) -> None:
    module = Dense().eval()
    whole = flops(module)
    slim, told = slimmed(module, (X,), int(share * whole), multiple=1)
    assert told == pytest.approx(flops(slim), abs=1)
    assert 0.8 * share * whole < flops(slim) <= share * whole
    assert slim(X).shape == (2, 7) and module(X).shape == (2, 7)
    assert (
        slim.depthwise.groups == slim.norm.num_features == slim.one.out_channels + slim.two.out_channels
    )


@torch.no_grad()
def test_the_channels_that_stay_compute_what_they_did() -> None:
    module = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 4, 3)).eval()
    module[0].weight[1::2] = 0  # weak, and of no consequence
    module[0].bias[1::2] = 0  # type: ignore[index]
    slim, _ = slimmed(module, (X,), flops(module) // 2)
    assert slim[0].out_channels == 8 and slim[2].out_channels == 4
    torch.testing.assert_close(slim(X), module(X))


@torch.no_grad()
def test_a_residual_network_keeps_its_streams_together() -> None:
    module = models.resolve("resnet18").module.eval()
    x = torch.randn(1, 3, 64, 64)
    slim, _ = slimmed(module, (x,), flops(module, x) // 4)
    assert (
        slim.layer1[0].conv2.out_channels
        == slim.layer1[1].conv2.out_channels
        == slim.conv1.out_channels
    )
    assert all(part.out_channels % 8 == 0 for part in slim.modules() if isinstance(part, nn.Conv2d))
    assert slim(x).shape == module(x).shape
    assert module.conv1.out_channels == 64


def test_further_than_can_be_pruned_is_refused() -> None:
    with pytest.raises(UsageError, match=r"at least .* M; prune less"):
        slimmed(Dense().eval(), (X,), 1000)
