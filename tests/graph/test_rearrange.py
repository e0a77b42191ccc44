"""Rearranged modules: the right order, the same function, all of it undone, or nothing changed."""

from __future__ import annotations

import itertools
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from autosparse import models
from autosparse.errors import ModelError, PlanError, RunError, UsageError
from autosparse.graph import Move, Rearrangement, Space, channel_spaces, rearrange
from autosparse.graph import channel_orders as orders
from autosparse.graph.rearrange import apply, undo
from autosparse.patterns.masks import mask
from autosparse.patterns.pattern import DENSE, Pattern, onexn

X = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(1))


class Block(nn.Module):
    """A residual block between a stem and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.inner = nn.Conv2d(8, 12, 3, padding=1)
        self.outer = nn.Conv2d(12, 8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x))
        x = x + self.outer(self.inner(x).relu())
        return self.head(x.mean((2, 3)))


@pytest.fixture
def block(stirred: Callable[..., nn.Module]) -> nn.Module:
    torch.manual_seed(2)
    return stirred(Block(), 3)


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def is_same(module: nn.Module, before: dict[str, Tensor]) -> bool:
    now = module.state_dict()
    return list(now) == list(before) and all(torch.equal(now[name], before[name]) for name in before)


def norms(module: nn.Module, layer: str) -> np.ndarray:
    weight = module.get_submodule(layer).weight.detach().double().numpy()
    return np.abs(weight).reshape(len(weight), -1).sum(1)


@torch.no_grad()
def results(module: nn.Module, x: Tensor = X) -> Tensor:
    return module.double().eval()(x.double())


# -------------------------------------------------------------------------------------- by the norm


def test_filters_stand_by_falling_norm_and_the_function_stays(block: nn.Module) -> None:
    expected = np.argsort(-norms(block, "inner"), kind="stable")
    before, parts = state(block), {name: id(part) for name, part in block.named_parameters()}
    found = rearrange(block, (X,), ["inner"])
    assert found.orders.keys() == {"inner"}
    np.testing.assert_array_equal(found.orders["inner"], expected)
    after = state(block)
    assert torch.equal(after["inner.weight"], before["inner.weight"][expected])
    assert torch.equal(after["inner.bias"], before["inner.bias"][expected])
    assert torch.equal(after["outer.weight"], before["outer.weight"][:, expected])
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved == {"inner.weight", "inner.bias", "outer.weight"}
    assert parts == {name: id(part) for name, part in block.named_parameters()}
    assert found.left == {}


def test_named_layers_of_a_stream_are_ordered_by_their_sum(block: nn.Module) -> None:
    both = norms(block, "stem") + norms(block, "outer")
    stem, before = norms(block, "stem"), results(block)
    found = rearrange(block.float(), (X,), ["stem", "outer"])
    np.testing.assert_array_equal(found.orders["stem"], np.argsort(-both, kind="stable"))
    np.testing.assert_array_equal(found.orders["outer"], found.orders["stem"])
    torch.testing.assert_close(results(block), before, rtol=1e-9, atol=1e-9)
    undo(block.float(), found)
    alone = rearrange(block, (X,), ["stem"])
    np.testing.assert_array_equal(alone.orders["stem"], np.argsort(-stem, kind="stable"))


def test_streams_can_be_left(block: nn.Module) -> None:
    found = rearrange(block, (X,), ["stem", "inner", "outer"], streams=False)
    assert found.orders.keys() == {"inner"}
    assert found.left.keys() == {"stem", "outer"}
    assert "added to those of other layers" in found.left["stem"]


def test_equal_filters_stay_in_their_order() -> None:
    net = nn.Sequential(nn.Conv2d(3, 5, 1), nn.Conv2d(5, 2, 1), nn.Flatten())
    nn.init.constant_(net[0].weight, 0.5)
    assert rearrange(net, (X,), ["0"]).orders["0"].tolist() == [0, 1, 2, 3, 4]


def test_training_flags_stay(block: nn.Module) -> None:
    block.train()
    block.inner.eval()
    rearrange(block, (X,), ["inner"])
    assert block.training
    assert not block.inner.training
    assert block.norm.training


# ------------------------------------------------------------------------------- saved and taken back


def test_undoing_is_exact(block: nn.Module) -> None:
    before = state(block)
    found = rearrange(block, (X,), ["stem", "inner", "outer"])
    assert not is_same(block, before)
    undo(block, found)
    assert is_same(block, before)


def test_a_dense_checkpoint_follows_by_file(block: nn.Module) -> None:
    dense = Block()
    dense.load_state_dict(block.state_dict())
    found = rearrange(block, (X,), ["inner", "outer", "head"])
    read = Rearrangement.from_json(json.loads(json.dumps(found.to_json())))
    assert read == found
    assert read.left == {"head": "the model returns it"}
    apply(dense, read)
    assert is_same(dense, state(block))


@pytest.mark.parametrize("how", ["other sizes", "other names"])
def test_a_module_that_does_not_fit_stays_as_it_is(how: str, block: nn.Module) -> None:
    found = rearrange(block, (X,), ["stem", "inner"])
    other = Block()
    if how == "other sizes":
        other.outer = nn.Conv2d(6, 8, 1)
    else:
        del other.outer
    before = state(other)
    with pytest.raises(ModelError, match=r"outer\.\w+ of at least \d+ entries"):
        apply(other, found)
    assert is_same(other, before)


def test_an_order_must_be_one() -> None:
    with pytest.raises(UsageError, match="every channel from 0 to 2 once"):
        Move(order=(0, 2, 2), ties=())


# ------------------------------------------------------------------------------------- what is left


def test_layers_that_gain_nothing_are_left_with_reasons(block: nn.Module) -> None:
    layers = {"stem": DENSE, "inner": onexn(1), "outer": onexn(4), "norm": onexn(4), "head": onexn(2)}
    found = rearrange(block, (X,), layers)
    assert set(found.orders) == {"stem", "outer"}  # one stream
    assert found.left == {
        "stem": "dense has no groups of outputs, so no order is better than another",
        "inner": "1x1 has no groups of outputs, so no order is better than another",
        "norm": "a BatchNorm2d makes no channels",
        "head": "the model returns it",
    }


def test_computed_weights_and_depthwise_layers_are_left() -> None:
    net = nn.Sequential(
        *(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 2, 1)),
        nn.Flatten(),
    )
    parametrizations.spectral_norm(net[2])
    before = state(net.eval())
    found = rearrange(net, (X,), ["0", "1", "2"])
    assert found.moves == ()
    assert "computed anew" in found.left["0"]
    assert "depthwise" in found.left["1"]
    assert found.left["2"] == "its weight is computed anew whenever it runs"
    assert is_same(net, before)


def test_an_unknown_layer_is_refused(block: nn.Module) -> None:
    with pytest.raises(PlanError, match="got 'iner'; did you mean 'inner'"):
        rearrange(block, (X,), ["iner"])


def test_options_are_checked(block: nn.Module) -> None:
    with pytest.raises(UsageError, match="by must be one of l1, kept, but got 'l3'"):
        rearrange(block, (X,), ["inner"], by="l3")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="add 'inner'"):
        rearrange(block, (X,), {"inner": onexn(4)}, by="kept", sparsity={"outer": 0.5})


# ------------------------------------------------------------------------------------- verification


class Restless(Block):
    """Never computes the same twice."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x + torch.rand_like(x))


