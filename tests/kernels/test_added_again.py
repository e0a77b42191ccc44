"""A convolution that is added again is the one that would be made anew, to the bit."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from autosparse.devices.layer import random_layer
from autosparse.errors import NoKernel, UsageError
from autosparse.kernels import spec
from autosparse.kernels.binding import Activation, NativeOp, NativeProgram, OpKind
from autosparse.kernels.layer import structure_of
from autosparse.kernels.spec import KernelSpec
from autosparse.records import DENSE, LayerShape, onexn
from autosparse.records import Activation as LayerActivation

SQUARE = LayerShape(
    op="conv2d",
    batch_size=1,
    in_channels=20,
    out_channels=20,
    in_height=11,
    in_width=9,
    kernel=(3, 3),
    padding=(1, 1),
    activation=LayerActivation.RELU,
    residual=True,
)


def chain(shape: LayerShape, kernel: KernelSpec, *, again: bool) -> Any:
    """Two layers with the same weights, the second reading what the first wrote; gives the output."""
    pattern = onexn(kernel.block_n) if kernel.block_n else DENSE
    layer = random_layer(shape, pattern, 0.5, kernel.dtype)
    structure = structure_of(layer.weight, pattern) if kernel.block_n else None
    program = NativeProgram(2, pin=False)
    with program:
        x = program.tensor(shape.input_shape, kernel.dtype)
        program.input(x)
        first, second = (program.tensor(shape.output_shape, kernel.dtype) for _ in range(2))
        operator = dataclasses.replace(
            spec.native_op(shape, kernel.block_n, inputs=(x,)),
            kernel=kernel.row,
            weight=layer.weight,
            bias=layer.bias,
            group_start=structure.group_start if structure else None,
            kept=structure.kept if structure else None,
            output=first,
            residual=x,
        )
        added = program.op(operator)
        if again:
            assert program.op_again(added, x=first, output=second, residual=x) == added + 1
        else:
            program.op(dataclasses.replace(operator, inputs=(first,), output=second))
        program.output(second)
        program.finish()
        return program.run([layer.inputs[0]])[0]


# Those of 7x7 layers of stride 2 cannot read what another of their kind wrote.
CHAINABLE = [kernel for kernel in spec.all_kernels() if kernel.method != "wp"]


@pytest.mark.parametrize("kernel", CHAINABLE, ids=lambda kernel: str(kernel.name))
def test_it_computes_what_one_made_anew_does(kernel: KernelSpec) -> None:
    try:
        anew = chain(SQUARE, kernel, again=False)
    except NoKernel as error:
        pytest.skip(str(error))
    np.testing.assert_array_equal(chain(SQUARE, kernel, again=True), anew)


def strided(program: NativeProgram, **fields: Any) -> tuple[int, int]:
    """Adds a 7x7 convolution of stride 2; gives its index and its input."""
    generator = np.random.default_rng(3)
    x = program.tensor((1, 3, 32, 30))
    program.input(x)
    operator = NativeOp(
        kind=OpKind.CONV,
        inputs=(x,),
        output=program.tensor((1, 16, 16, 15)),
        activation=Activation.RELU,
        kernel_size=(7, 7),
        stride=(2, 2),
        padding=(3, 3, 3, 3),
        weight=generator.standard_normal((16, 3, 7, 7), dtype=np.float32),
        **fields,
    )
    return program.op(operator), x


@pytest.mark.parametrize("method", ["wp", "px", "oc"])
def test_a_stem_on_another_input(method: str) -> None:
    rows = [k for k in spec.all_kernels() if k.method == method and not k.block_n and k.dtype == "f32"]
    for kernel in rows:
        with NativeProgram(2, pin=False) as program:
            try:
                index, x = strided(program, kernel=kernel.row)
            except NoKernel:
                continue
            other = program.tensor((1, 3, 32, 30))
            program.input(other)
            outputs = [
                index,
                program.op_again(index, x=other, output=(y := program.tensor((1, 16, 16, 15)))),
            ]
            assert outputs == [index, index + 1]
            program.output(x + 1)
            program.output(y)
            program.finish()
            given = np.random.default_rng(5).standard_normal((1, 3, 32, 30), dtype=np.float32)
            one, two = program.run([given, given])
            np.testing.assert_array_equal(one, two)
            zero, same = program.run([np.zeros_like(given), given])
            np.testing.assert_array_equal(same, two)
            assert not np.array_equal(zero, two)


def test_what_cannot_be_added_again_says_why() -> None:
    with NativeProgram(1, pin=False) as program:
        index, x = strided(program)
        like = program.tensor((1, 16, 16, 15))
        with pytest.raises(UsageError, match="index of an operator"):
            program.op_again(index + 1, x=x, output=like)
        with pytest.raises(UsageError, match="same shapes and types"):
            program.op_again(index, x=x, output=program.tensor((1, 16, 16, 16)))
        with pytest.raises(UsageError, match="same shapes and types"):
            program.op_again(index, x=x, output=program.tensor((1, 16, 16, 15), "bf16"))
        with pytest.raises(UsageError, match="residual"):
            program.op_again(index, x=x, output=like, residual=x + 1)
        pooled = program.tensor((1, 16, 16, 15))
        activation = program.op(NativeOp(kind=OpKind.ACTIVATION, inputs=(x + 1,), output=pooled))
        with pytest.raises(UsageError, match="only convolutions"):
            program.op_again(activation, x=x + 1, output=like)
        program.output(pooled)
        program.finish()
        with pytest.raises(UsageError, match="finished"):
            program.op_again(index, x=x, output=like)
