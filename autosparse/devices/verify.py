"""Is a kernel's output right? Nothing is timed before that is known."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from autosparse.records import Activation, LayerShape

Array = NDArray[Any]

# A reference that takes more operations than this (some ten milliseconds) is not computed: a cropped
# twin of the layer, with the same channels, weights and pattern but fewer rows, is checked instead.
REFERENCE_FLOPS = 600_000_000

_CHUNK_ELEMENTS = 1 << 22

_F32_EPSILON = 2.0**-23
# What is written down is rounded to the type, here by up to a whole unit.
WRITING = {"f32": 2 * _F32_EPSILON, "bf16": 2.0**-8, "f16": 2.0**-11}
# A right kernel is called wrong no more often than this.
_FALSE_ALARM = 1e-6
# Standard error of rounding once, over epsilon times what is rounded: up to half a unit.
_ROUNDING = 0.29
# Outputs whose magnitude is looked at: the largest of some speaks for all.
_SAMPLED_OUTPUTS = 32


@dataclass(frozen=True, slots=True)
class _Function:
    """An activation in float64, its greatest slope, and the error of the native one for results near 1.

    The error of GELU is that of its error function (Abramowitz and Stegun 7.1.26).
    """

    of: Callable[[NDArray[np.float64]], NDArray[np.float64]]
    slope: float = 1.0
    error: float = 0.0

    @property
    def clamps(self) -> bool:
        """Whether it is applied before the output is written for the first time."""
        return self.of in (_identity, _relu, _relu6)


def _identity(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return x


def _relu(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(x, 0)


def _relu6(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.clip(x, 0, 6)


def _hard_sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.clip(x + 3, 0, 6) / 6


def _gelu(x: NDArray[np.float64]) -> NDArray[np.float64]:
    made: NDArray[np.float64] = 0.5 * x * (1 + special.erf(x / math.sqrt(2)))
    return made


_FUNCTIONS: Mapping[Activation, _Function] = {
    Activation.NONE: _Function(_identity),
    Activation.RELU: _Function(_relu),
    Activation.RELU6: _Function(_relu6),
    Activation.SILU: _Function(lambda x: x * special.expit(x), 1.1, 4 * _F32_EPSILON),
    Activation.HARD_SWISH: _Function(lambda x: x * _hard_sigmoid(x), 1.5, 4 * _F32_EPSILON),
    Activation.HARD_SIGMOID: _Function(_hard_sigmoid, 1 / 6, 4 * _F32_EPSILON),
    Activation.SIGMOID: _Function(special.expit, 0.25, 4 * _F32_EPSILON),
    Activation.GELU: _Function(_gelu, 1.13, 5e-7),
}


def largest_error(
    shape: LayerShape,
    additions: float,
    magnitude: float,
    dtype: str = "f32",
    growth: float = 1.0,
    beside: float = 0.0,
) -> float:
    """Gives the largest error that rounding can explain, of an output that is 1 or smaller.

    Larger outputs may be off by as many times more. Derived from the count of additions, the method's
    growth of errors, the steepness of the activation, and how many outputs there are to be the worst.

    Every partial sum is rounded, and partial sums are a random walk W, so the error of k additions is
    normal with a variance that the walk decides: epsilon^2 k V with V the mean of W^2 along it. That of
    the worst of many outputs is far beyond what one normal distribution allows. With
    P(V > v) ~ exp(-pi^2 v / 8) (the longest period of a Brownian motion), the probability of an error
    above t is greatest along walks of V = 2 t / pi, and exp(-pi t / 2) there.

    Args:
        shape: the layer.
        additions: per output.
        magnitude: root of the largest sum of squared products; see `magnitude`.
        dtype: type of the operands, which hold their values exactly, and of the output.
        growth: how much larger than the sum the terms are that a method adds up, RMS.
        beside: further error of a sum, before the activation.
    """
    outputs = math.prod(shape.output_shape)
    deviations = 2 / math.pi * math.log(2 * outputs / _FALSE_ALARM)
    summing = deviations * _ROUNDING * _F32_EPSILON * growth * math.sqrt(max(additions, 1.0))
    function = _FUNCTIONS[shape.activation]
    # Where the activation follows in a pass of its own, its operand was written down too.
    writing = WRITING[dtype] * (1.0 if function.clamps else 1.0 + function.slope)
    slope = max(1.0, function.slope)
    return slope * (summing * magnitude + 2 * _F32_EPSILON + beside) + writing + function.error


def largest_sum(shape: LayerShape, magnitude: float) -> float:
    """Gives what no sum of products of normal inputs exceeds, but once in a million layers.

    Args:
        shape: the layer.
        magnitude: root of the largest sum of squared products.
    """
    return magnitude * math.sqrt(2 * math.log(2 * math.prod(shape.output_shape) / _FALSE_ALARM))


def magnitude(shape: LayerShape, x: Array, weight: Array) -> float:
    """Gives the root of the largest sum of squared products over some of the outputs.

    Args:
        shape: the layer, without groups.
        x: NCHW.
        weight: OIHW, zero where pruned.
    """
    some = weight[:: -(-shape.out_channels // _SAMPLED_OUTPUTS)]
    plain = dataclasses.replace(
        shape, out_channels=len(some), activation=Activation.NONE, residual=False
    )
    squares = reference(plain, np.square(x), np.square(some), np.zeros(len(some)), None)
    return math.sqrt(float(squares.max()))


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


@dataclass(frozen=True, slots=True)
class Part:
    """Some samples of a layer, and some of its outputs in them.

    Attributes:
        samples: their numbers.
        outputs: channels.
    """

    samples: tuple[int, ...]
    outputs: tuple[int, ...]

    def of(self, out: Array) -> Array:
        """Gives this part of an output, NCHW."""
        found: Array = out[list(self.samples)][:, list(self.outputs)]
        return found

    def reference(
        self, shape: LayerShape, x: Array, weight: Array, bias: Array, residual: Array | None
    ) -> NDArray[np.float64]:
        """Computes this part of a layer, given as for `reference`."""
        samples, outputs = list(self.samples), list(self.outputs)
        small = dataclasses.replace(shape, batch_size=len(samples), out_channels=len(outputs))
        added = None if residual is None else self.of(residual)
        return reference(small, x[samples], weight[outputs], bias[outputs], added)


def part_of(shape: LayerShape) -> Part:
    """Gives the first, middle and last sample, and so many outputs that a reference costs little.

    Args:
        shape: the layer, without groups.
    """
    samples = sorted({0, shape.batch_size // 2, shape.batch_size - 1})
    one_output = shape.flops // shape.batch_size * len(samples) // shape.out_channels
    count = min(max(REFERENCE_FLOPS // max(one_output, 1), 1), shape.out_channels)
    spread = np.linspace(0, shape.out_channels - 1, count).astype(int)
    return Part(tuple(samples), tuple(dict.fromkeys(spread.tolist())))


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
    return _FUNCTIONS[shape.activation].of(out)


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
