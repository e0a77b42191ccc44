"""sparsify: a plan's zeros in a torch module."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import utils

import autosparse
from autosparse.errors import PlanError
from autosparse.graph import capture_layers
from autosparse.patterns import CANDIDATES, find_structure
from autosparse.plans.plan import Plan
from autosparse.plans.pruning import sparsify
from autosparse.records import LayerChoice, Pattern, onexn


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(8, 20, 3),
        nn.ReLU(),
        nn.Conv2d(20, 20, 3, groups=20),
        nn.Flatten(),
        nn.Linear(20 * 16, 10),
    )


def plan_of(**layers):
    return Plan(model="small", layers={k.lstrip("_"): v for k, v in layers.items()})


@pytest.mark.smoke
def test_zeros_appear_where_the_plan_says_and_nowhere_else():
    net, dense = small_net(), small_net()
    plan = plan_of(
        _0=LayerChoice(pattern=onexn(8), sparsity=0.5),
        _4=LayerChoice(pattern=onexn(4, uniform=False), sparsity=0.75),
    )
    masks = sparsify(net, plan)
    assert set(masks) == {"0", "4"}
    for name, kept in masks.items():
        weight, before = net.get_submodule(name).weight, dense.get_submodule(name).weight
        assert kept.dtype == torch.bool
        assert torch.equal(weight, before * kept)
    assert torch.equal(net[2].weight, dense[2].weight)
    assert torch.equal(net[4].bias, dense[4].bias)
    assert float((net[0].weight == 0).float().mean()) == 0.5
    structure = find_structure(net[0].weight.detach().numpy())[0]
    assert structure.block_n == 8 and structure.kept_per_group.tolist() == [4, 4, 4]


def test_bpar_and_l1_choose_differently_but_equally_many():
    plan = plan_of(_0=LayerChoice(pattern=onexn(8), sparsity=0.5))
    bpar, l1 = (sparsify(small_net(), plan, criterion=c)["0"] for c in ("bpar", "l1"))
    assert bpar.sum() == l1.sum()
    assert not torch.equal(bpar, l1)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("00", "only layers of its model, but got '00'; did you mean"),
        ("1", "is ReLU"),
        ("2", "20 groups"),
    ],
)
def test_wrong_layers_are_refused_and_nothing_is_touched(name, message):
    net = small_net()
    sparse = LayerChoice(pattern=onexn(8), sparsity=0.5)
    with pytest.raises(PlanError, match=message):
        sparsify(net, Plan(model="small", layers={"0": sparse, name: sparse}))
    assert torch.equal(net[0].weight, small_net()[0].weight)


def test_unknown_pattern_is_refused():
    odd = LayerChoice(pattern=Pattern(group_out=4, nm=(2, 4)), sparsity=0.5)
    with pytest.raises(PlanError, match="family"):
        sparsify(small_net(), plan_of(_0=odd))


def test_lazy_name_is_the_function_however_often_it_is_asked_for():
    assert autosparse.sparsify is sparsify
    assert callable(autosparse.sparsify)
    assert np.shape(CANDIDATES) == (7,)


class Halved(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return weight * 0.5


PARAMETRISED = {
    "weight_norm": (utils.parametrizations.weight_norm, "WeightNorm", "remove_parametrizations"),
    "spectral_norm": (utils.parametrizations.spectral_norm, "SpectralNorm", "remove_parametrizations"),
    "a user's own": (
        lambda layer: utils.parametrize.register_parametrization(layer, "weight", Halved()),
        "Halved",
        "remove_parametrizations",
    ),
    "old weight_norm": (utils.weight_norm, "weight_norm", "remove_weight_norm"),
    "old spectral_norm": (utils.spectral_norm, "spectral_norm", "remove_spectral_norm"),
    "a mask": (
        lambda layer: utils.prune.l1_unstructured(layer, "weight", 0.3),
        "mask of torch.nn.utils.prune",
        "prune.remove",
    ),
}


@pytest.mark.parametrize("kind", PARAMETRISED)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_weight_that_is_computed_anew_is_refused_and_pruned_once_baked(kind: str) -> None:
    parametrise, how, remedy = PARAMETRISED[kind]
    net = small_net().eval()
    parametrise(net[0])
    before = {name: value.clone() for name, value in net.state_dict().items()}
    plan = plan_of(
        _4=LayerChoice(pattern=onexn(4), sparsity=0.75), _0=LayerChoice(pattern=onexn(4), sparsity=0.5)
    )
    with pytest.raises(
        PlanError, match=f"'0' is computed anew by .*{how}.*; bake it first: .*{remedy}"
    ):
        sparsify(net, plan)
    after = net.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items()), "nothing changed"
    # Tracing knows it too, so that no plan is made of it; computing is unchanged.
    image = torch.randn(1, 8, 8, 8)
    layers = {layer.name: layer for layer in capture_layers(net, (image,))}
    assert "bake it first" in layers["0"].why_dense[0]
    uniform = Plan.uniform("small", layers.values(), block_n=4, sparsity=0.5)
    assert set(uniform.layers) == {"4"}
    # What the remedy leaves is pruned, and its zeros stay.
    {
        "remove_parametrizations": lambda: utils.parametrize.remove_parametrizations(net[0], "weight"),
        "remove_weight_norm": lambda: utils.remove_weight_norm(net[0]),
        "remove_spectral_norm": lambda: utils.remove_spectral_norm(net[0]),
        "prune.remove": lambda: utils.prune.remove(net[0], "weight"),
    }[remedy]()
    sparsify(net, plan)
    net(image)
    assert find_structure(net[0].weight.detach().numpy())[0].sparsity(8) == 0.5


class TestUniform:
    def test_layers_that_must_stay_dense_are_named(self) -> None:
        layers = capture_layers(small_net(), (torch.randn(1, 8, 8, 8),))
        plan = Plan.uniform("small", layers, block_n=8, sparsity=0.5)
        assert set(plan.layers) == {"0", "4"}
        assert plan.note == ("uniform 1x8 at 0.5; dense: 2 (depthwise convolution: no sparse kernel)")

    def test_a_plan_of_nothing_is_refused_with_every_reason(self) -> None:
        class Shared(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv = nn.Conv2d(8, 8, 3, padding=1)
                self.grouped = nn.Conv2d(8, 8, 3, groups=2)
                self.scale = nn.Parameter(torch.ones(8, 1, 1, 1))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                x = self.conv(self.conv(x))
                return nn.functional.conv2d(self.grouped(x), self.conv.weight * self.scale)

        layers = capture_layers(Shared(), (torch.randn(1, 8, 9, 9),))
        with pytest.raises(PlanError, match="all 4 of m must stay dense") as refusal:
            Plan.uniform("m", layers, block_n=8, sparsity=0.5)
        for reason in (
            "conv@2 (its weight is used by 2 calls)",
            "grouped convolution",
            "bake it first",
        ):
            assert reason in str(refusal.value)
        with pytest.raises(PlanError, match="it was given none"):
            Plan.uniform("m", (), block_n=8, sparsity=0.5)
