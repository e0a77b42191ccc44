"""Layers on a GPU: numerics through `run` on the CPU, and which memory runs take in turn."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from autosparse.devices.device import kind_of
from autosparse.devices.kinds.cuda.layer import MOST_PLACES, LayerOnGpu, places_for
from autosparse.devices.layer import BYTES, Layer, random_layer
from autosparse.devices.verify import magnitude, part_of, reference, why_wrong
from autosparse.errors import NoKernel
from autosparse.kernels.gpu.chips import chip_of
from autosparse.kernels.gpu.method import GpuKernel, get, kernels_for, method_of
from autosparse.measuring.stopwatch import LAYERS
from autosparse.patterns import parse_pattern
from autosparse.records import DENSE, Activation, LayerShape, Pattern, Status
from autosparse.tuning import layer_job
from autosparse.tuning.layer_job import LayerJob

CPU = torch.device("cpu")
CONV = LayerShape(
    op="conv2d", batch_size=2, in_channels=16, out_channels=24, in_height=7, in_width=6,
    kernel=(3, 3), stride=(2, 1), padding=(1, 1), activation=Activation.RELU, residual=True,
)  # fmt: skip
LINEAR = LayerShape(
    op="linear", batch_size=3, in_channels=40, out_channels=24, in_height=5, activation=Activation.GELU
)
POINTWISE = LayerShape(
    op="conv2d", batch_size=1, in_channels=16, out_channels=40, in_height=5, in_width=3
)
TILES = parse_pattern("tw16k8")


def kernels(shape: LayerShape, pattern: Pattern, dtype: str) -> Iterator[tuple[GpuKernel, str]]:
    """Lists what runs on a CPU too, with its first and last launch parameters."""
    chip = chip_of("9.0")
    assert chip is not None
    for kernel in kernels_for(shape, pattern, dtype, chip):
        if kernel.method in ("cublas", "cudnn", "triton"):
            launches = method_of(kernel).launches(kernel, shape, pattern, chip)
            yield from ((kernel, launch) for launch in dict.fromkeys((launches[0], launches[-1])))


def outputs(layer: Layer, kernel: GpuKernel, launch: str) -> np.ndarray:
    got = np.full(layer.shape.output_shape, np.nan, np.float32)
    with LayerOnGpu(layer, kernel, launch, CPU, copies=2) as built:
        built.run(layer.inputs, got)
    return got


@pytest.mark.parametrize("dtype", ["bf16", "f16"])
@pytest.mark.parametrize("shape", [CONV, LINEAR, POINTWISE], ids=["conv", "linear", "pointwise"])
@pytest.mark.parametrize(("pattern", "sparsity"), [(DENSE, 0.0), (TILES, 0.5)], ids=["dense", "tw"])
def test_outputs_are_those_of_the_reference(
    dtype: str, shape: LayerShape, pattern: Pattern, sparsity: float
) -> None:
    layer = random_layer(shape, pattern, sparsity, dtype)
    x, residual = layer.inputs[0], layer.inputs[1] if shape.residual else None
    expected = reference(shape, x, layer.weight, layer.bias, residual)
    size, device, seen = magnitude(shape, x, layer.weight), kind_of("cuda"), 0
    for kernel, launch in kernels(shape, pattern, dtype):
        got, allowed = outputs(layer, kernel, launch), device.tolerance(layer, kernel.name, size)
        assert not why_wrong(got, expected, allowed), (kernel.name, launch)
        assert why_wrong(got + 3 * allowed, expected, allowed), "tolerances tell right from wrong"
        seen += 1
    assert seen >= (2 if pattern.is_dense else 1)


def test_tolerances_grow_with_what_libraries_round_and_tensor_cores_cut_off() -> None:
    layer, device = random_layer(LINEAR, DENSE, 0.0, "f16"), kind_of("cuda")
    own, library = (device.tolerance(layer, f"f16_dense__cuda_{m}", 1.0) for m in ("triton", "cublas"))
    assert own < 4 * 2.0**-11 < library < 0.05
    deep = dataclasses.replace(LINEAR, in_channels=16 * 1024)
    longer = dataclasses.replace(layer, shape=deep, kept=deep.in_channels)
    assert own < device.tolerance(longer, "f16_dense__cuda_triton", 1.0) < 8 * own


@pytest.mark.parametrize("dtype", ["bf16", "f16"])
def test_layers_hold_what_their_type_can(dtype: str) -> None:
    layer = random_layer(CONV, DENSE, 0.0, dtype)
    type_ = {"bf16": torch.bfloat16, "f16": torch.float16}[dtype]
    for values in (layer.weight, *layer.inputs):
        given = torch.from_numpy(values)
        assert torch.equal(given.to(type_).float(), given)
        assert BYTES[dtype] == given.to(type_).element_size()


def test_what_is_never_written_is_nan(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, kernel = random_layer(POINTWISE, DENSE, 0.0, "bf16"), get("bf16_dense__cuda_cublas")
    with LayerOnGpu(layer, kernel, "", CPU) as built:
        monkeypatch.setattr(built, "_prepared", [lambda x, residual, out: out[..., 1:].zero_()])
        got = np.zeros(layer.shape.output_shape, np.float32)
        built.run(layer.inputs, got)
    assert np.isnan(got[:, 0]).all() and not np.isnan(got[:, 1:]).any()


def test_copies_have_weights_of_their_own() -> None:
    layer, kernel = random_layer(CONV, TILES, 0.5, "bf16"), get("bf16_tw__cuda_triton")
    [(_, launch), *_] = kernels(CONV, TILES, "bf16")
    with (
        LayerOnGpu(layer, kernel, launch, CPU) as one,
        LayerOnGpu(layer, kernel, launch, CPU, copies=3) as three,
    ):
        assert three.weight_bytes == 3 * one.weight_bytes > 0
        calls = three._calls(layer.inputs)
        assert len(calls) == 3
        assert len({id(call.func) for call in calls}) == 3  # type: ignore[attr-defined]
        for call in calls:
            call()
        first, *others = (call.args[2] for call in calls)  # type: ignore[attr-defined]
        assert all(torch.equal(first, other) for other in others)


def test_the_clock_is_a_gpus() -> None:
    layer, kernel = random_layer(LINEAR, DENSE, 0.0, "bf16"), get("bf16_dense__cuda_cublas")
    with LayerOnGpu(layer, kernel, "", CPU) as built:
        with pytest.raises(
            NoKernel, match="the clock is a GPU's, but bf16_dense__cuda_cublas on linear"
        ):
            built.runner(layer.inputs)


def test_eight_bits_need_a_scale_that_a_layer_alone_has_not() -> None:
    layer = random_layer(CONV, TILES, 0.5, "bf16")
    with pytest.raises(
        NoKernel, match="fp8_tw__cuda_triton computes in fp8: their inputs need a scale"
    ):
        LayerOnGpu(layer, get("fp8_tw__cuda_triton"), "", CPU)


@pytest.mark.parametrize(
    ("copies", "run_bytes", "places"),
    [(1, 200 << 20, 1), (1, 30 << 20, 4), (64, 30 << 20, 4), (5, 20 << 20, 10), (37, 30 << 20, 4)],
)
def test_twice_the_cache_lies_between_two_uses(copies: int, run_bytes: int, places: int) -> None:
    found = places_for(copies, run_bytes, 50 << 20)
    assert found == places
    assert (found - 1) * run_bytes >= 2 * (50 << 20) - run_bytes
    assert math.lcm(copies, found) <= 4 * max(copies, found), "graphs stay short"


def test_tiny_layers_take_so_many_places_and_no_more() -> None:
    assert MOST_PLACES <= places_for(64, 1 << 10, 50 << 20) <= 2 * MOST_PLACES
    assert places_for(3, 1 << 10, 0) == 1


# --------------------------------------------------------------------------------- checked as a whole


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_some_outputs_are_those_of_the_whole(batch: int) -> None:
    shape = dataclasses.replace(CONV, batch_size=batch)
    layer = random_layer(shape, TILES, 0.5, "bf16")
    given = (shape, layer.inputs[0], layer.weight, layer.bias, layer.inputs[1])
    part = part_of(shape)
    assert {0, batch - 1} <= set(part.samples) and len(part.samples) <= 3
    np.testing.assert_allclose(part.reference(*given), part.of(reference(*given)), rtol=1e-12)


def test_of_large_layers_few_outputs_are_computed() -> None:
    large = LayerShape(op="linear", batch_size=1, in_channels=4096, out_channels=4096, in_height=4096)
    part = part_of(large)
    assert part.samples == (0,)
    assert 1 <= len(part.outputs) < 40 and {0, 4095} <= set(part.outputs)


class _Wrong(LayerOnGpu):
    """A layer whose last sample is wrong where there are several, as of a loop that ends too soon."""

    def run(self, inputs: object, output: np.ndarray) -> None:  # type: ignore[override]
        super().run(inputs, output)
        if len(output) > 1:
            output[-1] = 0


@pytest.mark.parametrize("kind", [LayerOnGpu, _Wrong])
def test_a_kernel_that_is_wrong_on_large_layers_alone_is_found(
    kind: type[LayerOnGpu], monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(layer: Layer, kernel: str, threads: int, **how: object) -> LayerOnGpu:
        return kind(layer, get(kernel), str(how["config"]), CPU)

    shape = dataclasses.replace(CONV, batch_size=4)
    monkeypatch.setattr("autosparse.devices.verify.REFERENCE_FLOPS", shape.flops // 2)
    device = kind_of("cuda")
    monkeypatch.setattr(device, "build", build)
    job = LayerJob(
        shape=shape, pattern=DENSE, sparsity=0.0, kernel="bf16_dense__cuda_cudnn", dtype="bf16",
        threads=1, policy=LAYERS, config="epilogue=after", device="cuda",
    )  # fmt: skip
    found = layer_job.measure(job)
    if kind is _Wrong:
        assert found.status is Status.WRONG
        assert found.message.startswith("of the whole layer, ")
    else:
        assert found.status is Status.ERROR, "right, but there is no clock"
        assert "the clock is a GPU's" in found.message
