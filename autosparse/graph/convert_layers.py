"""Converters of operators with weights: convolution, matrix product, batch normalisation."""

from __future__ import annotations

from typing import Any

import torch

from autosparse.graph.convert import (
    Call,
    Constant,
    Unsupported,
    Value,
    both_sides,
    converts,
    pair,
    weights,
    window,
)
from autosparse.graph.ir import Op

COMPUTED_WEIGHT = (
    "its weight is computed by the model (weight_norm, spectral_norm, a mask of torch.nn.utils.prune "
    "or another parametrisation), not a parameter: bake it first, with "
    "torch.nn.utils.parametrize.remove_parametrizations, remove_weight_norm, remove_spectral_norm or "
    "prune.remove"
)


def _layer(call: Call, weight: Constant) -> tuple[str, tuple[str, ...]]:
    """Gives the layer's name, and what forbids to prune it."""
    if weight.name == "weight" or weight.name.endswith(".weight"):
        return weight.name.removesuffix("weight").removesuffix("."), ()
    if weight.name:
        return weight.name, (f"its weight {weight.name!r} is not named '<module>.weight'",)
    return call.module, (COMPUTED_WEIGHT,)


def _bias(call: Call, layer: str) -> Any:
    return None if call["bias"] is None else weights(call.constant("bias"), layer)


def _padding(
    call: Call, kernel: tuple[int, int], dilation: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Resolves ``same`` and ``valid``; what an odd total leaves over goes below and to the right."""
    given = call["padding"]
    if given == "valid":
        return (0, 0, 0, 0)
    if given != "same":
        return both_sides(pair(given))
    total = (dilation[0] * (kernel[0] - 1), dilation[1] * (kernel[1] - 1))
    top, left = total[0] // 2, total[1] // 2
    return top, left, total[0] - top, total[1] - left


@converts("aten.conv2d.default", "aten.conv2d.padding")
def conv2d(call: Call) -> Value:
    """Two-dimensional convolution, any stride, padding, dilation and groups."""
    weight = call.constant("weight")
    layer, why_dense = _layer(call, weight)
    image = call.value("input")
    if len(image.dims) != 4:
        raise Unsupported(f"the input must have 4 dimensions, but got {list(image.dims)}", layer)
    kernel = pair(tuple(weight.tensor.shape[2:]))
    dilation = pair(call["dilation"])
    groups = int(call["groups"])
    return call.emit(
        Op.CONV if groups == 1 else Op.CONV_GROUPED,
        image,
        layer=layer,
        why_dense=why_dense,
        weight=weights(weight, layer),
        bias=_bias(call, layer),
        groups=groups,
        window=window(kernel, pair(call["stride"]), _padding(call, kernel, dilation), dilation),
    )


@converts("aten.linear.default")
def linear(call: Call) -> Value:
    """Matrix product over the channels of (batch, channels)."""
    weight = call.constant("weight")
    layer, why_dense = _layer(call, weight)
    rows = call.value("input")
    if len(rows.dims) != 2:
        raise Unsupported(f"the input must be (batch, channels), but got {list(rows.dims)}", layer)
    return call.emit(
        Op.CONV,
        rows,
        layer=layer,
        why_dense=why_dense,
        weight=weights(weight, layer)[:, :, None, None],
        bias=_bias(call, layer),
        linear=True,
    )


def _statistic(call: Call, argument: str, otherwise: float, channels: int) -> torch.Tensor:
    if call[argument] is None:
        return torch.full((channels,), otherwise, dtype=torch.float64)
    return call.constant(argument).tensor.detach().cpu().to(torch.float64)


def _normalise(call: Call) -> Value:
    value = call.value("input")
    channels = value.shape[1]
    if call["running_mean"] is None or call["running_var"] is None:
        raise Unsupported("batch-norm must have running statistics")
    deviation = torch.sqrt(_statistic(call, "running_var", 1.0, channels) + call["eps"])
    scale = _statistic(call, "weight", 1.0, channels) / deviation
    shift = _statistic(call, "bias", 0.0, channels) - scale * _statistic(
        call, "running_mean", 0.0, channels
    )
    return call.emit(Op.AFFINE, value, weight=scale.numpy(), bias=shift.numpy())


@converts("aten.batch_norm.default")
def batch_norm(call: Call) -> Value:
    """Batch normalisation with stored statistics, in float64 until it is folded."""
    if call["training"]:
        raise Unsupported("batch-norm must be in evaluation mode")
    return _normalise(call)


@converts("aten._native_batch_norm_legit_no_training.default")
def native_batch_norm(call: Call) -> tuple[Value, ...]:
    """The same, as functionalised graphs spell it; the saved statistics are empty."""
    value = _normalise(call)
    return value, Value("", (0,)), Value("", (0,))
