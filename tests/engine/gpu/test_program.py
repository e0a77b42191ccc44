"""Whole models as GPUs run them, on the CPU: kernels in their interpreter, libraries through torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import autosparse
from autosparse import models
from autosparse.engine.gpu.compiling import Place, compile_on
from autosparse.errors import MissingDependency, PlanError, UsageError
from autosparse.graph import Exported
from autosparse.kernels.gpu.chips import CHIPS
from autosparse.patterns import parse_pattern
from autosparse.plans.plan import Plan
from autosparse.plans.pruning import sparsify
from autosparse.records import LayerChoice

pytest.importorskip("triton", reason="triton, which kernels of GPUs are written in, is not installed")

HERE = Place(device=torch.device("cpu"), chip=CHIPS[9, 0])
SMALL = "bk=16,bm=16,bn=16,ctas=1,split_k=1,stages=2,warps=4"
TOLERANCE = {"bf16": 3e-2, "f16": 4e-3}


def compiled(module: nn.Module, *inputs: torch.Tensor, **how: Any) -> autosparse.CompiledModel:
    return compile_on(Exported(module.eval(), inputs), HERE, **how)


def off(got: torch.Tensor, expected: torch.Tensor) -> float:
    return float((got - expected).abs().max() / expected.abs().max())


def tiles(model: nn.Module, kernel: str | None = None, **layers: str) -> Plan:
    """A plan of labels as tw16k8@0.75, and the model pruned by it."""
    choices = {}
    for name, label in layers.items():
        pattern, _, sparsity = label.partition("@")
        choices[name] = LayerChoice(
            pattern=parse_pattern(pattern), sparsity=float(sparsity), dtype="bf16", kernel=kernel
        )
    plan = Plan(model="test", layers=choices)
    sparsify(model, plan)
    return plan


class Encoder(nn.Module):
    """Attention over embedded tokens, as BERT has it, with masks made inside."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, 32)
        self.q, self.k, self.v, self.o = (nn.Linear(32, 32) for _ in range(4))
        self.one, self.two = nn.LayerNorm(32), nn.LayerNorm(32)
        self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32)

    def forward(self, tokens: torch.Tensor, lengths: torch.Tensor) -> dict[str, torch.Tensor]:
        x = self.embed(tokens)
        b, t, _ = x.shape
        alive = torch.arange(t)[None] < lengths[:, None]
        bias = torch.zeros(b, 1, 1, t).masked_fill(~alive[:, None, None], -1e9)
        heads = [each(x).view(b, t, 4, 8).transpose(1, 2) for each in (self.q, self.k, self.v)]
        mixed = nn.functional.scaled_dot_product_attention(*heads, attn_mask=bias)
        x = self.one(x + self.o(mixed.transpose(1, 2).reshape(b, t, 32)))
        x = self.two(x + self.down(nn.functional.gelu(self.up(x))))
        return {"states": x, "mean": x.mean(1)}


TOKENS = (torch.randint(0, 40, (2, 6)), torch.tensor([6, 3]))


@pytest.mark.parametrize(
    ("name", "dtype"), [("resnet20", "bf16"), ("resnet20", "f16"), ("mobilenet_v2", "bf16")]
)
def test_networks_of_the_zoo_compute_what_torch_does(name: str, dtype: str) -> None:
    module = models.resolve(name).module.eval()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with compiled(module, x, dtype=dtype) as model, torch.no_grad():
        assert model.engine == "autosparse" and not model.why
        assert all("__cuda_cu" in layer.kernel for layer in model.layers)
        assert off(model(x), module(x)) < TOLERANCE[dtype]
        assert np.array_equal(model(x.numpy()), model(x).numpy())
        assert model(x).is_contiguous() and model(x).dtype == torch.float32


@pytest.mark.smoke
def test_an_encoder_runs_with_its_products_on_ours_and_the_rest_on_torch() -> None:
    torch.manual_seed(0)
    module = Encoder().eval()
    with compiled(module, *TOKENS) as model, torch.no_grad():
        got, expected = model(*TOKENS), module(*TOKENS)
        assert got.keys() == expected.keys()
        assert all(off(got[key], expected[key]) < TOLERANCE["bf16"] for key in expected)
        assert {layer.name for layer in model.layers} == {"q", "k", "v", "o", "up", "down"}
        assert set(model.measure_layers(2)) == {layer.name for layer in model.layers}


