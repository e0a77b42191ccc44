"""A fused graph in torch as it is computed in 16 bits: to know an accuracy without compiling.

Weights and every operator's result are rounded to bf16 or f16, to nearest even; sums, biases and what
an operator does inside are float32, and so are results from the last layers on (`float_tail`). What is
left to differ from a compiled model is the order of sums.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import _pytree as pytree

from autosparse.errors import UsageError
from autosparse.graph.ir import Activation, FloatArray, Graph, Node, Op, Window

LAYERS = frozenset({Op.CONV, Op.CONV_GROUPED})

_ACTIVATIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    Activation.RELU: functional.relu,
    Activation.RELU6: functional.relu6,
    Activation.SILU: functional.silu,
    Activation.HARD_SWISH: functional.hardswish,
    Activation.HARD_SIGMOID: functional.hardsigmoid,
    Activation.SIGMOID: torch.sigmoid,
    Activation.GELU: functional.gelu,
}


def float_tail(graph: Graph) -> frozenset[str]:
    """Gives the tensors of a bf16 program that stay float32: results, from the last layers on.

    A layer reads bf16 and may write float32; everything else reads and writes one type. So a result is
    float32 with all that other operators make it of, up to layers that nothing but these follow; where
    one of these tensors is also read by a layer, or by an operator whose own output is bf16, none is.
    """
    tail = {port.tensor for port in graph.outputs}
    for node in reversed(graph.nodes):
        if node.name in tail:
            summand = () if node.residual is None else (node.residual,)
            tail.update(summand if node.op in LAYERS else node.inputs)
    for node in graph.nodes:
        read = node.inputs if node.op in LAYERS or node.name not in tail else ()
        if tail.intersection(read):
            return frozenset()
    return frozenset(tail)


HALVES = {"bf16": torch.bfloat16, "f16": torch.float16}
"""The types of 16 bits by name."""


def rounded(values: Tensor, dtype: str = "bf16") -> Tensor:
    """Gives the nearest values that a type of 16 bits can hold, ties to even, as float32.

    What is too large for f16 becomes infinite.
    """
    return values.to(HALVES[dtype]).float()


class Emulation(nn.Module):
    """Computes what a fused graph computes, in 16 bits as compiled models do it.

    Batches may be of any size; all other extents are the graph's. Weights are copied.

    Args:
        graph: fused, without unsupported operators.
        dtype: ``bf16`` or ``f16``.

    Raises:
        UsageError: the executor lacks an operator of the graph, so there is nothing to emulate.
    """

    def __init__(self, graph: Graph, dtype: str = "bf16") -> None:
        super().__init__()
        if graph.unsupported:
            raise UsageError(
                f"{dtype} needs a model that the executor runs, but got "
                f"{graph.unsupported[0].describe()}; compute in f32"
            )
        self._graph, self._dtype = graph, dtype
        self._wide = float_tail(graph)
        self._weights = {node.name: _weight(node, dtype) for node in graph.nodes}
        self._biases = {node.name: _tensor(node.bias) for node in graph.nodes}
        self._last_use = {name: index for index, node in enumerate(graph.nodes) for name in node.reads}

    def forward(self, *inputs: Tensor) -> Any:
        """Gives what the module gives, in evaluation mode."""
        known: dict[str, Tensor] = {}
        for value, port in zip(inputs, self._graph.inputs, strict=True):
            shaped = value.reshape(*value.shape, *[1] * (4 - value.dim()))
            known[port.tensor] = self._kept(port.tensor, shaped)
        results = {port.tensor for port in self._graph.outputs}
        for index, node in enumerate(self._graph.nodes):
            known[node.name] = self._run(node, known)
            for name in node.reads:
                if self._last_use[name] == index and name not in results:
                    known.pop(name, None)
        leaves = [
            known[port.tensor].reshape(inputs[0].shape[0], *port.dims[1:])
            for port in self._graph.outputs
        ]
        spec = self._graph.out_spec
        return leaves[0] if spec is None else pytree.tree_unflatten(leaves, spec)

    def _kept(self, name: str, values: Tensor) -> Tensor:
        """Gives a tensor as it is stored."""
        return values if name in self._wide else rounded(values, self._dtype)

    def _run(self, node: Node, known: Mapping[str, Tensor]) -> Tensor:
        values = [known[name] for name in node.inputs]
        if node.op in LAYERS:
            result = self._layer(node, values[0])
        elif node.op is Op.AFFINE:
            result = self._affine(node, values[0])
        else:
            result = _OPERATORS[node.op](node, values)
        if node.residual is not None:
            result = result + known[node.residual]
        result = self._kept(node.name, result)
        if node.activation is Activation.NONE:
            return result
        # The executor activates what is stored, but for the clamps, which commute with rounding.
        return self._kept(node.name, _ACTIVATIONS[node.activation](result))

    def _layer(self, node: Node, values: Tensor) -> Tensor:
        weight = self._weights[node.name]
        assert weight is not None
        top, left, bottom, right = node.window.padding
        padded = functional.pad(values, (left, right, top, bottom))
        found = functional.conv2d(
            padded, weight, None, node.window.stride, 0, node.window.dilation, node.groups
        )
        bias = self._biases[node.name]
        return found if bias is None else found + bias[:, None, None]

    def _affine(self, node: Node, values: Tensor) -> Tensor:
        weight, bias = self._weights[node.name], self._biases[node.name]
        scaled = values if weight is None else values * weight[:, None, None]
        return scaled if bias is None else scaled + bias[:, None, None]


def _tensor(values: FloatArray | None) -> Tensor | None:
    return None if values is None else torch.tensor(values, dtype=torch.float32)


def _weight(node: Node, dtype: str) -> Tensor | None:
    """Gives a weight as it is packed."""
    weight = _tensor(node.weight)
    if weight is None or node.op not in LAYERS:
        return weight
    return rounded(weight, dtype)


# ------------------------------------------------------------------------------------- operators


def _padded(values: Tensor, node: Node, fill: float) -> Tensor:
    """Pads for a pooling window, also where the last window overruns the padding."""
    top, left, _, _ = node.window.padding
    bottom, right = (
        max(0, _reach(node.window, axis, node.shape[2 + axis]) - values.shape[2 + axis] - before)
        for axis, before in ((0, top), (1, left))
    )
    return functional.pad(values, (left, right, top, bottom), value=fill)


def _reach(window: Window, axis: int, outputs: int) -> int:
    """Pixels along one axis, padding before included, that the windows cover."""
    span = window.dilation[axis] * (window.kernel[axis] - 1) + 1
    return (outputs - 1) * window.stride[axis] + span


def _max_pool(node: Node, values: list[Tensor]) -> Tensor:
    padded, window = _padded(values[0], node, -torch.inf), node.window
    found = functional.max_pool2d(padded, window.kernel, window.stride, 0, window.dilation)
    return found[:, :, : node.shape[2], : node.shape[3]]


def _avg_pool(node: Node, values: list[Tensor]) -> Tensor:
    top, left, bottom, right = node.window.padding
    ones = torch.ones(1, 1, *values[0].shape[2:])
    counted = functional.pad(ones, (left, right, top, bottom), value=float(node.count_include_pad))
    total = _window_sums(node, _padded(values[0], node, 0.0))
    return total / _window_sums(node, _trimmed(counted, node)).clamp_min(1.0)


def _adaptive_avg_pool(node: Node, values: list[Tensor]) -> Tensor:
    return functional.adaptive_avg_pool2d(values[0], (node.shape[2], node.shape[3]))


def _trimmed(counted: Tensor, node: Node) -> Tensor:
    """Pads or crops a padded image to what the windows cover."""
    height, width = (_reach(node.window, axis, node.shape[2 + axis]) for axis in (0, 1))
    return functional.pad(counted, (0, width - counted.shape[3], 0, height - counted.shape[2]))


def _window_sums(node: Node, padded: Tensor) -> Tensor:
    sums = functional.avg_pool2d(padded, node.window.kernel, node.window.stride, divisor_override=1)
    return sums[:, :, : node.shape[2], : node.shape[3]]


def _subsample_pad(node: Node, values: list[Tensor]) -> Tensor:
    step_y, step_x = node.window.stride
    taken = values[0][:, :, ::step_y, ::step_x][:, :, : node.shape[2], : node.shape[3]]
    behind = node.shape[1] - node.channels_before - taken.shape[1]
    return functional.pad(taken, (0, 0, 0, 0, node.channels_before, behind))


_OPERATORS: Mapping[Op, Callable[[Node, list[Tensor]], Tensor]] = {
    Op.MAX_POOL: _max_pool,
    Op.AVG_POOL: _avg_pool,
    Op.ADAPTIVE_AVG_POOL: _adaptive_avg_pool,
    Op.GLOBAL_AVG_POOL: lambda node, x: x[0].mean((2, 3), keepdim=True),
    Op.ADD: lambda node, x: x[0] + x[1],
    Op.MUL: lambda node, x: x[0] * x[1],
    Op.CONCAT: lambda node, x: torch.cat(x, 1),
    Op.ACTIVATION: lambda node, x: x[0],
    Op.SUBSAMPLE_PAD: _subsample_pad,
    Op.FLATTEN: lambda node, x: x[0].flatten(1)[:, :, None, None],
    Op.SOFTMAX: lambda node, x: functional.softmax(x[0], 1),
}
