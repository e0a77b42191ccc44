from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from autosparse.devices.kinds.cpu.method_work import FILTERINGS, summing
from autosparse.devices.kinds.cpu.program import LayerOnCpu
from autosparse.devices.layer import random_layer
from autosparse.devices.verify import (
    REFERENCE_FLOPS,
    largest_error,
    magnitude,
    reference,
    twin,
    why_wrong,
)
from autosparse.kernels import spec
from autosparse.kernels.layer import structure_of
from autosparse.measuring.stopwatch import LAYERS
from autosparse.records import DENSE, LayerShape, Status, onexn
from autosparse.tuning import layer_job
from autosparse.tuning.layer_job import LayerJob, Outcome, measure

sys.path.insert(0, str(Path(__file__).parent))
from tuning_layers import conv, linear


def tolerance(shape: LayerShape, kept: int, size: float, method: str = "px") -> float:
    additions, growth = summing(shape, kept, method)
    return largest_error(shape, additions, size, "f32", growth)


SHAPES = [
    conv(8, 9, activation="relu"),
    conv(6, 11, out_channels=10, stride=(2, 2), kernel=(5, 3), padding=(2, 0), residual=True),
    conv(4, 13, dilation=(2, 1), padding=(2, 1), activation="relu6", residual=True),
    conv(3, 12, out_channels=16, kernel=(7, 7), stride=(2, 2), padding=(3, 3), batch_size=2),
    conv(16, 7, kernel=(1, 1), padding=(0, 0)),
    linear(20, 10, activation="relu"),
    *(
        conv(8, 9, activation=name, residual=name == "silu")
        for name in ("silu", "hard_swish", "hard_sigmoid", "sigmoid", "gelu")
    ),
]
ACTIVATIONS = {
    "none": lambda x: x,
    "relu": F.relu,
    "relu6": F.relu6,
    "silu": F.silu,
    "hard_swish": F.hardswish,
    "hard_sigmoid": F.hardsigmoid,
    "sigmoid": torch.sigmoid,
    "gelu": F.gelu,
}
QUICK = replace(LAYERS, warmup_us=100.0, time_cap_us=2_000.0, target_ci=0.2)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.key)
def test_reference_agrees_with_an_independent_one(shape) -> None:
    layer = random_layer(shape, DENSE, 0.0)
    x, weight, bias = (
        torch.from_numpy(a).double() for a in (layer.inputs[0], layer.weight, layer.bias)
    )
    expected = torch.nn.functional.conv2d(
        x, weight, bias, stride=shape.stride, padding=shape.padding, dilation=shape.dilation
    )
    if shape.residual:
        expected = expected + torch.from_numpy(layer.inputs[1])
    expected = ACTIVATIONS[shape.activation](expected)
    got = reference(
        shape, layer.inputs[0], layer.weight, layer.bias, layer.inputs[1] if shape.residual else None
    )
    np.testing.assert_allclose(got, expected.numpy(), rtol=1e-12, atol=1e-12)


def test_random_layers_have_the_sparsity_that_was_asked_for() -> None:
    layer = random_layer(conv(32, 5), onexn(8), 0.75)
    blocks = layer.weight.reshape(4, 8, 32, 9).any(axis=(1, 3))
    assert (blocks.sum(axis=1) == 8).all()
    assert layer.kept == 8
    structure = structure_of(layer.weight, layer.pattern)
    assert (structure.to_mask(32) == blocks).all()
    out = reference(layer.shape, layer.inputs[0], layer.weight, layer.bias, None)
    assert 0.5 < out.std() < 3


class TestTwin:
    def test_a_cheap_layer_is_its_own_twin(self) -> None:
        assert twin(conv(64, 56)) == conv(64, 56)

    def test_a_costly_layer_is_cropped(self) -> None:
        shape = conv(128, 112, batch_size=4)
        small = twin(shape)
        assert small.flops <= REFERENCE_FLOPS
        assert (small.in_channels, small.kernel, small.in_width) == (128, (3, 3), 112)
        assert small.batch_size == 1

    def test_a_batch_goes_first(self) -> None:
        shape = conv(64, 56, batch_size=8)
        assert twin(shape) == replace(shape, batch_size=1)

    def test_what_is_left_still_fits_the_kernel(self) -> None:
        shape = conv(2048, 200, kernel=(7, 7), padding=(0, 0))
        assert twin(shape).out_height == 1


