"""Layers found in torch's own graph: the same as the operator graph's, and those it does not know."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from autosparse import graph, models
from autosparse.graph import Exported
from autosparse.graph.sites import find_sites
from autosparse.records import LayerInfo


def layers(module: nn.Module, *inputs: torch.Tensor) -> tuple[LayerInfo, ...]:
    return find_sites(Exported(module.eval(), inputs)).layers


@pytest.mark.smoke
@pytest.mark.parametrize("name", ["resnet20", "mobilenet_v2"])
def test_names_and_shapes_are_those_of_the_operator_graph(name: str) -> None:
    found = models.resolve(name)
    captured = Exported(found.module.eval(), (torch.zeros(2, *found.input_shape),))
    assert find_sites(captured).layers == graph.layers(graph.fuse(captured.graph()))


def test_a_transformer_gives_all_its_products() -> None:
    encoder = nn.TransformerEncoderLayer(32, 4, 64, activation="gelu", batch_first=True)
    module = nn.Sequential(nn.Embedding(50, 32), encoder, nn.Linear(32, 5))
    found = {each.name: each for each in layers(module, torch.zeros(2, 7, dtype=torch.long))}
    packed = found.pop("1.self_attn.in_proj_weight")
    assert "is not named '<module>.weight'" in packed.why_dense[0]
    keys = {name: layer.shape.key for name, layer in found.items() if layer.shape}
    assert keys == {
        "1.self_attn.out_proj": "linear_b14_i32x1x1_o32",
        "1.linear1": "linear_b2_i32x7x1_o64_gelu",
        "1.linear2": "linear_b2_i64x7x1_o32_res",
        "2": "linear_b2_i32x7x1_o5",
    }
    assert not any(layer.why_dense for layer in found.values())


class Odd(nn.Module):
    """Weights used twice, computed, in groups; sums of one tensor with itself; tanh's own GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Conv2d(8, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.computed = nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 8, 1))
        self.same = nn.Conv2d(8, 8, 2, padding="same")
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.twice(self.twice(x)).relu()
        y = self.norm(self.grouped(x))
        z = self.computed(y)
        z = z + z
        z = self.same(z)
        return nn.functional.gelu(self.head(z.mean((2, 3))), approximate="tanh"), x


def test_layers_that_cannot_be_sparse_say_why() -> None:
    found = {each.name: each for each in layers(Odd(), torch.zeros(1, 8, 6, 6))}
    assert found["twice"].why_dense == found["twice@2"].why_dense == ("its weight is used by 2 calls",)
    assert found["grouped"].why_dense == ("grouped convolution: no sparse kernel",)
    assert "parametrisation" in found["computed"].why_dense[0]
    assert found["same"].shape is None  # borders padded unequally
    head = found["head"].shape
    assert head is not None and head.activation == "none"
    twice = found["twice@2"].shape
    assert twice is not None and twice.activation == "relu"


def test_norms_are_folded_and_the_module_stays_as_it_was() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()).eval()
    with torch.no_grad():
        module[1].running_mean.normal_()
        module[1].running_var.uniform_(0.5, 2)
        module[1].weight.normal_()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    x = torch.randn(1, 3, 5, 5)
    (site,) = find_sites(Exported(module, (x,))).sites
    folded = nn.functional.conv2d(x, torch.from_numpy(site.weight), torch.from_numpy(site.bias)).relu()
    torch.testing.assert_close(folded, module(x), rtol=1e-5, atol=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_of_two_layers_the_deeper_takes_the_sum() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.short = nn.Conv2d(4, 4, 1)
            self.one, self.two = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (self.short(x) + self.two(self.one(x).relu())).relu()

    found = {each.name: each.shape for each in layers(Block(), torch.zeros(1, 4, 6, 6))}
    assert {name: shape.residual for name, shape in found.items() if shape} == {
        "short": False, "one": False, "two": True,
    }  # fmt: skip
