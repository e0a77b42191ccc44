"""The bf16 emulation by itself; that compiled models agree with it is tested with the engine."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from autosparse.errors import UsageError
from autosparse.graph import Emulation, Exported, float_tail, fuse, trace
from autosparse.graph.emulate import rounded
from autosparse.kernels.bf16 import round_to_bf16


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    ).eval()


X = torch.randn(4, 3, 9, 7, generator=torch.Generator().manual_seed(1))


def emulation(module: nn.Module, x: torch.Tensor = X) -> Emulation:
    return Emulation(fuse(trace(module, (x,))))


@pytest.mark.smoke
def test_rounding_is_that_of_the_executor() -> None:
    values = np.random.default_rng(0).standard_normal(5000).astype(np.float32)
    ties = np.float32(1) + np.arange(-9, 9, dtype=np.float32) * np.float32(2.0**-8)
    for given in (values, ties, np.array([0.0, -0.0, np.inf, -np.inf, 3e38, 1e-40], np.float32)):
        assert np.array_equal(rounded(torch.from_numpy(given)).numpy(), round_to_bf16(given))


@torch.no_grad()
def test_f16_keeps_more_digits_and_overflows() -> None:
    graph = fuse(trace(net(), (X,)))
    exact, f16, bf16 = net()(X), Emulation(graph, "f16")(X), Emulation(graph)(X)
    assert 0 < (f16 - exact).abs().max() < 0.3 * (bf16 - exact).abs().max()
    large = net()
    large[0].weight.mul_(1e6)
    large[1] = nn.Identity()
    graph = fuse(trace(large, (X,)))
    assert not Emulation(graph, "f16")(X).isfinite().all()
    assert Emulation(graph)(X).isfinite().all()


@torch.no_grad()
def test_every_result_is_rounded_but_the_last_layers() -> None:
    module = net()
    scale = module[1].weight / torch.sqrt(module[1].running_var + module[1].eps)
    kernel = rounded(module[0].weight * scale[:, None, None, None])
    shift = module[1].bias - module[1].running_mean * scale
    hidden = rounded(functional.relu(functional.conv2d(rounded(X), kernel, shift, padding=1)))
    pooled = rounded(hidden.mean((2, 3)))
    expected = functional.linear(pooled, rounded(module[5].weight), module[5].bias)
    found = emulation(module)(X)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)
    assert not torch.equal(found, rounded(found))
    assert (found - module(X)).abs().max() > 1e-5


@torch.no_grad()
def test_a_batch_may_have_any_size() -> None:
    emulated = emulation(net(), X[:2])
    torch.testing.assert_close(emulated(X)[1:2], emulated(X[1:2]), rtol=1e-6, atol=1e-7)


@torch.no_grad()
def test_a_graph_made_again_has_the_weights_of_now() -> None:
    module = net()
    exported = Exported(module, (X,))
    before = Emulation(fuse(exported.graph()))
    first = before(X)
    module[0].weight[:4] = 0.0
    module[1].running_var.fill_(3.0)
    module[1].reset_running_stats()
    module[1].running_mean.add_(0.5)
    torch.testing.assert_close(Emulation(fuse(exported.graph()))(X), emulation(module)(X))
    assert not torch.equal(Emulation(fuse(exported.graph()))(X), first)
    assert torch.equal(before(X), first), "its weights are a copy"


def test_weights_put_in_with_load_state_dict_are_seen_too() -> None:
    module, other = net(), net()
    with torch.no_grad():
        other[5].weight.mul_(2)
    exported = Exported(module, (X,))
    module.load_state_dict(other.state_dict())
    with torch.no_grad():
        assert torch.equal(Emulation(fuse(exported.graph()))(X), emulation(other)(X))


def test_no_tensor_stays_wide_where_a_layer_reads_a_result() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            y = self.a(x)
            return y, self.b(y)

    assert float_tail(fuse(trace(Both(), (X,)))) == frozenset()
    tail = float_tail(fuse(trace(net(), (X,))))
    assert len(tail) == 1


def test_what_the_executor_lacks_cannot_be_emulated() -> None:
    with pytest.raises(UsageError, match=r"bf16 needs .*group_norm.*f32"):
        emulation(nn.Sequential(nn.Conv2d(3, 4, 1), nn.GroupNorm(2, 4)))


@torch.no_grad()
def test_the_weights_of_depthwise_layers_are_rounded_like_all_others() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 6, 3, groups=3, bias=False)).eval()
    expected = functional.conv2d(rounded(X), rounded(module[0].weight), groups=3)
    torch.testing.assert_close(emulation(module)(X), expected, rtol=1e-6, atol=1e-7)
    assert (expected - functional.conv2d(rounded(X), module[0].weight, groups=3)).abs().max() > 1e-4