class TestWrong:
    def test_one_missing_term_is_seen(self) -> None:
        for shape in (conv(8, 8), conv(256, 8), linear(4096, 16)):
            layer = random_layer(shape, DENSE, 0.0)
            expected = reference(shape, layer.inputs[0], layer.weight, layer.bias, None)
            weight = layer.weight.copy()
            # Zero the weight of median size: half of all would be seen even better.
            index = np.argsort(np.abs(weight), axis=None)[weight.size // 2]
            weight.flat[index] = 0
            got = reference(shape, layer.inputs[0], weight, layer.bias, None).astype(np.float32)
            size = magnitude(shape, layer.inputs[0], layer.weight)
            for method in ("px", *(FILTERINGS if shape.taps > 1 else ())):
                allowed = tolerance(shape, layer.kept, size, method)
                assert why_wrong(got, expected, allowed), method
                assert not why_wrong(expected.astype(np.float32), expected, allowed)

    def test_operands_of_half_the_digits_are_seen(self) -> None:
        shape = conv(64, 16)
        layer = random_layer(shape, DENSE, 0.0)
        x, weight = layer.inputs[0], layer.weight
        expected = reference(shape, x, weight, layer.bias, None)
        got = reference(shape, x, weight.astype(np.float16), layer.bias, None)
        allowed = tolerance(shape, layer.kept, magnitude(shape, x, weight), "wf")
        assert why_wrong(got, expected, allowed)

    def test_an_unwritten_output_is_seen(self) -> None:
        expected = np.zeros((1, 2, 3, 4))
        got = np.zeros((1, 2, 3, 4), np.float32)
        got[0, 1, 2, 3] = np.nan
        assert "1 of 24" in why_wrong(got, expected, 1e-3)
        assert "(0, 1, 2, 3)" in why_wrong(got, expected, 1e-3)

    def test_rounding_of_float32_is_allowed(self) -> None:
        generator = np.random.default_rng(0)
        for terms in (1, 27, 576, 4608):
            products = generator.standard_normal((2000, terms)) / np.sqrt(terms)
            exact = products.sum(axis=1)
            rounded = np.zeros(2000, np.float32)
            for column in products.astype(np.float32).T:
                rounded += column
            size = float(np.sqrt(np.square(products).sum(axis=1).max()))
            allowed = tolerance(linear(terms, 2000), terms, size)
            assert not why_wrong(rounded, exact, allowed)
            # 16 times is what one digit of sixteen less would be off by.
            assert why_wrong(exact + 16 * (rounded - exact), exact, allowed) or terms == 1

    @pytest.mark.parametrize("method", FILTERINGS)
    def test_the_growth_of_errors_is_that_of_the_matrices(self, method: str) -> None:
        filtering = FILTERINGS[method]
        points, taps, outputs = filtering.points, filtering.taps, filtering.outputs
        # Rows of the transforms by evaluating polynomials, not by the formula that is under test.
        kernels = np.random.default_rng(0).standard_normal((20_000, taps))
        inputs = np.random.default_rng(1).standard_normal((20_000, filtering.inputs))
        position = np.empty((20_000, filtering.inputs))
        for index, point in enumerate(points):
            others = [other for other in points if other != point]
            polynomial = np.poly(others)[::-1]
            value = kernels @ point ** np.arange(taps) / np.prod(point - np.array(others))
            position[:, index] = value * (inputs[:, : len(others) + 1] @ polynomial)
        position[:, -1] = kernels[:, -1] * (inputs @ np.poly(points)[::-1])
        back = np.array(
            [[point**row for point in points] + [row == outputs - 1] for row in range(outputs)]
        )
        direct = np.stack(
            [(kernels * inputs[:, o : o + taps]).sum(axis=1) for o in range(outputs)], axis=1
        )
        np.testing.assert_allclose(position @ back.T, direct, atol=1e-9)
        spread = np.sqrt((position**2).mean(axis=0) @ back.T**2) / direct.std(axis=0)
        assert filtering.growth == pytest.approx(spread.max() ** 2, rel=0.1)


def job(shape, pattern, sparsity, kernel, **changes) -> LayerJob:
    values = {"dtype": "f32", "threads": 1, "policy": QUICK, **changes}
    return LayerJob(shape=shape, pattern=pattern, sparsity=sparsity, kernel=kernel, **values)


class TestRealKernels:
    @pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.key)
    @pytest.mark.parametrize(("pattern", "sparsity"), [(DENSE, 0.0), (onexn(4), 0.5), (onexn(8), 1.0)])
    def test_verified_and_timed(self, shape, pattern, sparsity) -> None:
        for kernel in spec.kernels_for(shape, pattern)[:2]:
            outcome = measure(job(shape, pattern, sparsity, kernel.name))
            assert outcome.status is Status.OK, outcome.message
            assert 0 < outcome.ci_low_us <= outcome.median_us <= outcome.ci_high_us

    @pytest.mark.parametrize(("sparsity", "channels"), [(0.5, 32), (0.9, 64), (0.9375, 16)])
    def test_sparse_filtering_is_rounding_and_not_wrong(self, sparsity: float, channels: int) -> None:
        shape = conv(channels, 56, out_channels=64, activation="relu")
        layer = random_layer(shape, onexn(32), sparsity)
        expected = reference(shape, layer.inputs[0], layer.weight, layer.bias, None)
        size = magnitude(shape, layer.inputs[0], layer.weight)
        kernels = [k for k in spec.kernels_for(shape, onexn(32)) if k.method in FILTERINGS]
        if not kernels:
            pytest.skip("this build has no sparse kernels of Winograd's filtering for N = 32")
        for kernel in kernels:
            with LayerOnCpu(layer, kernel, 1) as built:
                [got] = built.program.run(layer.inputs)
            allowed = tolerance(shape, layer.kept, size, kernel.method)
            assert not why_wrong(got, expected, allowed), kernel.name
            # Far from blind: one kernel position of one kept input of one output is missed.
            broken = layer.weight.copy()
            output, input_ = np.argwhere(broken.any(axis=(2, 3)))[-1]
            broken[output, input_, 1, 1] = 0
            without = reference(shape, layer.inputs[0], broken, layer.bias, None)
            assert why_wrong(got + (without - expected).astype(np.float32), expected, allowed)

    def test_copies_compute_the_same(self) -> None:
        layer = random_layer(conv(16, 9, residual=True), onexn(8), 0.5)
        kernel = spec.kernels_for(layer.shape, onexn(8))[0]
        outputs = []
        for copies in (1, 5):
            with LayerOnCpu(layer, kernel, 1, copies=copies) as built:
                assert built.program.op_count == copies
                outputs.append(built.program.run(layer.inputs)[0])
        np.testing.assert_array_equal(*outputs)

    def test_copies_hold_weights_of_their_own(self) -> None:
        layer = random_layer(conv(16, 9), onexn(8), 0.5)
        kernel = spec.kernels_for(layer.shape, onexn(8))[0]
        with LayerOnCpu(layer, kernel, 1) as one, LayerOnCpu(layer, kernel, 1, copies=4) as four:
            assert four.weight_bytes == 4 * one.weight_bytes, "else they would be warm"

    @pytest.mark.parametrize("residual", [False, True])
    def test_other_operators_write_the_inputs_of_copies(self, residual: bool) -> None:
        shape = conv(16, 9, stride=(2, 2), residual=residual)
        layer, kernel = random_layer(shape, DENSE, 0.0), spec.kernels_for(shape, DENSE)[0]
        with LayerOnCpu(layer, kernel, 1, copies=3, writes_inputs=True) as built:
            assert built.program.op_count == 3 * (1 + len(layer.inputs))
            [got] = built.program.run(layer.inputs)
        with LayerOnCpu(layer, kernel, 1) as single:
            np.testing.assert_array_equal(got, single.program.run(layer.inputs)[0])

    @pytest.mark.parametrize("residual", [False, True])
    def test_copies_of_square_layers_are_chained(self, residual: bool) -> None:
        shape = conv(16, 9, residual=residual, activation="relu")
        layer, kernel = random_layer(shape, onexn(8), 0.5), spec.kernels_for(shape, onexn(8))[0]
        with LayerOnCpu(layer, kernel, 1, copies=3, writes_inputs=True) as built:
            assert built.program.op_count == 3
            [got] = built.program.run(layer.inputs)
        x, added = layer.inputs[0], layer.inputs[1] if residual else None
        for _ in range(3):
            x, added = reference(shape, x, layer.weight, layer.bias, added), x if residual else None
        np.testing.assert_allclose(got, x, rtol=1e-4, atol=1e-4)

    def test_a_wrong_kernel_is_not_timed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        shape = conv(8, 6)
        right = random_layer(shape, DENSE, 0.0)
        expected = reference(shape, right.inputs[0], right.weight * 1.001, right.bias, None)
        monkeypatch.setattr(layer_job, "_verification", lambda *key: (right, expected, 1.0))
        kernel = spec.kernels_for(shape, DENSE)[0]
        outcome = measure(job(shape, DENSE, 0.0, kernel.name))
        assert outcome.status is Status.WRONG
        assert outcome.median_us is None
        assert "are off by more than" in outcome.message

    def test_a_kernel_that_refuses_is_an_error_row(self) -> None:
        dense = spec.kernels_for(conv(8, 6), DENSE)[0]
        outcome = measure(job(conv(8, 6), onexn(4), 0.5, dense.name))
        assert outcome.status is Status.ERROR
        assert "dense" in outcome.message
        assert measure(job(conv(8, 6), DENSE, 0.0, dense.name, dtype="bf16")).status is Status.ERROR

    def test_an_impossible_figure_is_unstable(self) -> None:
        kernel = spec.kernels_for(conv(8, 6), DENSE)[0]
        outcome = measure(job(conv(8, 6), DENSE, 0.0, kernel.name, floor_us=1e9))
        assert outcome.status is Status.UNSTABLE
        assert "lower bound" in outcome.message

    def test_a_rival_ends_the_timing(self) -> None:
        kernel = spec.kernels_for(conv(32, 28), DENSE)[0]
        outcome = measure(job(conv(32, 28), DENSE, 0.0, kernel.name, rival_us=0.001))
        assert outcome.beaten

    def test_json(self) -> None:
        request = job(SHAPES[1], onexn(4), 0.5, "any", rival_us=3.0)
        assert LayerJob.from_json(request.to_json()) == request
        outcome = Outcome(status=Status.CRASHED, message="x")
        assert Outcome.from_json(outcome.to_json()) == outcome
