"""Whole programs: operators that are not convolutions, and how tensors share the arena."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from autosparse.errors import UsageError
from autosparse.kernels import binding
from autosparse.kernels.binding import Activation, NativeOp, NativeProgram, OpKind, limit_isa
from autosparse.kernels.layer import LayerProgram, random_blocks
from autosparse.records import LayerShape, onexn

Shape = tuple[int, int, int, int]


class Net:
    """A program and its float64 value, built side by side."""

    def __init__(self, reference: Any, threads: int = 2, seed: int = 0) -> None:
        self.program = NativeProgram(threads, pin=False)
        self.reference = reference
        self.rng = np.random.default_rng(seed)
        self.values: dict[int, Any] = {}
        self.inputs: list[Any] = []
        self.outputs: list[int] = []

    def input(self, shape: Shape) -> int:
        tensor = self.program.tensor(shape)
        self.program.input(tensor)
        self.inputs.append(self.rng.standard_normal(shape, dtype=np.float32))
        self.values[tensor] = self.inputs[-1].astype(np.float64)
        return tensor

    def add(self, op: NativeOp, value: Any) -> int:
        self.program.op(op)
        self.values[op.output] = self.reference.activate(value, op.activation.name.lower())
        return op.output

    def apply(self, kind: OpKind, inputs: tuple[int, ...], value: Any, **fields: Any) -> int:
        output = self.program.tensor(value.shape)
        return self.add(NativeOp(kind=kind, inputs=inputs, output=output, **fields), value)

    def conv(
        self,
        x: int,
        outputs: int,
        size: int = 3,
        stride: int = 1,
        padding: int | None = None,
        groups: int = 1,
        block_n: int = 0,
        sparsity: float = 0.5,
        residual: int = -1,
        activation: Activation = Activation.NONE,
        bias: bool = True,
    ) -> int:
        batch, channels, height, width = self.values[x].shape
        pad = size // 2 if padding is None else padding
        shape = LayerShape(
            op="conv2d",
            batch_size=batch,
            in_channels=channels,
            out_channels=outputs,
            in_height=height,
            in_width=width,
            kernel=(size, size),
            stride=(stride, stride),
            padding=(pad, pad),
            groups=groups,
        )
        scale = np.float32(1 / np.sqrt(channels // groups * size * size))
        weight = scale * self.rng.standard_normal(
            (outputs, channels // groups, size, size), dtype=np.float32
        )
        fields: dict[str, Any] = {
            "bias": self.rng.standard_normal(outputs, dtype=np.float32) if bias else None
        }
        value = weight
        if block_n:
            blocks = random_blocks(shape, onexn(block_n), sparsity, int(self.rng.integers(1 << 30)))
            fields |= {"block_n": block_n, "group_start": blocks.group_start, "kept": blocks.kept}
            value = weight * self.reference.mask(blocks, outputs, channels)
        result = self.reference.convolve(self.values[x], value, shape)
        if bias:
            result = result + fields["bias"][None, :, None, None]
        if residual >= 0:
            result = result + self.values[residual]
        return self.apply(
            OpKind.CONV if groups == 1 else OpKind.CONV_GROUPED,
            (x,),
            result,
            weight=weight,
            kernel_size=(size, size),
            stride=(stride, stride),
            padding=(pad, pad, pad, pad),
            groups=groups,
            residual=residual,
            activation=activation,
            **fields,
        )

    def output(self, tensor: int) -> None:
        self.program.output(tensor)
        self.outputs.append(tensor)

    def check(self, terms: int = 1000) -> None:
        """Runs once on garbage, so that nothing may depend on a clean arena, then compares."""
        self.program.finish()
        self.program.run([np.full_like(array, np.nan) for array in self.inputs])
        for got, tensor in zip(self.program.run(self.inputs), self.outputs, strict=True):
            expected = self.values[tensor]
            self.reference.check(got, expected, terms, float(np.abs(expected).max()) + 1.0)


@pytest.fixture(params=binding.isa_names())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Everything at each level that this machine has."""
    limit_isa(request.param)
    has = binding.detect_isa()
    if has == request.param:
        yield request.param
    limit_isa(None)
    if has != request.param:
        pytest.skip(f"needs {request.param}, but this machine grants {binding.detect_isa()}")


