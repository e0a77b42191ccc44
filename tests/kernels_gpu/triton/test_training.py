"""Both backward products in Triton's interpreter are those of the masked dense layer, in float64."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn import functional

from autosparse.errors import UsageError
from autosparse.kernels.gpu.launch import Launch
from autosparse.kernels.gpu.methods.triton.backward import OutputOrder, WeightGradient
from autosparse.kernels.gpu.methods.triton.training import TilePlan, tile_wise, usual_launch
from autosparse.patterns.families.tw import tw
from autosparse.patterns.pattern import Pattern
from autosparse.patterns.tile_structure import Tile, TileStructure
from autosparse.records import LayerShape
from tests.kernels_gpu.triton.tile_cases import HALF_UNIT, SMALL, Case, Guarded, kept_of, make

CPU = torch.device("cpu")
LINEAR = LayerShape(op="linear", batch_size=2, in_height=13, in_channels=40, out_channels=70)
CONV = LayerShape(
    op="conv2d", batch_size=2, in_height=7, in_width=6, in_channels=24, out_channels=48,
    kernel=(3, 3), padding=(1, 1),
)  # fmt: skip


def gradients(case: Case, plan: TilePlan) -> None:
    """Asserts that outputs and gradients are those of torch in float64, up to rounding."""
    kept, shape = torch.from_numpy(kept_of(case.structure)), case.shape
    # What tiles do not keep is no number: nothing may read it.
    weight = torch.from_numpy(case.weight).masked_fill(~kept, float("nan")).requires_grad_()
    bias = torch.from_numpy(case.bias).requires_grad_()
    x = case.x.clone().requires_grad_()
    out = tile_wise(x, weight, bias, plan)
    grad = torch.randn(out.shape, generator=torch.Generator().manual_seed(0)).to(out.dtype)
    out.backward(grad)
    leaves = [
        each.detach().double().requires_grad_() for each in (x, torch.from_numpy(case.weight), bias)
    ]
    expected = functional.conv2d(
        leaves[0].permute(0, 3, 1, 2), leaves[1], leaves[2],
        stride=shape.stride, padding=shape.padding, dilation=shape.dilation,
    ).permute(0, 2, 3, 1)  # fmt: skip
    expected.backward(grad.double())
    unit = HALF_UNIT[case.dtype]
    close(out, expected, unit)
    close(x.grad, leaves[0].grad, unit)
    close(weight.grad, leaves[1].grad * kept, 2.0**-20)
    close(bias.grad, leaves[2].grad, 2.0**-20)


def close(got: torch.Tensor | None, expected: torch.Tensor | None, unit: float) -> None:
    """Asserts equality but for one rounding, and float32 sums of some hundred terms of a few units."""
    assert got is not None
    assert expected is not None
    torch.testing.assert_close(got.double(), expected, rtol=unit, atol=2.0**-14)


@pytest.mark.smoke
def test_a_linear_layer() -> None:
    gradients(*planned(make(LINEAR, tw(32, 8), 0.75)))


def planned(case: Case, launch: Launch = SMALL) -> tuple[Case, TilePlan]:
    return case, TilePlan(case.structure, case.shape, CPU, launch=launch)


@pytest.mark.parametrize(
    ("changes", "pattern", "sparsity", "dtype"),
    [
        ({}, tw(32, 1), 0.5, "f16"),
        ({}, tw(32, 8, split="inputs"), 0.5, "bf16"),
        ({}, tw(8, 16, uniform=False), 0.5, "f16"),
        ({"out_channels": 64}, tw(16, 8, split="inputs"), 0.5, "f16"),
        ({"in_channels": 33}, tw(16, 8), 0.5, "bf16"),
        ({}, tw(32, 8), 0.0, "bf16"),
        ({}, tw(32, 8), 1.0, "bf16"),
    ],
)
def test_linear_layers(changes: dict[str, int], pattern: Pattern, sparsity: float, dtype: str) -> None:
    gradients(*planned(make(dataclasses.replace(LINEAR, **changes), pattern, sparsity, dtype)))


@pytest.mark.parametrize(
    ("changes", "pattern", "dtype"),
    [
        ({}, tw(32, 8), "bf16"),
        ({"stride": (2, 1)}, tw(16, 8, split="inputs"), "f16"),
        ({"stride": (2, 2), "kernel": (1, 1), "padding": (0, 0)}, tw(16, 8), "bf16"),
        ({"stride": (1, 3), "dilation": (2, 1), "kernel": (3, 2), "padding": (2, 0)}, tw(16, 4), "f16"),
        ({"kernel": (1, 1), "padding": (0, 0)}, tw(16, 8), "f16"),
        ({"in_height": 1, "in_width": 9, "stride": (3, 3)}, tw(16, 8), "f16"),
    ],
)
def test_convolutions(changes: dict[str, object], pattern: Pattern, dtype: str) -> None:
    gradients(*planned(make(dataclasses.replace(CONV, **changes), pattern, 0.6, dtype)))


def test_sums_in_parts() -> None:
    gradients(*planned(make(LINEAR, tw(16, 8), 0.5), dataclasses.replace(SMALL, split_k=2)))


def test_rows_in_parts_and_usual_launch_parameters() -> None:
    shape = dataclasses.replace(LINEAR, in_height=1100, in_channels=16, out_channels=16)
    case = make(shape, tw(16, 8), 0.5, "f16")
    assert usual_launch(16) == Launch(bm=128, bn=16, bk=32, warps=4, stages=4)
    gradients(case, TilePlan(case.structure, shape, CPU))


@pytest.mark.parametrize("shape", [LINEAR, CONV], ids=["linear", "conv"])
def test_parts_of_rows_may_be_empty(shape: LayerShape) -> None:
    case, _ = planned(make(shape, tw(16, 8, split="inputs"), 0.5))
    order = OutputOrder.of(case.structure)
    generator = torch.Generator().manual_seed(0)
    grad = torch.randn(*case.out_extents[:-1], order.outputs.size, generator=generator)
    grad = grad.to(torch.bfloat16)
    found = []
    for parts in (1, 5):
        launch = dataclasses.replace(SMALL, bm=32, split_k=parts)
        gradient = WeightGradient(case.structure, order, shape, launch, CPU)
        out = Guarded(torch.full(gradient.parts_shape, float("nan")), guard=3.0)
        gradient.call(case.x, grad, out.tensor).run()
        out.check()
        assert torch.isfinite(out.tensor).all()
        found.append(out.tensor.sum(0))
    torch.testing.assert_close(found[0], found[1], rtol=2.0**-20, atol=2.0**-16)


def test_empty_and_interleaved_tiles() -> None:
    def ints(*values: int) -> np.ndarray:
        return np.array(values, dtype=np.int32)

    tiles = (Tile(ints(0, 2, 9), ints(1, 2)), Tile(ints(1, 5), ints()), Tile(ints(3, 4), ints(0, 4)))
    structure = TileStructure((11, 40, 1, 1), 4, 8, tiles, ints(6, 7, 8, 10))
    shape = dataclasses.replace(LINEAR, out_channels=11)
    order = OutputOrder.of(structure)
    assert order.outputs.tolist() == [0, 2, 9, 3, 4, -1, -1, -1]
    assert order.starts.tolist() == [0, 3, 5]
    gradients(*planned(make(shape, tw(4, 8), structure=structure)))


def test_without_bias_and_without_need() -> None:
    case, plan = planned(make(LINEAR, tw(32, 8), 0.5))
    weight = torch.from_numpy(case.weight).requires_grad_()
    tile_wise(case.x, weight, None, plan).float().sum().backward()
    assert weight.grad is not None
    with torch.no_grad():
        assert not tile_wise(case.x, weight, None, plan).requires_grad


def test_a_weight_of_a_linear_layer_may_have_two_extents() -> None:
    case, plan = planned(make(LINEAR, tw(32, 8), 0.5))
    structure = dataclasses.replace(case.structure, shape=(70, 40))
    weight = torch.from_numpy(case.weight[:, :, 0, 0]).requires_grad_()
    out = tile_wise(case.x, weight, None, TilePlan(structure, LINEAR, CPU, launch=SMALL))
    assert torch.equal(out, tile_wise(case.x, torch.from_numpy(case.weight), None, plan))
    out.float().sum().backward()
    assert weight.grad is not None
    assert weight.grad.shape == (70, 40)


def test_a_training_step_lowers_the_loss() -> None:
    case, plan = planned(make(LINEAR, tw(16, 8), 0.5))
    weight = torch.zeros(case.weight.shape, requires_grad=True)
    wanted = torch.from_numpy(case.expected()).float()
    optimizer = torch.optim.SGD([weight], lr=2.0)
    losses = []
    for _ in range(4):
        loss = functional.mse_loss(
            tile_wise(case.x, weight, torch.from_numpy(case.bias), plan).float(), wanted
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.7 * losses[0]


def test_tensors_that_do_not_fit_are_refused() -> None:
    case, plan = planned(make(LINEAR, tw(32, 8), 0.5))
    with pytest.raises(UsageError, match=r"x must be \(2, 13, 1, 40\)"):
        tile_wise(case.x[:1], torch.from_numpy(case.weight), None, plan)
    with pytest.raises(UsageError, match=r"torch\.float32"):
        tile_wise(case.x.float(), torch.from_numpy(case.weight), None, plan)
