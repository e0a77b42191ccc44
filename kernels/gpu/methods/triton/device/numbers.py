"""Products, rounding and activation functions."""

from __future__ import annotations

import triton.language as tl

from .jit import kernel


@kernel
def multiply(a: tl.tensor, b: tl.tensor, sums: tl.tensor, INTERPRETED: tl.constexpr) -> tl.tensor:
    """Adds a product of matrices to float32 sums; products of bfloat16 are exact in float32."""
    if INTERPRETED and a.dtype == tl.bfloat16:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, sums)


@kernel
def rounded(value: tl.tensor, out: tl.tensor, INTERPRETED: tl.constexpr) -> tl.tensor:
    """Rounds float32 to the type that `out` points to: to nearest, ties to even."""
    if INTERPRETED and out.dtype.element_ty == tl.bfloat16:
        bits = value.to(tl.int32, bitcast=True)
        up = (bits + 0x7FFF + ((bits >> 16) & 1)).to(tl.float32, bitcast=True)
        value = tl.where(value == value, up, value)  # the sum would turn a NaN into a number
    return value.to(out.dtype.element_ty)


@kernel
def activate(x: tl.tensor, ACTIVATION: tl.constexpr) -> tl.tensor:
    """Applies an activation function to float32 values; NaN stays NaN."""
    if ACTIVATION == "relu":
        x = tl.where(x < 0.0, 0.0, x)
    elif ACTIVATION == "relu6":
        x = clamped(x)
    elif ACTIVATION == "hard_sigmoid":
        x = clamped(x + 3.0) * (1.0 / 6.0)
    elif ACTIVATION == "hard_swish":
        x = x * clamped(x + 3.0) * (1.0 / 6.0)
    elif ACTIVATION == "sigmoid":
        x = 1.0 / (1.0 + tl.exp(-x))
    elif ACTIVATION == "silu":
        x = x / (1.0 + tl.exp(-x))
    elif ACTIVATION == "gelu":
        x = 0.5 * x * (1.0 + tl.erf(x * 0.7071067811865476))
    else:
        tl.static_assert(ACTIVATION == "none", "no such activation function")
    return x


@kernel
def clamped(x: tl.tensor) -> tl.tensor:
    """Clamps to [0, 6]."""
    return tl.where(x < 0.0, 0.0, tl.where(x > 6.0, 6.0, x))
