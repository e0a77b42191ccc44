"""Fused operators, and how they cross the border to C."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from autosparse.errors import UsageError
from autosparse.kernels.native import MAX_INPUTS, COp, FloatPointer, IntPointer

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]

ANY_KERNEL = -1
"""The executor chooses among all kernels."""
COMPACT_KERNEL = -2
"""The executor chooses among the kernels that do not expand weights."""
BUILTIN_KERNEL = -3
"""What runs an operator that has no rows in the kernel table."""


class OpKind(IntEnum):
    """What an operator computes (`as_op_kind`)."""

    CONV = 1
    CONV_GROUPED = 2
    MAX_POOL = 3
    AVG_POOL = 4
    GLOBAL_AVG_POOL = 5
    ADD = 6
    MUL = 7
    CONCAT = 8
    AFFINE = 9
    ACTIVATION = 10
    SUBSAMPLE_PAD = 11
    FLATTEN = 12
    SOFTMAX = 13
    ADAPTIVE_AVG_POOL = 14


class Activation(IntEnum):
    """What is applied last (`as_activation`)."""

    NONE = 0
    RELU = 1
    RELU6 = 2
    SILU = 3
    HARD_SWISH = 4
    HARD_SIGMOID = 5
    SIGMOID = 6
    GELU = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeOp:
    """One fused operator; see `as_op` in include/autosparse.h.

    Attributes:
        kind: what it computes.
        inputs: tensor ids.
        output: tensor id.
        residual: tensor added before the activation (convolutions), or -1.
        activation: applied last.
        kernel: row of the kernel table, or which the executor may choose among: `ANY_KERNEL`, or
            `COMPACT_KERNEL` for those that keep weights as they are given.
        kernel_size: (height, width).
        stride: (height, width).
        padding: (top, left, bottom, right).
        dilation: (height, width).
        groups: convolution groups.
        channels_before: zero channels in front of a sub-sampled input.
        count_include_pad: whether padding counts in an average.
        weight: OIHW (convolutions), or one scale per channel (affine).
        bias: one per output channel, or None.
        block_n: N of the 1xN structure; 0 is dense.
        group_start: first entry of every group in `kept`, and its end.
        kept: kept input channels, group after group, ascending.
    """

    kind: OpKind
    inputs: tuple[int, ...]
    output: int
    residual: int = -1
    activation: Activation = Activation.NONE
    kernel: int = ANY_KERNEL
    kernel_size: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    channels_before: int = 0
    count_include_pad: bool = False
    weight: FloatArray | None = None
    bias: FloatArray | None = None
    block_n: int = 0
    group_start: IntArray | None = None
    kept: IntArray | None = None


def _array(
    values: NDArray[np.generic] | None, dtype: type[np.generic], what: str
) -> NDArray[np.generic] | None:
    if values is None:
        return None
    if values.dtype != dtype:
        raise UsageError(f"{what} must be {np.dtype(dtype).name}, but got {values.dtype}")
    return np.ascontiguousarray(values)


def c_op(op: NativeOp) -> tuple[COp, list[object]]:
    """Gives the C struct and the arrays that it points into."""
    if not 1 <= len(op.inputs) <= MAX_INPUTS:
        raise UsageError(f"an operator must have 1 to {MAX_INPUTS} inputs, but got {len(op.inputs)}")
    weight = _array(op.weight, np.float32, "weight")
    bias = _array(op.bias, np.float32, "bias")
    group_start = _array(op.group_start, np.int32, "group_start")
    kept = _array(op.kept, np.int32, "kept")
    top, left, bottom, right = op.padding
    out = COp(
        kind=op.kind,
        input_count=len(op.inputs),
        inputs=(ctypes.c_int32 * MAX_INPUTS)(*op.inputs),
        output=op.output,
        residual=op.residual,
        activation=op.activation,
        kernel=op.kernel,
        kernel_h=op.kernel_size[0],
        kernel_w=op.kernel_size[1],
        stride_h=op.stride[0],
        stride_w=op.stride[1],
        pad_top=top,
        pad_left=left,
        pad_bottom=bottom,
        pad_right=right,
        dilation_h=op.dilation[0],
        dilation_w=op.dilation[1],
        groups=op.groups,
        channels_before=op.channels_before,
        count_include_pad=int(op.count_include_pad),
        block_n=op.block_n,
    )
    for name, values, pointer in (
        ("weight", weight, FloatPointer),
        ("bias", bias, FloatPointer),
        ("group_start", group_start, IntPointer),
        ("kept", kept, IntPointer),
    ):
        if values is not None:
            setattr(out, name, values.ctypes.data_as(pointer))
    return out, [weight, bias, group_start, kept]
