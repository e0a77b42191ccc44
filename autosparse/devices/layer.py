"""A layer with random contents, for any device to build."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autosparse.kernels.bf16 import round_to_bf16
from autosparse.patterns import family_of
from autosparse.records import LayerShape, Pattern

FloatArray = NDArray[np.float32]

BYTES = {"f32": 4, "bf16": 2, "f16": 2}
"""Bytes of one element, by arithmetic type."""

_SEED = 20_260_101


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A layer with random contents, scaled such that its outputs are about 1.

    Attributes:
        shape: the layer.
        pattern: what its zeros follow.
        dtype: arithmetic type, which can hold weights and inputs exactly.
        weight: OIHW, zero where pruned.
        bias: one per output.
        inputs: the input and, with a residual, what is added; NCHW.
        kept: inputs summed per output, of the output that sums most.
    """

    shape: LayerShape
    pattern: Pattern
    dtype: str
    weight: FloatArray
    bias: FloatArray
    inputs: list[FloatArray]
    kept: int


def elements_touched(shape: LayerShape, *, with_input: bool = True) -> int:
    """Counts the elements of activations that a layer has to read and write, each once."""
    out = math.prod(shape.output_shape)
    # A stride may step over inputs; no more are needed than outputs times taps.
    pixels = min(shape.in_height * shape.in_width, shape.out_height * shape.out_width * shape.taps)
    read = shape.batch_size * shape.in_channels * pixels if with_input else 0
    return out + read + (out if shape.residual else 0)


# Kernel variants of one layer follow each other, so the last layer is worth keeping.
@functools.lru_cache(maxsize=1)
def random_layer(shape: LayerShape, pattern: Pattern, sparsity: float, dtype: str = "f32") -> Layer:
    """Makes a layer with random weights, pruned as the pattern says, and random inputs.

    Args:
        shape: the layer, without groups.
        pattern: dense or sparse.
        sparsity: fraction of units pruned.
        dtype: all values but the bias are such that it can hold them.
    """
    hold = _HOLDING[dtype]
    generator = np.random.default_rng(_SEED)
    weight = _random_weight((shape.out_channels, shape.in_channels, *shape.kernel))
    kept = shape.in_channels
    if not pattern.is_dense:
        draw = np.random.default_rng(_SEED)
        mask = family_of(pattern).random(pattern, weight.shape, sparsity, draw)
        weight = weight * mask
        reads = mask.reshape(shape.out_channels, shape.in_channels, -1).any(axis=2)
        kept = int(np.count_nonzero(reads, axis=1).max())
    weight = weight * np.float32(1 / math.sqrt(max(kept * shape.taps, 1)))
    borders = [shape.input_shape] + [shape.output_shape] * shape.residual
    return Layer(
        shape=shape,
        pattern=pattern,
        dtype=dtype,
        weight=hold(weight),
        bias=generator.standard_normal(shape.out_channels, dtype=np.float32),
        inputs=[hold(generator.standard_normal(border, dtype=np.float32)) for border in borders],
        kept=kept,
    )


def _round_to_f16(values: FloatArray) -> FloatArray:
    return values.astype(np.float16).astype(np.float32)


_HOLDING: Mapping[str, Callable[[FloatArray], FloatArray]] = {
    "f32": np.asarray,
    "bf16": round_to_bf16,
    "f16": _round_to_f16,
}
"""Type to what gives the nearest values that it can hold."""


@functools.lru_cache(maxsize=1)
def _random_weight(size: tuple[int, ...]) -> FloatArray:
    return np.random.default_rng(_SEED + 1).standard_normal(size, dtype=np.float32)