@pytest.fixture
def net(isa: str, reference: Any) -> Net:
    return Net(reference)


@pytest.mark.smoke
def test_residual_chain(net: Net) -> None:
    x = net.input((2, 8, 13, 11))
    for block_n in (0, 1, 2, 4, 8, 16, 32):
        inner = net.conv(x, 24, block_n=block_n, activation=Activation.RELU)
        x = net.conv(
            inner, 8, block_n=block_n, residual=x if block_n else -1, activation=Activation.RELU6
        )
    net.output(x)
    net.check()


def test_consumers_with_different_padding(net: Net) -> None:
    x = net.input((1, 5, 9, 10))
    trunk = net.conv(x, 6, size=1)
    for size, padding in ((1, 0), (3, 1), (5, 4), (3, 0), (7, 3)):
        net.output(net.conv(trunk, 4, size=size, padding=padding, block_n=4))
    net.output(net.conv(trunk, 7, stride=2))
    net.output(trunk)
    net.check()


def test_downsampling_block(net: Net) -> None:
    x = net.input((1, 16, 14, 14))
    short = net.conv(x, 32, size=1, stride=2)
    inner = net.conv(x, 32, stride=2, block_n=8, activation=Activation.RELU)
    net.output(net.conv(inner, 32, block_n=16, residual=short, activation=Activation.RELU))
    net.check()


class FlatNet(Net):
    """Runs every convolution on the kernel along flattened pixels of the fewest outputs at once."""

    def add(self, op: NativeOp, value: Any) -> int:
        shape = self.values[op.inputs[0]].shape
        rows = [
            row
            for row in binding.kernel_table()
            if (row.method, row.dtype) == ("px", "f32")
            and not binding.kernel_why_not(row.row, op, shape)
        ]
        kernel = min(rows, key=lambda row: row.tile_out).row
        return super().add(dataclasses.replace(op, kernel=kernel), value)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(("size", "stride"), [(1, 2), (3, 2), (5, 3), (2, 2), (1, 3)])
def test_strided_convolutions_of_more_pixels_than_a_task_takes(
    isa: str, reference: Any, threads: int, size: int, stride: int
) -> None:
    net = FlatNet(reference, threads)
    x = net.input((2, 70, 61, 43))
    short = net.conv(x, 9, size=size, stride=stride, block_n=8, sparsity=0.95)
    net.output(net.conv(x, 9, size=size, stride=stride, residual=short, activation=Activation.RELU))
    # Tasks are divided by outputs, the inputs by a step of their own.
    few = net.input((1, 40, 6, 7))
    net.output(net.conv(few, 200, size=size, stride=stride, block_n=32))
    net.check(terms=3000)


@pytest.mark.parametrize("groups", [2, 3, 12])
@pytest.mark.parametrize("stride", [1, 2])
def test_grouped_convolutions(net: Net, groups: int, stride: int) -> None:
    x = net.input((2, 12, 15, 12))
    for multiplier in (1, 2):
        net.output(
            net.conv(x, 12 * multiplier, groups=groups, stride=stride, activation=Activation.RELU6)
        )
    net.output(net.conv(x, 12, size=5, groups=groups, stride=stride))
    net.check()


@pytest.mark.parametrize("kind", [OpKind.MAX_POOL, OpKind.AVG_POOL])
def test_pooling(net: Net, kind: OpKind) -> None:
    for shape in ((2, 3, 15, 18), (1, 2, 33, 70)):
        x = net.input(shape)
        for size, stride, pad, dilation in (
            (3, 2, 1, 1),
            (2, 2, 0, 1),
            (3, 1, 1, 1),
            (5, 3, 2, 1),
            (3, 1, 2, 2),
        ):
            if kind is OpKind.AVG_POOL and dilation > 1:
                continue
            for include_pad in (False, True):
                span = dilation * (size - 1) + 1
                out_hw = (
                    (shape[2] + 2 * pad - span) // stride + 1,
                    (shape[3] + 2 * pad - span) // stride + 1,
                )
                square = ((size, size), (stride, stride), (pad, pad), (dilation, dilation))
                value = net.reference.pool(
                    net.values[x], out_hw, *square, kind is OpKind.AVG_POOL, include_pad
                )
                y = net.apply(
                    kind,
                    (x,),
                    value,
                    kernel_size=(size, size),
                    stride=(stride, stride),
                    padding=(pad, pad, pad, pad),
                    dilation=(dilation, dilation),
                    count_include_pad=include_pad,
                )
                net.output(y)
    net.check()