@pytest.mark.parametrize("how", ["random", "not a number"])
def test_a_function_that_cannot_be_compared_leaves_the_module_as_it_was(how: str) -> None:
    net = (Restless() if how == "random" else Block()).eval()
    if how == "not a number":
        with torch.no_grad():
            net.inner.weight[3, 0, 0, 0] = torch.nan
            net.inner.weight[4] = 0.0
    before = {name: value.view(torch.uint8) for name, value in state(net).items() if value.dim()}
    with pytest.raises(RunError, match="must compute what it did"):
        rearrange(net, (X,), ["inner"])
    after = {name: value.view(torch.uint8) for name, value in state(net).items() if value.dim()}
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_tie_that_is_missed_is_noticed(block: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(*args: object) -> tuple[Space, ...]:
        found = channel_spaces(*args)  # type: ignore[arg-type]
        return tuple(Space(size=space.size, ties=space.ties[:-1]) for space in found)

    monkeypatch.setattr(sys.modules["autosparse.graph.rearrange"], "channel_spaces", forgetful)
    before = state(block)
    with pytest.raises(RunError, match="a result changed by"):
        rearrange(block, (X,), ["inner"])
    assert is_same(block, before)


# ---------------------------------------------------------------------------------- by what is kept


def kept(weight: np.ndarray, pattern: Pattern, sparsity: float) -> float:
    """Fraction of the L1 norm that a mask keeps."""
    magnitude = np.abs(weight)
    return float(magnitude[mask(weight, pattern, sparsity)].sum() / magnitude.sum())


def drawn(outputs: int, inputs: int, seed: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    spread = np.exp(0.5 * generator.standard_normal((outputs, 1, 1, 1)))
    return spread * generator.standard_normal((outputs, inputs, 3, 1))


def test_filters_of_the_same_inputs_become_neighbours() -> None:
    net = nn.Sequential(nn.Conv2d(8, 16, 1), nn.ReLU(), nn.Conv2d(16, 2, 1), nn.Flatten())
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].weight[0::2, :4] = 1.0
        net[0].weight[1::2, 4:] = 1.0
    x, pattern = torch.randn(2, 8, 4, 4), onexn(4)
    assert kept(net[0].weight.detach().numpy(), pattern, 0.5) == 0.5
    rearrange(net, (x,), {"0": pattern}, by="kept", sparsity={"0": 0.5})
    assert kept(net[0].weight.detach().numpy(), pattern, 0.5) == 1.0


@pytest.mark.parametrize("uniform", [True, False])
@pytest.mark.parametrize(("outputs", "inputs"), [(32, 24), (18, 7), (5, 3)])
@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.75, 1.0])
def test_no_less_is_kept_than_in_either_start(
    uniform: bool, outputs: int, inputs: int, sparsity: float
) -> None:
    weight, pattern = drawn(outputs, inputs, outputs), onexn(4, uniform=uniform)
    given = [orders.Prunable(weight, pattern, sparsity)]
    order = orders.by_kept(given)
    assert sorted(order) == list(range(outputs))
    found = kept(weight[order], pattern, sparsity)
    starts = [kept(weight, pattern, sparsity), kept(weight[orders.by_norm(given)], pattern, sparsity)]
    assert found >= max(starts) - 1e-9
    if 0 < sparsity < 1 and outputs > 5:
        assert found > starts[0]


