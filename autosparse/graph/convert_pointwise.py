"""Converters of operators that work element by element: activations, sums, products, softmax."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from autosparse.graph.convert import Call, Constant, Unsupported, Value, converts, per_channel
from autosparse.graph.ir import Activation, FloatArray, Op

_PLAIN = {
    "aten.relu.default": Activation.RELU,
    "aten.relu6.default": Activation.RELU6,
    "aten.silu.default": Activation.SILU,
    "aten.hardswish.default": Activation.HARD_SWISH,
    "aten.hardsigmoid.default": Activation.HARD_SIGMOID,
    "aten.sigmoid.default": Activation.SIGMOID,
}


def _first(call: Call) -> Value:
    return call.value("self" if "self" in call.arguments else "input")


@converts(*_PLAIN)
def activation(call: Call) -> Value:
    """Activations without parameters."""
    return call.activate(_first(call), _PLAIN[call.aten])


@converts("aten.gelu.default")
def gelu(call: Call) -> Value:
    """GELU by the error function."""
    if call["approximate"] != "none":
        raise Unsupported(f"GELU must be exact, but got approximate={call['approximate']!r}")
    return call.activate(call.value("self"), Activation.GELU)


def _between(low: Any, high: Any) -> Activation:
    """Gives the activation that clamps between two bounds, None standing for infinity."""
    top = math.inf if high is None else float(high)
    if low is not None and float(low) == 0.0 and top in (6.0, math.inf):
        return Activation.RELU6 if top == 6.0 else Activation.RELU
    raise Unsupported(f"bounds must be 0 and 6 or 0 and infinity, but got {low} and {high}")


@converts("aten.hardtanh.default")
def hardtanh(call: Call) -> Value:
    """ReLU6, as torch spells it."""
    return call.activate(call.value("self"), _between(call["min_val"], call["max_val"]))


@converts("aten.clamp.default", "aten.clamp_min.default")
def clamp(call: Call) -> Value:
    """ReLU and ReLU6 written as bounds."""
    return call.activate(call.value("self"), _between(call["min"], call.get("max")))


def _vector(operand: Any, value: Value) -> FloatArray:
    """Gives a number or per-channel constant as one float64 per channel of `value`."""
    if isinstance(operand, bool) or not isinstance(operand, int | float | Constant):
        raise Unsupported(f"the second operand must be a number or tensor, but got {operand!r}")
    if isinstance(operand, int | float):
        return np.full(value.shape[1], float(operand))
    found = per_channel(operand.tensor, value.dims)
    if found is None:
        raise Unsupported(
            f"a constant operand must hold one number per channel, but got "
            f"{list(operand.tensor.shape)} against {list(value.dims)}"
        )
    return found


def _affine(call: Call, value: Value, weight: FloatArray, bias: FloatArray) -> Value:
    if value.dims != call.dims:
        raise Unsupported(f"the result must be as large as the input, but got {list(call.dims)}")
    return call.emit(Op.AFFINE, value, weight=weight, bias=bias)


def _with_constant(
    call: Call, fold: Callable[[FloatArray], tuple[FloatArray, FloatArray]]
) -> Value | None:
    """Folds ``value op constant`` to weight and bias; None if both operands are computed."""
    first, second = call["self"], call["other"]
    if isinstance(first, Value) and not isinstance(second, Value):
        return _affine(call, first, *fold(_vector(second, first)))
    return None


def _swapped(call: Call) -> Call:
    """Puts a constant second, for operators that commute."""
    if isinstance(call["self"], Constant) and isinstance(call["other"], Value):
        call.arguments["self"], call.arguments["other"] = call["other"], call["self"]
    return call


def _plain_alpha(call: Call) -> None:
    if call.get("alpha", 1) != 1:
        raise Unsupported(f"alpha must be 1, but got {call['alpha']}")


@converts("aten.add.Tensor", "aten.add.Scalar")
def add(call: Call) -> Value:
    """Sum of two tensors of one shape, or of a tensor and a number or per-channel constant."""
    _plain_alpha(call)
    found = _with_constant(_swapped(call), lambda v: (np.ones_like(v), v))
    if found is not None:
        return found
    first, second = call.value("self"), call.value("other")
    if first.dims != second.dims:
        raise Unsupported(f"summands must be alike, but got {list(first.dims)} and {list(second.dims)}")
    return call.emit(Op.ADD, first, second)


@converts("aten.sub.Tensor", "aten.sub.Scalar")
def sub(call: Call) -> Value:
    """A tensor less a number or per-channel constant, or the other way round."""
    _plain_alpha(call)
    if isinstance(call["self"], Constant) and isinstance(call["other"], Value):
        value = call.value("other")
        vector = _vector(call["self"], value)
        return _affine(call, value, -np.ones_like(vector), vector)
    found = _with_constant(call, lambda v: (np.ones_like(v), -v))
    if found is None:
        raise Unsupported("the difference of two computed tensors has no native operator")
    return found


@converts("aten.neg.default")
def neg(call: Call) -> Value:
    """A tensor with its sign changed."""
    value = call.value("self")
    ones = np.ones(value.shape[1])
    return _affine(call, value, -ones, 0 * ones)


@converts("aten.rsub.Scalar", "aten.rsub.Tensor")
def rsub(call: Call) -> Value:
    """A number or per-channel constant less a tensor."""
    _plain_alpha(call)
    found = _with_constant(call, lambda v: (-np.ones_like(v), v))
    if found is None:
        raise Unsupported("the difference of two computed tensors has no native operator")
    return found


@converts("aten.mul.Tensor", "aten.mul.Scalar")
def mul(call: Call) -> Value:
    """Product with a tensor of the same shape or of one pixel per channel, or with a constant."""
    found = _with_constant(_swapped(call), lambda v: (v, np.zeros_like(v)))
    if found is not None:
        return found
    large, small = sorted((call.value("self"), call.value("other")), key=lambda v: v.dims != call.dims)
    if large.dims != call.dims or not _scales(small, large):
        raise Unsupported(
            f"factors must be alike or one number per channel, but got {list(large.dims)} "
            f"and {list(small.dims)}"
        )
    return call.emit(Op.MUL, large, small)


def _scales(small: Value, large: Value) -> bool:
    if small.dims == large.dims:
        return True
    return len(small.dims) == 4 and small.dims == (*large.dims[:2], 1, 1)


@converts("aten.div.Tensor", "aten.div.Scalar")
def div(call: Call) -> Value:
    """A tensor divided by a number or per-channel constant."""
    found = _with_constant(call, lambda v: (1.0 / v, np.zeros_like(v)))
    if found is None:
        raise Unsupported("the quotient of two computed tensors has no native operator")
    return found


@converts("aten.softmax.int", "aten._softmax.default")
def softmax(call: Call) -> Value:
    """Softmax over channels."""
    value = call.value("self")
    if call["dim"] % len(value.dims) != 1:
        raise Unsupported(f"softmax must run over channels, dimension 1, but got {call['dim']}")
    return call.emit(Op.SOFTMAX, value)