def test_pooling_rounded_up(net: Net) -> None:
    x = net.input((1, 4, 14, 16))
    value = net.reference.pool(net.values[x], (7, 8), (3, 3), (2, 2), (0, 0))
    net.output(net.apply(OpKind.MAX_POOL, (x,), value, kernel_size=(3, 3), stride=(2, 2)))
    net.check()


def test_classifier_head(net: Net) -> None:
    x = net.input((3, 40, 7, 6))
    pooled = net.apply(OpKind.GLOBAL_AVG_POOL, (x,), net.values[x].mean((2, 3), keepdims=True))
    logits = net.conv(pooled, 10, size=1)
    exponentials = np.exp(net.values[logits] - net.values[logits].max(1, keepdims=True))
    net.output(logits)
    net.output(net.apply(OpKind.SOFTMAX, (logits,), exponentials / exponentials.sum(1, keepdims=True)))
    net.check()


def test_flatten_and_linear(net: Net) -> None:
    x = net.conv(net.input((2, 3, 5, 6)), 4)
    flat = net.apply(OpKind.FLATTEN, (x,), net.values[x].reshape(2, 120, 1, 1))
    net.output(flat)
    net.output(net.conv(flat, 17, size=1, block_n=8, activation=Activation.RELU))
    net.check()


def test_elementwise(net: Net) -> None:
    a, b = net.input((2, 6, 7, 9)), net.input((2, 6, 7, 9))
    wide = net.conv(a, 6)  # gives a and its class room for padding
    for kind, value in (
        (OpKind.ADD, net.values[a] + net.values[b]),
        (OpKind.MUL, net.values[a] * net.values[b]),
    ):
        for activation in (Activation.NONE, Activation.RELU, Activation.RELU6, Activation.SIGMOID):
            net.output(net.apply(kind, (a, b), value, activation=activation))
    net.output(net.apply(OpKind.ADD, (wide, wide), 2 * net.values[wide]))
    scale, shift = (net.rng.standard_normal(6, dtype=np.float32) for _ in range(2))
    value = net.values[b] * scale[:, None, None] + shift[:, None, None]
    net.output(
        net.apply(OpKind.AFFINE, (b,), value, weight=scale, bias=shift, activation=Activation.RELU)
    )
    net.check()


@pytest.mark.smoke
def test_squeeze_and_excitation(net: Net) -> None:
    x = net.conv(net.input((2, 5, 9, 8)), 8, activation=Activation.SILU)
    squeezed = net.apply(OpKind.GLOBAL_AVG_POOL, (x,), net.values[x].mean((2, 3), keepdims=True))
    gate = net.conv(squeezed, 8, size=1, activation=Activation.HARD_SIGMOID)
    gated = net.apply(OpKind.MUL, (x, gate), net.values[x] * net.values[gate])
    net.output(net.conv(gated, 6))
    net.check()


@pytest.mark.parametrize("activation", [a for a in Activation if a is not Activation.NONE])
def test_activations(net: Net, activation: Activation) -> None:
    x = net.input((1, 3, 6, 11))
    net.inputs[0] *= 4
    net.values[x] *= 4
    active = net.apply(OpKind.ACTIVATION, (x,), net.values[x], activation=activation)
    net.output(active)
    # Padding must be zero again after functions that are not zero at zero.
    net.output(net.conv(active, 4))
    net.output(net.conv(net.conv(x, 5, activation=activation), 4))
    net.check()


def test_concat(net: Net) -> None:
    x = net.input((2, 4, 8, 9))
    branches = tuple(net.conv(x, n, size=size) for n, size in ((3, 1), (8, 3), (5, 5)))
    joined = net.apply(OpKind.CONCAT, branches, np.concatenate([net.values[b] for b in branches], 1))
    net.output(joined)
    net.output(net.conv(joined, 6, block_n=2))
    net.check()


