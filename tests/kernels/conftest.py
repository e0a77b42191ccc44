"""Float64 references in plain numpy, and the tolerance that kernels are compared at."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from autosparse.kernels import native
from autosparse.patterns.structure import BlockStructure
from autosparse.records import LayerShape

# Another build of the library, such as an instrumented one. Tests ask it for its kernels when they are
# collected, so it has to be named now.
if OTHER_LIBRARY := os.environ.get("NATIVE_LIBRARY"):
    native.library_path = lambda: Path(OTHER_LIBRARY)

Array = NDArray[np.floating[Any]]
Array64 = NDArray[np.float64]


class Reference:
    """Operators by their definitions."""

    @staticmethod
    def convolve(x: Array, weight: Array, shape: LayerShape) -> Array64:
        """One shifted product per kernel position, group by group."""
        (kh, kw), (sh, sw), (ph, pw), (dh, dw) = (
            shape.kernel,
            shape.stride,
            shape.padding,
            shape.dilation,
        )
        padded = np.pad(x.astype(np.float64), ((0, 0), (0, 0), (ph, ph), (pw, pw)))
        per_in, per_out = shape.in_channels // shape.groups, shape.out_channels // shape.groups
        out = np.zeros((shape.batch_size, shape.out_channels, shape.out_height, shape.out_width))
        for ky, kx in np.ndindex(kh, kw):
            rows = slice(ky * dh, ky * dh + (shape.out_height - 1) * sh + 1, sh)
            columns = slice(kx * dw, kx * dw + (shape.out_width - 1) * sw + 1, sw)
            window = padded[:, :, rows, columns]
            for g in range(shape.groups):
                outs = slice(g * per_out, (g + 1) * per_out)
                part = weight[outs, :, ky, kx].astype(np.float64)
                out[:, outs] += np.einsum(
                    "oi,bihw->bohw", part, window[:, g * per_in : (g + 1) * per_in]
                )
        return out

    @staticmethod
    def activate(x: Array64, name: str) -> Array64:
        """Activation functions by their definitions."""
        sigmoid = 1 / (1 + np.exp(-x))
        hard_sigmoid = np.clip(x + 3, 0, 6) / 6
        return {
            "none": x,
            "relu": np.maximum(x, 0),
            "relu6": np.clip(x, 0, 6),
            "silu": x * sigmoid,
            "hard_swish": x * hard_sigmoid,
            "hard_sigmoid": hard_sigmoid,
            "sigmoid": sigmoid,
            "gelu": 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
        }[name]

    @staticmethod
    def pool(
        x: Array,
        out_hw: tuple[int, int],
        kernel: tuple[int, int],
        stride: tuple[int, int],
        padding: tuple[int, int],
        dilation: tuple[int, int] = (1, 1),
        mean: bool = False,
        include_pad: bool = False,
    ) -> Array64:
        """Windows one by one."""
        batch, channels, height, width = x.shape
        out = np.empty((batch, channels, *out_hw))
        for y, u in np.ndindex(*out_hw):
            top, left = y * stride[0] - padding[0], u * stride[1] - padding[1]
            rows = [top + k * dilation[0] for k in range(kernel[0])]
            columns = [left + k * dilation[1] for k in range(kernel[1])]
            inside_rows = [r for r in rows if 0 <= r < height]
            inside_columns = [c for c in columns if 0 <= c < width]
            window = x[:, :, inside_rows][:, :, :, inside_columns].astype(np.float64)
            if not mean:
                out[:, :, y, u] = window.max((2, 3))
            else:
                counted_rows = [r for r in rows if r < height + padding[0]]
                counted_columns = [c for c in columns if c < width + padding[1]]
                padded = len(counted_rows) * len(counted_columns)
                count = padded if include_pad else len(inside_rows) * len(inside_columns)
                out[:, :, y, u] = window.sum((2, 3)) / count
        return out

    @staticmethod
    def mask(structure: BlockStructure, out_channels: int, in_channels: int) -> NDArray[np.bool_]:
        """True where a block is kept, (outputs, inputs, 1, 1)."""
        mask = np.zeros((out_channels, in_channels), bool)
        for g, (begin, end) in enumerate(
            zip(structure.group_start[:-1], structure.group_start[1:], strict=True)
        ):
            rows = slice(g * structure.block_n, (g + 1) * structure.block_n)
            mask[rows, structure.kept[begin:end]] = True
        return mask[:, :, None, None]

    @staticmethod
    def tolerance(terms: int, magnitude: float) -> float:
        """Bound on the rounding error of a float32 sum of `terms` products.

        `magnitude` is the largest sum of the terms' absolute values. eps * terms * magnitude holds for
        any order of summation; errors of random sign stay near the square root of that count, and a
        missing or wrong term is off by about magnitude / terms, far above.
        """
        return float(np.finfo(np.float32).eps) * (math.sqrt(terms) + 8) * magnitude

    def check_layer(
        self,
        got: Array,
        x: Array,
        weight: Array,
        shape: LayerShape,
        bias: Array | None = None,
        residual: Array | None = None,
        output_dtype: str = "f32",
        amplification: float = 1.0,
    ) -> None:
        """Asserts that a layer's output equals the reference within the tolerance."""
        expected = self.convolve(x, weight, shape)
        magnitude = self.convolve(np.abs(x), np.abs(weight), shape)
        for extra in (None if bias is None else bias[None, :, None, None], residual):
            if extra is not None:
                expected = expected + extra
                magnitude = magnitude + np.abs(extra)
        terms = shape.weights // shape.out_channels + 2
        self.check(
            got,
            self.activate(expected, shape.activation),
            terms,
            amplification * float(magnitude.max()),
            shape.key,
            rounding=2.0**-8 if output_dtype == "bf16" else 0.0,
        )

    def check(
        self,
        got: Array,
        expected: Array64,
        terms: int,
        magnitude: float,
        what: str = "",
        rounding: float = 0.0,
    ) -> None:
        """Asserts equality within the tolerance of `terms` and `magnitude`.

        `rounding` is the relative error of writing the result down, on top.
        """
        assert got.shape == expected.shape
        assert np.all(np.isfinite(got)), (
            f"{what}: {np.count_nonzero(~np.isfinite(got))} values not finite"
        )
        limits = self.tolerance(terms, magnitude) + rounding * np.abs(expected)
        worst = np.unravel_index(np.argmax(np.abs(got - expected) - limits), got.shape)
        error, limit = abs(float(got[worst] - expected[worst])), float(limits[worst])
        assert error <= limit, f"{what}: off by {error:.3g} at {worst}, more than {limit:.3g}"


@pytest.fixture(scope="session")
def reference() -> Reference:
    """The float64 reference."""
    return Reference()
