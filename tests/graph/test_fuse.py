"""Fusion: what it joins, what it must leave alone, and that the result computes the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autosparse.graph import Activation, Graph, Op, capture_layers, fuse, layers, trace

Interpret = Callable[..., list[Tensor]]
Stir = Callable[[nn.Module, int], nn.Module]
X = torch.randn(2, 8, 10, 10, generator=torch.Generator().manual_seed(3))


class Block(nn.Module):
    """A residual block with an optional convolution on the shortcut."""

    def __init__(self, shortcut: bool, swapped: bool = False) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(8)
        self.shortcut = nn.Sequential(nn.Conv2d(8, 8, 1), nn.BatchNorm2d(8)) if shortcut else None
        self.swapped = swapped

    def forward(self, x: Tensor) -> Tensor:
        main = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        other = x if self.shortcut is None else self.shortcut(x)
        return F.relu6(other + main if self.swapped else main + other)


class Ways(nn.Module):
    """Two convolutions, joined by a function."""

    def __init__(self, join: Callable[[nn.Module, Tensor], object]) -> None:
        super().__init__()
        self.a = nn.Conv2d(8, 8, 1)
        self.b = nn.Conv2d(8, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.join = join

    def forward(self, x: Tensor) -> object:
        return self.join(self, x)


def fused_and_checked(net: nn.Module, x: Tensor, interpret: Interpret) -> Graph:
    fused = fuse(trace(net, (x,)))
    theirs = net(x.clone())
    theirs = theirs if isinstance(theirs, tuple) else (theirs,)
    for ours, expected in zip(interpret(fused, x), theirs, strict=True):
        scale = expected.abs().max()
        assert (ours - expected.double()).abs().max() < 1e-5 * scale
    return fused


@pytest.mark.smoke
@pytest.mark.parametrize("shortcut", [False, True])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_residual_block_becomes_convolutions_alone(
    shortcut: bool, swapped: bool, interpret: Interpret, stirred: Stir
) -> None:
    fused = fused_and_checked(stirred(Block(shortcut, swapped), 1), X, interpret)
    assert [node.op for node in fused.nodes] == [Op.CONV] * (3 if shortcut else 2)
    last = fused.nodes[-1]
    assert last.layer == "conv2"
    assert last.activation is Activation.RELU6
    made = {node.layer: node.name for node in fused.nodes}
    assert last.residual == (made["shortcut.0"] if shortcut else fused.inputs[0].tensor)


def test_layers_carry_their_epilogue() -> None:
    found = {layer.name: layer.shape for layer in capture_layers(Block(True), (X,))}
    assert list(found) == ["shortcut.0", "conv1", "conv2"] or list(found) == [
        "conv1",
        "shortcut.0",
        "conv2",
    ]
    shape = found["conv2"]
    assert shape is not None
    assert (shape.activation, shape.residual) == ("relu6", True)
    assert found["conv1"] is not None
    assert (found["conv1"].activation, found["conv1"].residual) == ("relu", False)
    assert found["shortcut.0"] is not None
    assert (found["shortcut.0"].activation, found["shortcut.0"].residual) == ("none", False)
    assert shape.key == "conv2d_b2_i8x10x10_o8_k3x3_s1x1_p1x1_d1x1_g1_relu6_res"


KEPT_APART: dict[str, tuple[Callable[..., object], list[Op]]] = {
    "batch-norm of a shared convolution": (
        lambda m, x: m.bn(y := m.a(x)) + y.relu(),
        [Op.CONV, Op.AFFINE, Op.ACTIVATION, Op.ADD],
    ),
    "batch-norm before": (lambda m, x: m.a(m.bn(x).relu()), [Op.AFFINE, Op.CONV]),
    "batch-norm after activation": (lambda m, x: m.bn(m.a(x).relu()), [Op.CONV, Op.AFFINE]),
    "batch-norm after a sum": (lambda m, x: m.bn(m.a(x) + x).relu(), [Op.CONV, Op.AFFINE]),
    "sum after activation": (lambda m, x: m.a(x).relu() + x, [Op.CONV, Op.ADD]),
    "sum with itself": (lambda m, x: (y := m.a(x)) + y, [Op.CONV, Op.ADD]),
    "result is read twice": (lambda m, x: (y := m.a(x), y.relu()), [Op.CONV, Op.ACTIVATION]),
    "second sum": (lambda m, x: m.a(x) + x + m.b(x), [Op.CONV, Op.CONV]),
    "activation of a pool": (lambda m, x: F.max_pool2d(x, 2).relu(), [Op.MAX_POOL, Op.ACTIVATION]),
    "two activations": (lambda m, x: F.relu6(F.silu(m.a(x))), [Op.CONV, Op.ACTIVATION]),
    "two affine maps": (lambda m, x: m.bn(x * 2 + 1) * 3, [Op.AFFINE]),
    "affine map and activation": (lambda m, x: m.bn(x).relu(), [Op.AFFINE]),
    "affine after batch-norm": (lambda m, x: m.bn(m.a(x)) * 0.5 + 1, [Op.CONV]),
    "gate": (lambda m, x: F.relu(m.a(x) * m.b(x).sigmoid()), [Op.CONV, Op.CONV, Op.MUL]),
    "dead branch": (lambda m, x: (m.b(x), m.a(x))[1], [Op.CONV]),
    "pad for two": (
        lambda m, x: m.a(y := F.pad(x, (1, 1, 1, 1))) + m.a(y),
        [Op.UNSUPPORTED, Op.CONV, Op.CONV],
    ),
}


@pytest.mark.parametrize("name", KEPT_APART)
def test_only_what_may_be_joined_is_joined(name: str, interpret: Interpret, stirred: Stir) -> None:
    function, ops = KEPT_APART[name]
    net = stirred(Ways(function), 2)
    if Op.UNSUPPORTED in ops:
        assert [node.op for node in fuse(trace(net, (X,))).nodes] == ops
        return
    fused = fused_and_checked(net, X, interpret)
    assert sorted(node.op for node in fused.nodes) == sorted(ops)


@pytest.mark.smoke
def test_pruned_weights_stay_exactly_zero(stirred: Stir) -> None:
    net = nn.Sequential(nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16))
    stirred(net, 4)
    mask = torch.rand(4, 8, generator=torch.Generator().manual_seed(0)) < 0.5
    net[0].weight.data *= mask.repeat_interleave(4, 0)[:, :, None, None]
    (node,) = fuse(trace(net, (X,))).nodes
    assert node.weight is not None
    assert node.weight.dtype == np.float32
    assert np.array_equal(node.weight != 0, net[0].weight.detach().numpy() != 0)


def test_folding_is_done_in_float64(stirred: Stir) -> None:
    net = nn.Sequential(nn.Conv2d(8, 16, 3, bias=False), nn.BatchNorm2d(16))
    stirred(net, 5)
    (node,) = fuse(trace(net, (X,))).nodes
    scale = net[1].weight.double() / (net[1].running_var.double() + net[1].eps).sqrt()
    shift = net[1].bias.double() - scale * net[1].running_mean.double()
    weight = (net[0].weight.double() * scale[:, None, None, None]).detach().numpy()
    assert np.array_equal(node.weight, weight.astype(np.float32))
    assert np.array_equal(node.bias, shift.detach().numpy().astype(np.float32))


def test_the_module_itself_is_not_changed(stirred: Stir) -> None:
    net = stirred(Block(True), 6)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    fuse(trace(net, (X,)))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_layers_that_must_stay_dense_say_why() -> None:
    net = nn.Sequential(
        nn.Conv2d(8, 8, 3, groups=8),
        nn.Conv2d(8, 8, 3, groups=2),
        nn.Conv2d(8, 8, 2, padding="same"),
        nn.Conv2d(8, 8, 1),
    )
    found = {layer.name: layer for layer in capture_layers(net, (X,))}
    assert found["0"].why_dense == ("depthwise convolution: no sparse kernel",)
    assert found["1"].why_dense == ("grouped convolution: no sparse kernel",)
    assert "opposite borders" in found["2"].why_dense[0]
    assert found["3"].why_dense == ()
    assert [found[name].shape is None for name in "0123"] == [False, False, True, False]


def test_one_foreign_operator_keeps_all_layers_dense() -> None:
    net = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ConvTranspose2d(8, 8, 2))
    first, second = capture_layers(net, (X,))
    assert (first.name, second.name) == ("0", "1")
    reason = "the model runs through torch because of aten.conv_transpose2d.input in module '1'"
    assert first.why_dense[0].startswith(reason)
    assert second.why_dense[0].startswith("aten.conv_transpose2d.input: no converter")
    assert second.shape is None


def test_a_weight_used_twice_is_listed_twice_and_stays_dense() -> None:
    net = Ways(lambda m, x: m.a(m.a(x).relu()))
    found = capture_layers(net, (X,))
    assert [layer.name for layer in found] == ["a", "a@2"]
    assert all("2 calls" in layer.why_dense[0] for layer in found)


def test_layer_names_are_module_paths(stirred: Stir) -> None:
    net = nn.Sequential(Block(True), nn.Sequential(Block(False)), nn.Flatten(), nn.Linear(800, 3))
    names = {layer.name for layer in layers(fuse(trace(net, (X,))))}
    weights = {n.removesuffix(".weight") for n, p in net.named_parameters() if p.dim() >= 2}
    assert names == weights
