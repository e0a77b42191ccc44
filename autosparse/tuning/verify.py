"""Is a kernel's output right? Nothing is timed before that is known."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autosparse.records import LayerShape

Array = NDArray[Any]

# A reference that takes more operations than this (some ten milliseconds) is not computed: a cropped
# twin of the layer, with the same channels, weights and pattern but fewer rows, is checked instead.
REFERENCE_FLOPS = 600_000_000

_CHUNK_ELEMENTS = 1 << 22

_F32_EPSILON = 2.0**-23
# Sums are float32 whatever the type of the operands; what is written down is rounded to the type.
_WRITING = {"f32": 0.0, "bf16": 2.0**-8}
# Rounding errors of a sum of k terms that make up a value of about 1 grow like sqrt(k) / 5 epsilons
# (a random walk over partial sums). Ten times as much leaves room for any order of summation and for
# the largest of a million outputs, and is still far below one missing term, which is 1 / sqrt(k).
_SAFETY = 2.0
# Winograd's transforms add and subtract values larger than their result: F(4x4, 3x3) doubles the
# errors, F(4x4, 4x4) multiplies them by four, more at single outputs. Both are still wrong by far
# where a term is missing.
_OF_METHOD = {"wf": 4.0, "wp": 10.0}


def tolerance(terms: int, dtype: str, method: str = "") -> float:
    """Gives the largest error of one output that rounding can explain.

    Args:
        terms: products summed per output, for operands scaled such that the sum is about 1.
        dtype: type of the operands, which hold their values exactly, and of the output.
        method: the kernel's.
    """
    summing = _OF_METHOD.get(method, 1.0) * _SAFETY * _F32_EPSILON * math.sqrt(max(terms, 1))
    summing += 4 * _F32_EPSILON
    return summing + _WRITING[dtype]


def twin(shape: LayerShape) -> LayerShape:
    """Gives the shape itself or, where its reference costs too much, one of fewer rows and samples."""
    single = dataclasses.replace(shape, batch_size=1)
    if shape.flops <= REFERENCE_FLOPS:
        return shape
    share = REFERENCE_FLOPS / single.flops
    if share >= 1:
        return single
    span = shape.dilation[0] * (shape.kernel[0] - 1) + 1
    rows = max(span, int(shape.in_height * share))
    return dataclasses.replace(single, in_height=min(rows, shape.in_height))


def reference(
    shape: LayerShape, x: Array, weight: Array, bias: Array, residual: Array | None
) -> NDArray[np.float64]:
    """Computes a layer in float64: one matrix product per kernel position.

    Args:
        shape: the layer, without groups.
        x: NCHW.
        weight: OIHW, zero where pruned.
        bias: one per output.
        residual: as the output, or None.
    """
    top, left = shape.padding
    padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (top, top), (left, left)))
    total = np.zeros((shape.batch_size, shape.out_channels, shape.out_height * shape.out_width))
    # A few outputs at a time: a large linear layer in float64 would fill gigabytes.
    some = max(1, _CHUNK_ELEMENTS // shape.in_channels)
    for tap in np.ndindex(*shape.kernel):
        rows, columns = (_taken(shape, axis, tap[axis]) for axis in (0, 1))
        pixels = padded[:, :, rows, columns].reshape(shape.batch_size, shape.in_channels, -1)
        for first in range(0, shape.out_channels, some):
            outputs = slice(first, first + some)
            total[:, outputs] += weight[outputs, :, tap[0], tap[1]].astype(np.float64) @ pixels
    out = total.reshape(shape.batch_size, shape.out_channels, shape.out_height, shape.out_width)
    out += bias.astype(np.float64)[:, None, None]
    if residual is not None:
        out += residual
    if shape.activation == "none":
        return out
    return np.clip(out, 0, 6 if shape.activation == "relu6" else None)


def _taken(shape: LayerShape, axis: int, tap: int) -> slice:
    start = tap * shape.dilation[axis]
    count = (shape.out_height, shape.out_width)[axis]
    return slice(start, start + (count - 1) * shape.stride[axis] + 1, shape.stride[axis])


def why_wrong(got: Array, expected: NDArray[np.float64], allowed: float) -> str:
    """Gives where an output is outside its tolerance, or an empty string.

    An element that was never written is NaN and counts as wrong.
    """
    error = np.abs(got - expected)
    # The comparison is false for NaN, so it must ask what is right.
    right = error <= allowed * np.maximum(1.0, np.abs(expected))
    if right.all():
        return ""
    where = tuple(int(i) for i in np.unravel_index(int(np.argmin(right)), right.shape))
    return (
        f"{right.size - int(right.sum())} of {right.size} outputs are off by more than {allowed:.2g}; "
        f"the first at {where} is {got[where]:.7g} instead of {expected[where]:.7g}"
    )
