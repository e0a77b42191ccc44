from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from autosparse.kernels import spec
from autosparse.records import DENSE, Status, onexn
from autosparse.tuning import layer_job
from autosparse.tuning.layer_job import LayerJob, Outcome, build, measure, random_layer
from autosparse.tuning.stopwatch import LAYERS
from autosparse.tuning.verify import REFERENCE_FLOPS, reference, tolerance, twin, why_wrong

sys.path.insert(0, str(Path(__file__).parent))
from tuning_layers import conv, linear

SHAPES = [
    conv(8, 9, activation="relu"),
    conv(6, 11, out_channels=10, stride=(2, 2), kernel=(5, 3), padding=(2, 0), residual=True),
    conv(4, 13, dilation=(2, 1), padding=(2, 1), activation="relu6", residual=True),
    conv(3, 12, out_channels=16, kernel=(7, 7), stride=(2, 2), padding=(3, 3), batch_size=2),
    conv(16, 7, kernel=(1, 1), padding=(0, 0)),
    linear(20, 10, activation="relu"),
]
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
    if shape.activation != "none":
        expected = expected.clamp(0, 6 if shape.activation == "relu6" else None)
    got = reference(
        shape, layer.inputs[0], layer.weight, layer.bias, layer.inputs[1] if shape.residual else None
    )
    np.testing.assert_allclose(got, expected.numpy(), rtol=1e-12, atol=1e-12)


def test_random_layers_have_the_sparsity_that_was_asked_for() -> None:
    layer = random_layer(conv(32, 5), onexn(8), 0.75)
    blocks = layer.weight.reshape(4, 8, 32, 9).any(axis=(1, 3))
    assert (blocks.sum(axis=1) == 8).all()
    assert layer.terms == 8 * 9
    assert (layer.structure.to_mask(32) == blocks).all()
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
            allowed = tolerance(layer.terms, "f32")
            assert why_wrong(got, expected, allowed)
            assert not why_wrong(expected.astype(np.float32), expected, allowed)

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
            assert not why_wrong(rounded, exact, tolerance(terms, "f32"))


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

    def test_copies_compute_the_same(self) -> None:
        layer = random_layer(conv(16, 9, residual=True), onexn(8), 0.5)
        kernel = spec.kernels_for(layer.shape, onexn(8))[0]
        outputs = []
        for copies in (1, 5):
            with build(layer, kernel, 1, copies=copies) as program:
                assert program.op_count == copies
                outputs.append(program.run(layer.inputs)[0])
        np.testing.assert_array_equal(*outputs)

    @pytest.mark.parametrize("residual", [False, True])
    def test_other_operators_write_the_inputs_of_copies(self, residual: bool) -> None:
        shape = conv(16, 9, stride=(2, 2), residual=residual)
        layer, kernel = random_layer(shape, DENSE, 0.0), spec.kernels_for(shape, DENSE)[0]
        with build(layer, kernel, 1, copies=3, writes_inputs=True) as program:
            assert program.op_count == 3 * (1 + len(layer.inputs))
            [got] = program.run(layer.inputs)
        with build(layer, kernel, 1) as single:
            np.testing.assert_array_equal(got, single.run(layer.inputs)[0])

    @pytest.mark.parametrize("residual", [False, True])
    def test_copies_of_square_layers_are_chained(self, residual: bool) -> None:
        shape = conv(16, 9, residual=residual, activation="relu")
        layer, kernel = random_layer(shape, onexn(8), 0.5), spec.kernels_for(shape, onexn(8))[0]
        with build(layer, kernel, 1, copies=3, writes_inputs=True) as program:
            assert program.op_count == 3
            [got] = program.run(layer.inputs)
        x, added = layer.inputs[0], layer.inputs[1] if residual else None
        for _ in range(3):
            x, added = reference(shape, x, layer.weight, layer.bias, added), x if residual else None
        np.testing.assert_allclose(got, x, rtol=1e-4, atol=1e-4)

    def test_a_wrong_kernel_is_not_timed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        shape = conv(8, 6)
        right = random_layer(shape, DENSE, 0.0)
        expected = reference(shape, right.inputs[0], right.weight * 1.001, right.bias, None)
        monkeypatch.setattr(layer_job, "_verification", lambda *key: (right, expected))
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
