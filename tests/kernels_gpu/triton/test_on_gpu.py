"""The same layers on a GPU, where there is one: right, also in a captured graph, and trained."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from autosparse.kernels.gpu.chips import chip_of
from autosparse.kernels.gpu.launch import Launch
from autosparse.kernels.gpu.method import GivenLayer, get, method_of
from autosparse.kernels.gpu.methods.triton.training import TilePlan, tile_wise
from autosparse.patterns.families.tw import tw
from autosparse.patterns.pattern import Pattern
from autosparse.records import DENSE, Activation, LayerShape
from tests.kernels_gpu.triton.tile_cases import HALF_UNIT, Case, kept_of, make

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(),
    reason="no CUDA device here; kernels were interpreted and compiled only",
)
LINEAR = LayerShape(
    op="linear", batch_size=3, in_height=117, in_channels=256, out_channels=328,
    activation=Activation.GELU, residual=True,
)  # fmt: skip
CONV = LayerShape(
    op="conv2d", batch_size=4, in_height=15, in_width=14, in_channels=64, out_channels=136,
    kernel=(3, 3), padding=(1, 1), stride=(2, 1), activation=Activation.RELU,
)  # fmt: skip
PATTERNS = [DENSE, tw(64, 8), tw(128, 16, split="inputs"), tw(32, 1)]


def close(got: torch.Tensor, case: Case) -> None:
    """Asserts equality but for rounding and float32 sums in another order."""
    expected = torch.from_numpy(case.expected())
    unit = HALF_UNIT[case.dtype]
    torch.testing.assert_close(got.double().cpu(), expected, rtol=1.01 * unit, atol=2.0**-12)


@pytest.mark.parametrize("dtype", ["bf16", "f16"])
@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.name)
@pytest.mark.parametrize("shape", [LINEAR, CONV], ids=["linear", "conv"])
def test_every_offered_launch(shape: LayerShape, pattern: Pattern, dtype: str) -> None:
    case = make(shape, pattern, 0.6, dtype)
    kernel = get(f"{dtype}_{'dense' if pattern.is_dense else 'tw'}__cuda_triton")
    major, minor = torch.cuda.get_device_capability()
    chip = chip_of(f"{major}.{minor}")
    if chip is None:
        pytest.skip(f"kernels are not made for compute capability {major}.{minor}")
    given = GivenLayer(
        shape=shape, weight=case.weight, bias=case.bias, pattern=pattern, structure=case.structure
    )
    method, device = method_of(kernel), torch.device("cuda")
    x, out = case.x.to(device), torch.empty(case.out_extents, dtype=case.x.dtype, device=device)
    residual = None if case.residual is None else case.residual.to(device)
    for text in method.launches(kernel, shape, pattern, chip):
        layer = method.prepare(kernel, given, text, device)
        out.fill_(float("nan"))
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):  # before any other call: all was compiled and loaded
            layer(x, residual, out)
        graph.replay()
        close(out, case)


@pytest.mark.parametrize("shape", [LINEAR, CONV], ids=["linear", "conv"])
def test_gradients_are_those_of_the_interpreter(shape: LayerShape) -> None:
    shape = dataclasses.replace(shape, activation=Activation.NONE, residual=False)
    case = make(shape, tw(64, 8), 0.75)
    found = {}
    for device in ("cuda", "cpu"):
        launch = Launch(bm=64, bn=64, bk=32, warps=4, stages=3)
        plan = TilePlan(case.structure, shape, torch.device(device), launch=launch)
        x = case.x.to(device).requires_grad_()
        weight = torch.from_numpy(case.weight).to(device).requires_grad_()
        out = tile_wise(x, weight, None, plan)
        out.backward(torch.ones_like(out))
        found[device] = [each.detach().float().cpu() for each in (out, x.grad, weight.grad)]
    for got, expected in zip(found["cuda"], found["cpu"], strict=True):
        torch.testing.assert_close(got, expected, rtol=2.0**-7, atol=2.0**-8)
    kept = torch.from_numpy(kept_of(case.structure))
    assert not found["cuda"][2][~kept].any()
