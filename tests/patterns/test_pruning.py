"""sparsify: a plan's zeros in a torch module."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import autosparse.patterns
from autosparse.errors import PlanError
from autosparse.patterns import find_structure, sparsify
from autosparse.plan import Plan
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
    assert autosparse.patterns.sparsify is sparsify
    assert callable(autosparse.patterns.sparsify)
    assert np.shape(autosparse.patterns.CANDIDATES) == (7,)