def test_of_all_orders_of_a_small_layer_a_good_one_is_found() -> None:
    pattern = onexn(2)
    for seed in range(5):
        weight = drawn(6, 6, seed)
        best = max(kept(weight[list(one)], pattern, 0.5) for one in itertools.permutations(range(6)))
        order = orders.by_kept([orders.Prunable(weight, pattern, 0.5)])
        worst = min(kept(weight[list(one)], pattern, 0.5) for one in itertools.permutations(range(6)))
        assert kept(weight[order], pattern, 0.5) >= worst + 0.6 * (best - worst)


def test_layers_with_blocks_of_other_sizes_share_an_order() -> None:
    one, other = drawn(24, 16, 1), drawn(24, 10, 2)
    pairs = ((one, onexn(8)), (other, onexn(4, uniform=False)))
    order = orders.by_kept([orders.Prunable(weight, pattern, 0.5) for weight, pattern in pairs])

    def total(order: np.ndarray) -> float:
        return sum(kept(w[order], p, 0.5) * np.abs(w).sum() for w, p in pairs)

    assert total(order) > 1.01 * total(np.arange(24))


def test_blocks_of_several_inputs_count_whole() -> None:
    weight = np.zeros((8, 8, 1, 1))
    weight[0::2, 0:4] = 1.0  # outputs take turns in which half they read
    weight[1::2, 4:8] = 1.0
    pattern = Pattern(group_out=4, unit_in=4, family="block")
    order = orders.by_kept([orders.Prunable(weight, pattern, 0.5)])
    assert kept(weight, pattern, 0.5) == 0.5
    assert kept(weight[order], pattern, 0.5) == 1.0


def test_what_keeps_most_needs_patterns_of_blocks(block: nn.Module) -> None:
    found = rearrange(block, (X,), ["inner"], by="kept")
    assert found.left == {"inner": "an order by what masks keep needs the layer's pattern"}
    with torch.no_grad():
        block.inner.weight[2] = torch.inf
    with pytest.raises(UsageError, match="weights must be finite"):
        rearrange(block, (X,), {"inner": onexn(4)}, by="kept")


def test_public_weights_keep_more_and_compute_the_same(real_data: Path) -> None:
    path = real_data / "cifar10_resnets" / "resnet20-12fca82f.th"
    module = models.resolve("resnet20", classes=10, weights=path).module
    inner = [name for name, _ in module.named_modules() if name.endswith(".conv1")]
    x, pattern = torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(4)), onexn(8)

    def mean() -> float:
        weights = (module.get_submodule(name).weight.detach().numpy() for name in inner)
        return float(np.mean([kept(weight, pattern, 0.5) for weight in weights]))

    natural, before = mean(), results(module, x)
    found = rearrange(module.float(), (x,), dict.fromkeys(inner, pattern), by="kept")
    assert found.orders.keys() == set(inner)
    assert mean() > natural + 0.015
    torch.testing.assert_close(results(module, x), before, rtol=1e-9, atol=1e-9)
