"""Dense baselines: cuBLAS and cuDNN through torch, which computes the same on a processor here."""

from __future__ import annotations

import dataclasses

import pytest

from autosparse.errors import UsageError
from autosparse.kernels.gpu import method as registry
from autosparse.kernels.gpu.chips import CHIPS
from autosparse.patterns.families.tvw import tvw
from autosparse.patterns.pattern import Pattern
from autosparse.records import Activation, LayerShape
from tests.kernels_gpu.libraries.calls import check, dense_layer
from tests.kernels_gpu.sparse_mma.layers import conv, linear

torch = pytest.importorskip("torch")
CPU, AMPERE = torch.device("cpu"), CHIPS[8, 0]
LINEAR = {
    "plain": linear(37, 24, 19),
    "relu": linear(8, 64, 40, activation=Activation.RELU),
    "gelu": linear(5, 17, 64, activation=Activation.GELU),
    "residual": linear(33, 16, 48, residual=True),
    "1x1": conv(2, 24, 16, (5, 3), residual=True, activation=Activation.RELU),
}
CONVOLUTIONS = {
    "plain": conv(2, 16, 24, (9, 8), kernel=(3, 3), padding=(1, 1)),
    "strided": conv(
        1, 3, 16, (15, 9), kernel=(7, 5), stride=(2, 3), padding=(3, 1), dilation=(1, 2),
        activation=Activation.HARD_SWISH,
    ),
    "residual": conv(2, 16, 16, (5, 5), kernel=(3, 3), residual=True, activation=Activation.RELU),
    "depthwise": conv(2, 24, 24, (7, 7), kernel=(3, 3), groups=24, activation=Activation.RELU),
    "in groups": conv(1, 16, 32, (4, 4), groups=2, residual=True),
}  # fmt: skip


def prepared(name: str, shape: LayerShape, dtype: str, launch: str, *, bias: bool) -> None:
    kernel = registry.get(f"{dtype}_dense__cuda_{name}")
    method = registry.method_of(kernel)
    assert registry.why_not(kernel, shape, Pattern(), AMPERE) == ""
    assert launch in method.launches(kernel, shape, Pattern(), AMPERE)
    layer = dense_layer(shape, dtype, bias=bias)
    found = method.prepare(kernel, layer, launch, CPU)
    assert found.weight_bytes >= 2 * shape.weights
    check(found, layer, dtype)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "none"])
@pytest.mark.parametrize("name", LINEAR)
def test_cublas(name: str, bias: bool) -> None:
    prepared("cublas", LINEAR[name], "bf16" if bias else "f16", "", bias=bias)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "none"])
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_cudnn(name: str, bias: bool) -> None:
    shape = CONVOLUTIONS[name]
    prepared("cudnn", shape, "bf16", "epilogue=after", bias=bias)
    if shape.activation is Activation.RELU:
        prepared("cudnn", shape, "bf16", "epilogue=fused", bias=bias)


@pytest.mark.smoke
def test_what_they_do_not_run_they_say() -> None:
    cublas, cudnn = (registry.get(f"bf16_dense__cuda_{name}") for name in ("cublas", "cudnn"))
    dense = Pattern()
    assert "1x1 convolutions of stride 1" in registry.why_not(
        cublas, CONVOLUTIONS["plain"], dense, AMPERE
    )
    strided = dataclasses.replace(LINEAR["1x1"], stride=(2, 2), residual=False)
    assert registry.why_not(cublas, strided, dense, AMPERE)
    assert registry.why_not(cublas, CONVOLUTIONS["in groups"], dense, AMPERE)
    assert registry.why_not(cudnn, LINEAR["plain"], dense, AMPERE) == "it runs convolutions"
    assert "not tw64" in registry.why_not(cublas, LINEAR["plain"], tvw(64), AMPERE)


def test_an_unknown_launch_is_refused() -> None:
    kernel = registry.get("bf16_dense__cuda_cudnn")
    layer = dense_layer(CONVOLUTIONS["plain"], "bf16")
    with pytest.raises(UsageError, match="epilogue=after or epilogue=fused, but got 'x'"):
        registry.method_of(kernel).prepare(kernel, layer, "x", CPU)


def test_facts_name_versions() -> None:
    for name in ("cublas", "cudnn"):
        assert f"torch {torch.__version__.split('+')[0]}" in registry.all_methods()[name].facts()
    assert "cudnn " in registry.all_methods()["cudnn"].facts()


@pytest.mark.parametrize("name", ["cublas", "cudnn"])
def test_on_a_gpu(name: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU: torch alone has computed this, on a processor")
    from tests.kernels_gpu.sparse_mma.on_gpu import compare

    kernel = registry.get(f"bf16_dense__cuda_{name}")
    method = registry.method_of(kernel)
    for shape in (LINEAR if name == "cublas" else CONVOLUTIONS).values():
        if shape.groups == 1:
            layer = dense_layer(shape, "bf16")
            for launch in method.launches(kernel, shape, Pattern(), AMPERE):
                compare(method.prepare(kernel, layer, launch, torch.device("cuda")), layer, "bf16")