def test_tiles_of_a_plan_are_used() -> None:
    torch.manual_seed(0)
    module = Encoder().eval()
    name = f"bf16_tw__cuda_triton[{SMALL}]"
    plan = tiles(module, name, up="tw16k8@0.5", down="tw16k16@0.75", q="tw16k8-inputs@0.5")
    with compiled(module, *TOKENS, plan=plan) as model, torch.no_grad():
        layers = {layer.name: layer for layer in model.layers}
        assert layers["down"].kernel == name and layers["down"].pattern == "tw16k16"
        assert layers["down"].sparsity == pytest.approx(0.75, abs=0.02)
        assert layers["k"].pattern == "dense"
        got, expected = model(*TOKENS), module(*TOKENS)
        assert all(off(got[key], expected[key]) < TOLERANCE["bf16"] for key in expected)


def test_convolutions_run_as_tiles_with_sums_and_norms() -> None:
    torch.manual_seed(0)
    module = models.resolve("resnet20").module.eval()
    name = f"bf16_tw__cuda_triton[{SMALL}]"
    plan = tiles(module, name, **{"layer1.0.conv2": "tw16k8@0.75", "layer2.0.conv1": "tw16k16@0.5"})
    x = torch.randn(1, 3, 8, 8)
    with compiled(module, x, plan=plan) as model, torch.no_grad():
        shapes = {layer.name: layer.shape for layer in model.layers}
        assert shapes["layer1.0.conv2"] and shapes["layer1.0.conv2"].residual
        assert off(model(x), module(x)) < TOLERANCE["bf16"]


def test_without_rows_zeros_are_no_reason_to_run_sparse_but_a_plan_is() -> None:
    module = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 8))
    plan = tiles(module, **{"0": "tw32k16@0.75"})
    x = torch.randn(4, 64)
    with compiled(module, x) as model:
        assert model.layers[0].pattern == "dense" and "library's kernel" in model.layers[0].why
    wanted = dataclasses.replace(plan)
    with compiled(module, x, plan=wanted) as model, torch.no_grad():
        assert model.layers[0].pattern == "tw32k16"
        assert "sparse by the plan" in model.layers[0].why
        assert off(model(x), module(x)) < TOLERANCE["bf16"]


def test_the_module_and_its_weights_stay_as_they_are() -> None:
    module = Encoder().eval()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with compiled(module, *TOKENS) as model:
        assert model.weight_bytes > 0
        first = model(*TOKENS)["mean"]
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.zero_()
        assert torch.equal(model(*TOKENS)["mean"], first), "it has its own weights"
    assert before["q.weight"].dtype == module.q.weight.dtype == torch.float32


def test_what_torch_alone_runs_is_told() -> None:
    with compiled(nn.Softmax(dim=1), torch.randn(2, 5)) as model:
        assert model.engine == "torch" and model.layers == ()
        torch.testing.assert_close(
            model(torch.zeros(2, 5)), torch.full((2, 5), 0.2), rtol=1e-2, atol=1e-2
        )


@pytest.mark.parametrize(
    ("how", "error", "told"),
    [
        ({"dtype": "f32"}, UsageError, "dtype must be bf16 or f16 on a GPU"),
        (
            {"plan": Plan(model="x", layers={"0": LayerChoice(
                pattern=parse_pattern("tw32k16"), sparsity=0.75, dtype="bf16")})},
            PlanError, "must hold the plan's zeros",
        ),
        (
            {"plan": Plan(model="x", layers={"0": LayerChoice(kernel="f16_dense__cuda_cublas")})},
            PlanError, "must compute in the type of its model",
        ),
        ({"plan": Plan(model="x", layers={"9": LayerChoice()})}, PlanError, "name only layers"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(
    how: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        compiled(nn.Sequential(nn.Linear(64, 64)), torch.randn(2, 64), **how)


def test_a_compiler_of_torch_sees_each_layer_as_one_operator() -> None:
    seen: list[str] = []

    def compiler(program: torch.fx.GraphModule) -> Callable[..., Any]:
        def backend(graph: torch.fx.GraphModule, _: Any) -> Callable[..., Any]:
            seen.extend(str(node.target) for node in graph.graph.nodes if node.op == "call_function")
            return graph.forward

        return torch.compile(program, backend=backend, fullgraph=True)  # type: ignore[no-any-return]

    torch.manual_seed(0)
    module = Encoder().eval()
    with compiled(module, *TOKENS, compiler=compiler) as model, torch.no_grad():
        got, expected = model(*TOKENS), module(*TOKENS)
        assert all(off(got[key], expected[key]) < TOLERANCE["bf16"] for key in expected)
    assert sum("autosparse.gpu_layer" in name for name in seen) == 6
    torch._dynamo.reset()


def test_here_there_is_no_gpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("this host has a GPU")
    with pytest.raises(MissingDependency, match="device cuda was asked for, but") as error:
        autosparse.compile(nn.Linear(3, 3), (torch.zeros(1, 3),), device="cuda")
    assert error.value.exit_code == 7
