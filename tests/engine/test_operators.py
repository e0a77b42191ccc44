"""Every operator of the executor, whole through `compile`, against torch in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autosparse import hardware
from autosparse.engine import CompiledModel, compile
from autosparse.engine.select import BREAK_EVEN

Check = Callable[..., CompiledModel]


class Net(nn.Module):
    """Parts by name and a function over them."""

    def __init__(self, function: Callable[..., Any], **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(self, *inputs)


def image(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


X = image(2, 8, 13, 11)
CONV = {
    "a": nn.Conv2d(8, 24, 3, padding=1),
    "b": nn.Conv2d(8, 24, 1),
    "c": nn.Conv2d(24, 24, 3, padding=1),
}

NETS: dict[str, tuple[nn.Module, tuple[Tensor, ...]]] = {
    "strided": (nn.Conv2d(8, 19, 3, 2, 1), (X,)),
    "wide stride": (nn.Conv2d(8, 19, (5, 3), (3, 2), (2, 0)), (X,)),
    "stem": (nn.Conv2d(3, 64, 7, 2, 3, bias=False), (image(1, 3, 31, 29),)),
    "pointwise": (nn.Conv2d(8, 33, 1), (X,)),
    "dilated": (nn.Conv2d(8, 16, 3, padding=2, dilation=2), (X,)),
    "one pixel": (nn.Conv2d(8, 16, 1), (image(3, 8, 1, 1),)),
    "kernel as large as the image": (nn.Conv2d(8, 16, (13, 11)), (X,)),
    "uneven padding": (nn.Sequential(nn.ZeroPad2d((0, 1, 2, 1)), nn.Conv2d(8, 16, 3)), (X,)),
    "same padding": (nn.Conv2d(8, 16, 4, padding="same"), (X,)),
    "depthwise": (nn.Conv2d(8, 8, 3, 1, 1, groups=8), (X,)),
    "depthwise strided": (nn.Conv2d(8, 16, 5, 2, 2, groups=8), (X,)),
    "depthwise of a wide image": (nn.Conv2d(8, 8, 3, 1, 1, groups=8), (image(3, 8, 5, 37),)),
    "depthwise 3x3 of stride 2": (nn.Conv2d(8, 8, 3, 2, 1, groups=8), (image(2, 8, 34, 41),)),
    "depthwise 5x5": (nn.Conv2d(8, 8, 5, 1, 2, groups=8, bias=False), (image(1, 8, 9, 18),)),
    "depthwise 5x5 of stride 2": (nn.Conv2d(8, 8, 5, 2, (1, 2), groups=8), (image(1, 8, 12, 33),)),
    "depthwise without padding": (
        nn.Sequential(nn.Conv2d(8, 8, 5, groups=8), nn.Hardswish(), nn.Conv2d(8, 8, 3, groups=8)),
        (image(2, 8, 21, 20),),
    ),
    "depthwise with uneven padding": (
        nn.Sequential(nn.ZeroPad2d((0, 1, 2, 1)), nn.Conv2d(8, 8, 3, 2, groups=8), nn.ReLU6()),
        (image(1, 8, 16, 19),),
    ),
    "grouped": (nn.Conv2d(8, 12, 3, padding=1, groups=4), (X,)),
    "linear": (nn.Linear(30, 17), (image(5, 30),)),
    "linear without bias": (nn.Linear(30, 17, bias=False), (image(1, 30),)),
    "max-pool": (nn.MaxPool2d(3, 2, 1), (X,)),
    "max-pool of negatives": (Net(lambda m, x: F.max_pool2d(-F.relu(x) - 1, 3, 2, 1)), (X,)),
    "max-pool ceil": (nn.MaxPool2d(2, 2, ceil_mode=True), (X,)),
    "max-pool dilated": (nn.MaxPool2d(3, 1, dilation=2), (X,)),
    "avg-pool": (nn.AvgPool2d(3, 2, 1), (X,)),
    "avg-pool uncounted": (nn.AvgPool2d(3, 2, 1, count_include_pad=False), (X,)),
    "avg-pool ceil": (nn.AvgPool2d(4, 3, 1, ceil_mode=True), (X,)),
    "global": (nn.AdaptiveAvgPool2d(1), (X,)),
    "global flat": (Net(lambda m, x: x.mean((2, 3))), (X,)),
    "adaptive divisor": (nn.AdaptiveAvgPool2d((13, 1)), (X,)),
    "add": (Net(lambda m, x, y: x + y), (X, image(2, 8, 13, 11, seed=1))),
    "multiply": (Net(lambda m, x, y: x * y), (X, image(2, 8, 13, 11, seed=1))),
    "gate": (Net(lambda m, x: torch.sigmoid(x.mean((2, 3), keepdim=True)) * x), (X,)),
    "concat": (Net(lambda m, x: torch.cat([x, F.relu(x), m.b(x), x], 1), **CONV), (X,)),
    "concat of many": (Net(lambda m, x: torch.cat([x * i for i in range(1, 20)], 1)), (X,)),
    "concat of rows": (Net(lambda m, x: torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1)), (X,)),
    "batch-norm": (nn.BatchNorm2d(8), (X,)),
    "pre-activation": (nn.Sequential(nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3)), (X,)),
    "batch-norm of rows": (
        nn.Sequential(nn.Linear(30, 17), nn.BatchNorm1d(17), nn.ReLU()),
        (image(4, 30),),
    ),
    "relu": (nn.ReLU(), (X,)),
    "relu6": (nn.ReLU6(), (X * 5,)),
    "silu": (nn.SiLU(), (X * 5,)),
    "hardswish": (nn.Hardswish(), (X * 5,)),
    "hardsigmoid": (nn.Hardsigmoid(), (X * 5,)),
    "sigmoid": (nn.Sigmoid(), (X * 20,)),
    "gelu": (nn.GELU(), (X * 5,)),
    "softmax": (nn.Softmax(1), (image(4, 37) * 30,)),
    "softmax of images": (nn.Softmax(1), (X,)),
    "subsample and pad": (Net(lambda m, x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 3, 4))), (X,)),
    "subsample": (Net(lambda m, x: x[:, :, ::3, ::2]), (X,)),
    "flatten": (nn.Sequential(nn.Flatten(), nn.Linear(8 * 13 * 11, 10)), (X,)),
    "flatten and back": (Net(lambda m, x: x.flatten(1)[:, :, None, None]), (X,)),
    "residual": (Net(lambda m, x: F.relu(m.c(y := m.b(x)) + y), **CONV), (X,)),
    "residual of two": (Net(lambda m, x: F.relu6(m.c(m.a(x)) + m.b(x)), **CONV), (X,)),
    "residual of the input": (nn.Sequential(Net(lambda m, x: m.a(x) + x, a=nn.Conv2d(8, 8, 1))), (X,)),
    "one input twice": (Net(lambda m, x: x + x), (X,)),
    "result is the input": (Net(lambda m, x: (x, F.relu(x), x)), (X,)),
    "identity": (nn.Identity(), (X,)),
    "result twice": (Net(lambda m, x: {"a": (y := m.a(x)), "b": [y, y.relu()]}, **CONV), (X,)),
    "normalised input": (Net(lambda m, x: m.a((x - 0.5) / 0.25), **CONV), (X,)),
}
for _name in ("relu", "relu6", "silu", "hardswish", "hardsigmoid", "sigmoid", "gelu"):
    _function = getattr(F, _name)
    NETS[f"conv and {_name}"] = (Net(lambda m, x, f=_function: f(m.a(x)), **CONV), (X,))
    NETS[f"depthwise and {_name}"] = (
        Net(lambda m, x, f=_function: f(m.a(x)), a=nn.Conv2d(8, 8, 3, groups=8)),
        (X,),
    )
    NETS[f"add and {_name}"] = (Net(lambda m, x, f=_function: f(x + x.amax((2, 3), True) * x)), (X,))


@pytest.mark.parametrize("name", NETS)
def test_agrees_with_torch(name: str, check: Check, stir: Callable[..., nn.Module]) -> None:
    net, inputs = NETS[name]
    check(stir(net), inputs)


@pytest.mark.usefixtures("largest_blocks")
@pytest.mark.parametrize("block_n", [1, 2, 4, 8, 16, 32])
@pytest.mark.parametrize("sparsity", [0.5, 0.75, 1.0])
@pytest.mark.parametrize(
    ("conv", "size"),
    [
        (nn.Conv2d(20, 40, 3, padding=1), (7, 9)),
        (nn.Conv2d(20, 37, 1), (5, 5)),
        (nn.Conv2d(16, 32, 3, 2, 1), (14, 13)),
        (nn.Conv2d(16, 33, 5, padding=4, dilation=2), (9, 6)),
    ],
)
def test_sparse_convolutions_agree_with_torch(
    conv: nn.Conv2d,
    size: tuple[int, int],
    block_n: int,
    sparsity: float,
    check: Check,
    prune_blocks: Callable[..., None],
) -> None:
    conv = nn.Conv2d(
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation
    )
    prune_blocks(conv.weight, block_n, sparsity, torch.Generator().manual_seed(block_n))
    model = check(nn.Sequential(conv, nn.ReLU6()), (image(2, conv.in_channels, *size),), threads=1)
    (layer,) = model.layers
    assert layer.pattern != "dense" or sparsity < BREAK_EVEN[block_n]
    assert layer.pattern == "dense" or layer.sparsity == pytest.approx(sparsity, abs=0.05)


@pytest.mark.parametrize("size", [(18, 16), (9, 5), (16, 16), (33, 70)])
def test_planes_of_neighbouring_workers_stay_apart(size: tuple[int, int]) -> None:
    net = Net(lambda m, x: F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 16, 16)))
    x = image(3, 32, *size)
    with compile(net, (x,)) as model:
        assert all(torch.equal(model(x), net(x)) for _ in range(300))


@pytest.mark.smoke
def test_two_threads_give_the_same_bits(
    stir: Callable[..., nn.Module], prune: Callable[..., nn.Module]
) -> None:
    if len(hardware.affinity()) < 2:
        pytest.skip("needs two processors")
    net = nn.Sequential(
        nn.Conv2d(8, 40, 3, padding=1), nn.ReLU(), nn.Conv2d(40, 24, 1), nn.MaxPool2d(2)
    )
    prune(stir(net), 3)
    with compile(net, (X,), threads=1) as one, compile(net, (X,), threads=2) as two:
        assert torch.equal(one(X), two(X))
