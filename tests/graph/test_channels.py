"""Spaces of channels: which are found, what is tied to them, and what pins them.

Whether ties are complete is asked of the networks themselves: in float64, a random order of every free
space may change their results by rounding alone.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from autosparse import models
from autosparse.graph import Move, Rearrangement, Role, Space, channel_spaces
from autosparse.graph.rearrange import apply, undo

Stirred = Callable[[nn.Module, int], nn.Module]


class Net(nn.Module):
    """Layers by name, and a function that runs them."""

    def __init__(self, run: Callable[[Net, Tensor], object], **parts: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> object:
        return self.run(self, x)


def conv(inputs: int, outputs: int, kernel: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups)


IMAGES = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@functools.cache
def images(size: int) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randn(2, 3, size, size, generator=generator, dtype=torch.float64)


def shuffled(spaces: tuple[Space, ...], seed: int = 0) -> Rearrangement:
    """A random order for every space that is free."""
    generator = np.random.default_rng(seed)
    return Rearrangement(
        moves=tuple(
            Move(order=tuple(generator.permutation(space.size).tolist()), ties=space.ties)
            for space in spaces
            if not space.pinned
        )
    )


def state(net: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in net.state_dict().items()}


@functools.lru_cache(maxsize=1)
def examined(net: nn.Module, x: Tensor = IMAGES) -> tuple[Space, ...]:
    """Finds the spaces; checks that in random orders of the free ones the net computes the same."""
    net = net.double().eval()
    spaces = channel_spaces(net, (x,))
    before = state(net)
    with torch.no_grad():
        kept = net(x)
        found = shuffled(spaces)
        apply(net, found)
        after, moved = state(net), net(x)
    torch.testing.assert_close(moved, kept, rtol=1e-9, atol=1e-9)
    _check_moved(spaces, before, after)
    undo(net, found)
    assert all(torch.equal(value, before[name]) for name, value in state(net).items())
    return spaces


def free(net: nn.Module, x: Tensor = IMAGES) -> set[tuple[str, ...]]:
    """Examines a net; gives the producers of its free spaces."""
    return {space.producers for space in examined(net, x) if not space.pinned}


def _check_moved(
    spaces: tuple[Space, ...], before: dict[str, Tensor], after: dict[str, Tensor]
) -> None:
    """What is tied to a free space has changed, and nothing else."""
    assert list(before) == list(after)
    tied = {tie.tensor for space in spaces if not space.pinned for tie in space.ties}
    for name, value in before.items():
        same = torch.equal(value, after[name])
        assert same or name in tied, f"{name} is tied to nothing free, but changed"
        assert not same or name not in tied or value.unique().numel() == 1, f"{name} should have moved"


def pinned(net: nn.Module, x: Tensor = IMAGES) -> dict[str, str]:
    """Examines a net; gives the reason for every layer of its pinned spaces."""
    spaces = [space for space in examined(net, x) if space.pinned]
    return {layer: space.pinned for space in spaces for layer in space.producers}


# ------------------------------------------------------------------------------------ whole networks


def test_resnet18(stirred: Stirred) -> None:
    net = stirred(models.resolve("resnet18", classes=5).module, 3)
    assert free(net, images(33)) == {
        *((f"layer{stage}.{block}.conv1",) for stage in (1, 2, 3, 4) for block in (0, 1)),
        ("conv1", "layer1.0.conv2", "layer1.1.conv2"),
        *(
            (f"layer{stage}.0.downsample.0", f"layer{stage}.0.conv2", f"layer{stage}.1.conv2")
            for stage in (2, 3, 4)
        ),
    }


def test_resnet20_keeps_its_padded_streams(stirred: Stirred) -> None:
    net = stirred(models.resolve("resnet20", classes=10).module, 4)
    assert free(net, images(16)) == {
        (f"layer{stage}.{block}.conv1",) for stage in (1, 2, 3) for block in (0, 1, 2)
    }
    reasons = pinned(net, images(16))
    assert all("padding" in reasons[f"layer{stage}.2.conv2"] for stage in (1, 2, 3))
    assert reasons["linear"] == "the model returns it"


# V2: a stem, 16 expansions, 7 stages whose projections share a stream, a last convolution
@pytest.mark.parametrize(("name", "count"), [("mobilenet_v1", 14), ("mobilenet_v2", 1 + 16 + 7 + 1)])
def test_depthwise_convolutions_carry_what_they_read(name: str, count: int, stirred: Stirred) -> None:
    net = stirred(models.resolve(name, classes=3).module, 5)
    spaces = examined(net, images(32))
    assert sum(not space.pinned for space in spaces) == count
    assert len(free(net, images(32))) == count
    depthwise = {name for name, part in net.named_modules() if getattr(part, "groups", 1) > 1}
    carried = {name for space in spaces for name in space.carriers}
    assert {f"{name}.weight" for name in depthwise} <= carried


def test_vgg16_reads_channels_in_runs_of_pixels(stirred: Stirred) -> None:
    net = stirred(models.resolve("vgg16_bn", classes=4).module, 6)
    x = images(32).float()
    spaces = channel_spaces(net, (x,))
    last = next(space for space in spaces if space.producers == ("features.40",))
    assert [(tie.run, tie.axis) for tie in last.ties if tie.role is Role.READS] == [(49, 1)]
    assert [space.producers for space in spaces if space.pinned] == [("classifier.6",)]
    with torch.no_grad():
        kept = net(x)
        apply(net, shuffled(spaces))
        moved = net(x)
    torch.testing.assert_close(moved, kept, rtol=0, atol=1e-5 * float(kept.abs().max()))


# ------------------------------------------------------------------------------------ what is followed


def _dense(net: Net, x: Tensor) -> Tensor:
    one = net.stem(x)
    two = net.one(F.relu(net.norm1(one)))
    both = torch.cat([one, two], 1)
    three = net.two(F.relu(net.norm2(both)))
    every = F.relu(net.norm3(torch.cat([both, three], 1)))
    return net.head(F.avg_pool2d(every, 4).flatten(1))


def test_concatenation_reads_every_part(stirred: Stirred) -> None:
    net = Net(
        _dense,
        stem=conv(3, 8, 3),
        norm1=nn.BatchNorm2d(8),
        one=conv(8, 4, 3),
        norm2=nn.BatchNorm2d(12),
        two=conv(12, 6),
        norm3=nn.BatchNorm2d(18),
        head=nn.Linear(18 * 4, 3),
    )
    assert free(stirred(net, 7)) == {("stem",), ("one",), ("two",)}
    spaces = {space.producers[0]: space for space in examined(net)}
    read = {(tie.layer, tie.offset, tie.run) for tie in spaces["one"].ties if tie.role is Role.READS}
    assert read == {("two", 8, 1), ("head", 32, 4)}
    assert spaces["one"].carriers[0] == "one.bias"


def _split(net: Net, x: Tensor) -> Tensor:
    both = torch.cat([net.a(x), net.b(x)], 1)
    one, two = both.split([4, 6], 1)
    return net.head(
        net.c(one).mean((2, 3)) + net.d(both[:, 4:]).amax((2, 3)) + net.d2(two).mean((2, 3))
    )


def test_a_cut_between_parts_takes_them_apart() -> None:
    parts = {"c": conv(4, 5), "d": conv(6, 5), "d2": conv(6, 5), "head": nn.Linear(5, 2)}
    net = Net(_split, a=conv(3, 4), b=conv(3, 6), **parts)
    assert free(net) == {("a",), ("b",), ("c", "d", "d2")}


@pytest.mark.parametrize("slopes", [1, 6])
def test_prelu(slopes: int) -> None:
    act = nn.PReLU(slopes)
    nn.init.uniform_(act.weight, -1.0, 1.0)
    net = nn.Sequential(conv(3, 6, 3), act, conv(6, 4), nn.Flatten(), nn.Linear(4 * 64, 3))
    assert free(net) == {("0",), ("2",)}
    carriers = examined(net)[0].carriers
    assert carriers == (("0.bias", "1.weight") if slopes > 1 else ("0.bias",))


def test_squeeze_and_excite_gates_share_the_order() -> None:
    def run(net: Net, x: Tensor) -> Tensor:
        x = net.conv(x)
        gate = net.up(F.relu(net.down(x.mean((2, 3))))).sigmoid()
        return net.head((x * gate.view(2, 6, 1, 1)).sum((2, 3)))

    net = Net(run, conv=conv(3, 6), down=nn.Linear(6, 4), up=nn.Linear(4, 6), head=nn.Linear(6, 2))
    assert free(net) == {("conv", "up"), ("down",)}
    assert not examined(net)[0].summed


def test_a_sum_of_branches_is_told_from_other_spaces() -> None:
    def run(net: Net, x: Tensor) -> Tensor:
        x = net.a(x)
        return net.head((x + net.c(F.relu(net.b(x))) + x).mean((2, 3)))

    net = Net(run, a=conv(3, 4), b=conv(4, 8), c=conv(8, 4), head=nn.Linear(4, 2))
    assert free(net) == {("a", "c"), ("b",)}
    assert [space.summed for space in examined(net)][:2] == [True, False]


class Scaled(nn.Module):
    """A scale and a shift of its own for every channel."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(size, 1, 1))
        self.register_buffer("shift", torch.randn(1, size, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


def test_parameters_that_the_model_applies_itself() -> None:
    net = nn.Sequential(conv(3, 6), Scaled(6), conv(6, 4), nn.Flatten(), nn.Linear(256, 2))
    assert free(net) == {("0",), ("2",)}
    assert examined(net)[0].carriers == ("0.bias", "1.scale", "1.shift")


def _norms(net: Net, x: Tensor) -> Tensor:
    x = net.group1(net.instance(net.a(x)))
    x = net.layer(x.permute(0, 2, 3, 1))  # channels last
    x = net.up(x)
    return net.head(net.down(F.gelu(x)).permute(0, 3, 1, 2).mean((2, 3)))


def test_norms_and_channels_last(stirred: Stirred) -> None:
    net = Net(
        _norms,
        a=conv(3, 6),
        instance=nn.InstanceNorm2d(6, affine=True),
        group1=nn.GroupNorm(1, 6),
        layer=nn.LayerNorm(6),
        up=nn.Linear(6, 10),
        down=nn.Linear(10, 6),
        head=nn.Linear(6, 2),
    )
    for part in (net.instance, net.group1, net.layer):
        nn.init.normal_(part.weight)
        nn.init.normal_(part.bias)
    assert free(net) == {("a",), ("up",), ("down",)}


def test_a_depthwise_convolution_of_two_outputs_per_channel(stirred: Stirred) -> None:
    net = nn.Sequential(
        *(conv(3, 5), conv(5, 10, 3, groups=5), nn.BatchNorm2d(10), nn.ReLU(), conv(10, 4)),
        *(nn.Flatten(), nn.BatchNorm1d(256), nn.Linear(256, 2)),
    )
    assert free(stirred(net, 8)) == {("0",), ("4",)}
    assert {tie.run for tie in examined(net)[0].ties} == {1, 2}


def test_flattened_parts_and_pixels_made_again() -> None:
    def run(net: Net, x: Tensor) -> Tensor:
        flat = torch.cat([net.a(x), net.b(x)], 1).flatten(1)
        again = flat.unflatten(1, (9, 8, 8))
        return net.head(flat) + net.c(again).mean((2, 3))

    net = Net(run, a=conv(3, 4), b=conv(3, 5), c=conv(9, 2), head=nn.Linear(9 * 64, 2))
    assert free(net) == {("a",), ("b",)}


def test_rows_and_lines() -> None:
    rows = nn.Sequential(
        nn.Linear(3, 8), nn.BatchNorm1d(8), nn.SiLU(), nn.Linear(8, 6), nn.Linear(6, 2)
    )
    assert free(rows, torch.randn(4, 3, dtype=torch.float64)) == {("0",), ("3",)}
    lines = nn.Sequential(
        nn.Conv1d(3, 8, 3), nn.MaxPool1d(2), nn.Conv1d(8, 4, 1), nn.Flatten(), nn.Linear(12, 2)
    )
    assert free(lines, torch.randn(2, 3, 9, dtype=torch.float64)) == {("0",), ("2",)}


# --------------------------------------------------------------------------------------- what pins


def between(run: Callable[[Tensor], Tensor], width: int, outputs: int = 6) -> Net:
    """A convolution, a function of its result, and a convolution that reads `width` channels."""
    return Net(lambda net, x: net.b(run(net.a(x))).mean((2, 3)), a=conv(3, outputs), b=conv(width, 2))


PINNING: dict[str, tuple[Net, str]] = {
    "shuffle": (
        between(lambda x: x.view(2, 2, 3, 8, 8).transpose(1, 2).reshape(2, 6, 8, 8), 6),
        r"a reshape from \[2, 6, 8, 8\] to \[2, 2, 3, 8, 8\] mixes its channels",
    ),
    "pixel shuffle": (between(lambda x: F.pixel_shuffle(x, 2), 2, 8), "pixel_shuffle"),
    "channels into rows": (between(lambda x: x.reshape(4, 3, 8, 8), 3), "mixes its channels"),
    "picked": (between(lambda x: x[:, :4], 4), "picked"),
    "one picked": (between(lambda x: x[:, 2, None], 1), "picked"),
    "every second": (between(lambda x: x[:, ::2], 3), "picked"),
    "index": (between(lambda x: x[:, [3, 1]], 2), "index"),
    "chunks": (between(lambda x: x.chunk(2, 1)[1], 3), "picked"),
    "flipped": (between(lambda x: x.flip(1), 6), "flip"),
    "rolled": (between(lambda x: x.roll(1, 1), 6), "roll"),
    "running sum": (between(lambda x: x.cumsum(1), 6), "cumsum"),
    "mean of channels": (between(lambda x: x.mean(1, keepdim=True), 1), "across its channels"),
    "padded": (between(lambda x: F.pad(x, (0, 0, 0, 0, 1, 1)), 8), "padding"),
    "constant": (between(lambda x: x + torch.arange(6.0)[:, None, None], 6), "computed anew"),
    "joined with the input": (
        Net(lambda net, x: net.b(torch.cat([net.a(x), x], 1)).mean((2, 3)), a=conv(3, 4), b=conv(7, 2)),
        "joined",
    ),
    "added to the input": (
        Net(lambda net, x: net.b(net.a(x) + x).mean((2, 3)), a=conv(3, 3), b=conv(3, 2)),
        "the model's input",
    ),
    "products of pixels": (
        between(lambda x: (x.flatten(2).transpose(1, 2) @ x.flatten(2)).unsqueeze(1), 1),
        "matmul",
    ),
    "groups of norm": (
        Net(
            lambda net, x: net.b(net.norm(net.a(x))).mean((2, 3)),
            a=conv(3, 6),
            norm=nn.GroupNorm(3, 6),
            b=conv(6, 2),
        ),
        "3 groups",
    ),
    "grouped": (
        Net(
            lambda net, x: net.b(net.g(net.a(x))).mean((2, 3)),
            a=conv(3, 6),
            g=conv(6, 6, 3, 2),
            b=conv(6, 2),
        ),
        "in 2 groups",
    ),
    "along rows": (
        Net(lambda net, x: net.l(net.a(x)).sum((2, 3)), a=conv(3, 6), l=nn.Linear(8, 5)),
        "another axis",
    ),
    "noise": (between(lambda x: x * torch.rand(6, 1, 1).mul(0).add(1), 6), "computed|fixed order"),
}


@pytest.mark.parametrize("name", PINNING)
def test_what_is_not_understood_pins(name: str) -> None:
    net, reason = PINNING[name]
    assert re.search(reason, pinned(net)["a"])


def test_a_grouped_convolution_pins_both_its_sides() -> None:
    assert set(pinned(PINNING["grouped"][0])) == {"a", "g", "b"}


def test_a_layer_that_is_run_twice_pins() -> None:
    net = Net(
        lambda net, x: net.b(net.twice(F.relu(net.twice(net.a(x))))).mean((2, 3)),
        a=conv(3, 4),
        twice=conv(4, 4),
        b=conv(4, 2),
    )
    reasons = pinned(net)
    assert "twice.weight is used more than once" in reasons["a"]
    assert "used more than once" in reasons["twice"]


def test_weights_tied_between_layers_pin() -> None:
    net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    net[2].weight = net[0].weight
    x = torch.randn(3, 4, dtype=torch.float64)
    reasons = pinned(net, x)
    assert "used more than once" in reasons["2"]  # torch knows the two by one name
    assert not free(net, x)


def test_a_layer_of_two_names_that_is_run_once_is_free() -> None:
    net = nn.Sequential(conv(3, 4), nn.ReLU(), conv(4, 2), nn.Flatten())
    net.stem = net[0]
    net.forward = lambda x: net[3](net[2](net[1](net.stem(x))))  # type: ignore[method-assign]
    net.eval()
    assert len([space for space in channel_spaces(net, (IMAGES.float(),)) if not space.pinned]) == 1


@pytest.mark.parametrize("how", ["spectral", "weight norm", "mask"])
def test_weights_that_are_computed_pin_what_they_read(how: str) -> None:
    net = nn.Sequential(conv(3, 4), nn.ReLU(), conv(4, 4), nn.ReLU(), conv(4, 4), nn.Flatten())
    if how == "spectral":
        parametrizations.spectral_norm(net[2])
    elif how == "weight norm":
        parametrizations.weight_norm(net[2])
    else:
        prune.random_unstructured(net[2], "weight", 0.5)
    reasons = pinned(net)
    assert "computed anew" in reasons["0"]
    assert "2" not in reasons  # it produces nothing that could be stored in another order
    assert not free(net)


def test_what_a_state_dict_lacks_pins() -> None:
    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.randn(4, 1, 1), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return x * self.scale

    net = nn.Sequential(conv(3, 4), Hidden(), conv(4, 2), nn.Flatten())
    assert pinned(net)["0"] == "1.scale is not in the module's state dict"


def test_parameters_of_training_alone_pin_all() -> None:
    class Auxiliary(Net):
        def forward(self, x: Tensor) -> object:
            x = self.a(x)
            main = self.b(x).mean((2, 3))
            return (main, self.aux(x)) if self.training else main

    net = Auxiliary(lambda net, x: None, a=conv(3, 4), b=conv(4, 2), aux=conv(4, 2))
    assert "aux.weight" in pinned(net)["a"]


def test_several_results_pin_what_they_show() -> None:
    def run(net: Net, x: Tensor) -> object:
        first = net.a(x)
        second = net.b(F.relu(first))
        return {"features": second.relu(), "scores": net.head(second.mean((2, 3)))}

    net = Net(run, a=conv(3, 4), b=conv(4, 5), head=nn.Linear(5, 2))
    assert free(net) == {("a",)}
    assert pinned(net) == dict.fromkeys(("b", "head"), "the model returns it")


def test_records_survive_json() -> None:
    spaces = channel_spaces(between(F.relu, 6).eval(), (IMAGES.float(),))
    assert tuple(Space.from_json(space.to_json()) for space in spaces) == spaces
    assert spaces[0].readers == ("b",)