def test_subsample_pad(net: Net) -> None:
    x = net.input((2, 4, 9, 10))
    value = np.zeros((2, 8, 5, 5))
    value[:, 2:6] = net.values[x][:, :, ::2, ::2]
    short = net.apply(OpKind.SUBSAMPLE_PAD, (x,), value, stride=(2, 2), channels_before=2)
    net.output(net.conv(x, 8, stride=2, residual=short, activation=Activation.RELU))
    net.output(short)
    net.check()


def test_input_that_is_an_output(net: Net) -> None:
    x = net.input((1, 2, 3, 4))
    net.output(x)
    net.check()


@pytest.mark.parametrize("seed", range(6))
def test_random_programs(isa: str, reference: Any, seed: int) -> None:
    net = Net(reference, threads=1 + seed % 3, seed=seed)
    rng = np.random.default_rng(seed)
    batch, height, width = int(rng.integers(1, 4)), int(rng.integers(6, 20)), int(rng.integers(6, 20))
    live = [net.input((batch, int(rng.integers(1, 9)), height, width))]
    for _ in range(12):
        x = live[int(rng.integers(len(live)))]
        shape = net.values[x].shape
        same = [y for y in live if net.values[y].shape == shape]
        choice = int(rng.integers(4))
        if choice == 0:
            live.append(net.apply(OpKind.ADD, (x, same[-1]), net.values[x] + net.values[same[-1]]))
        elif choice == 1:
            value = np.concatenate([net.values[x], net.values[same[0]]], 1)
            live.append(net.apply(OpKind.CONCAT, (x, same[0]), value))
        else:
            options: dict[str, Any] = {
                "size": int(rng.choice([1, 3, 5])),
                "stride": int(rng.choice([1, 1, 2])) if min(shape[2:]) > 4 else 1,
                "block_n": int(rng.choice([0, 1, 4, 8, 16])),
                "activation": Activation(int(rng.integers(0, 4))),
            }
            live.append(net.conv(x, int(rng.integers(1, 33)), **options))
    for x in live[-5:]:
        net.output(x)
    net.check(terms=100_000)


def test_the_arena_is_reused(reference: Any) -> None:
    def arena_bytes(depth: int) -> int:
        net = Net(reference)
        x = net.input((1, 8, 32, 32))
        for _ in range(depth):
            x = net.conv(x, 8)
        net.output(x)
        net.check()
        return net.program.arena_bytes

    assert arena_bytes(10) <= arena_bytes(3) * 1.01


def test_time_agrees_with_itself(reference: Any) -> None:
    net = Net(reference)
    x = net.input((1, 16, 32, 32))
    net.output(net.conv(net.conv(x, 32), 16))
    net.check()
    run_ns, op_ns = net.program.time(net.inputs, 5, per_op=True)
    assert op_ns is not None and op_ns.shape == (5, 2)
    assert np.all(run_ns > 0) and np.all(op_ns > 0)
    assert np.all(op_ns.sum(1) <= run_ns)


def test_time_in_turn() -> None:
    shape = LayerShape(
        op="conv2d", batch_size=1, in_channels=8, out_channels=8, in_height=6, in_width=6
    )
    weight = np.ones((8, 8, 1, 1), np.float32)
    layers = [LayerProgram(shape, weight=weight, threads=2) for _ in range(3)]
    x = np.ones(shape.input_shape, np.float32)
    times = binding.time_in_turn([layer.program for layer in layers], [x], 10)
    assert times.shape == (10,) and np.all(times > 0)
    other = LayerProgram(shape, weight=weight, threads=1)
    with pytest.raises(UsageError, match="threads"):
        binding.time_in_turn([layers[0].program, other.program], [x], 2)


def test_programs_run_side_by_side(reference: Any) -> None:
    nets = [Net(reference, threads=2, seed=seed) for seed in range(3)]
    for net in nets:
        net.output(net.conv(net.conv(net.input((1, 8, 20, 20)), 16), 8))
        net.check()
    expected = [net.program.run(net.inputs)[0] for net in nets]
    wrong: list[int] = []

    def repeat(index: int) -> None:
        for _ in range(30):
            if not np.array_equal(nets[index].program.run(nets[index].inputs)[0], expected[index]):
                wrong.append(index)

    workers = [threading.Thread(target=repeat, args=(index,)) for index in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong
