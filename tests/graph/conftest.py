"""A second way to run a graph: every operator by torch, in float64."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autosparse.graph import Activation, Graph, Node, Op

ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    Activation.NONE: lambda x: x,
    Activation.RELU: F.relu,
    Activation.RELU6: F.relu6,
    Activation.SILU: F.silu,
    Activation.HARD_SWISH: F.hardswish,
    Activation.HARD_SIGMOID: F.hardsigmoid,
    Activation.SIGMOID: torch.sigmoid,
    Activation.GELU: F.gelu,
}


@pytest.fixture(scope="package", autouse=True)
def captured_by_torch() -> Iterator[None]:
    """Captures every model, as captures are what is tested here."""
    from autosparse.graph.trace import Exported

    module = sys.modules[Exported.__module__]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_export", module._export.plain)
        yield


def _tensor(values: np.ndarray | None) -> Tensor | None:
    return None if values is None else torch.from_numpy(values.astype(np.float64))


def _padded(x: Tensor, node: Node, value: float = 0.0) -> Tensor:
    top, left, bottom, right = node.window.padding
    return F.pad(x, (left, right, top, bottom), value=value)


def _convolve(x: Tensor, node: Node) -> Tensor:
    window = node.window
    weight, bias = _tensor(node.weight), _tensor(node.bias)
    assert weight is not None
    return F.conv2d(_padded(x, node), weight, bias, window.stride, 0, window.dilation, node.groups)


def _overrun(x: Tensor, node: Node, value: float) -> Tensor:
    """Adds what the last windows need beyond the padding."""
    window, more = node.window, []
    for axis in (1, 0):
        span = window.dilation[axis] * (window.kernel[axis] - 1) + 1
        needed = (node.shape[2 + axis] - 1) * window.stride[axis] + span
        more += [0, max(0, needed - x.shape[2 + axis])]
    return F.pad(x, more, value=value)


def _average(x: Tensor, node: Node) -> Tensor:
    kernel, stride = node.window.kernel, node.window.stride

    def total(image: Tensor, padding: float) -> Tensor:
        padded = _overrun(_padded(image, node, padding), node, 0.0)
        return F.avg_pool2d(padded, kernel, stride, divisor_override=1)

    return total(x, 0.0) / total(torch.ones_like(x), float(node.count_include_pad))


def _affine(x: Tensor, node: Node) -> Tensor:
    weight, bias = _tensor(node.weight), _tensor(node.bias)
    assert weight is not None
    assert bias is not None
    return x * weight[None, :, None, None] + bias[None, :, None, None]


def _subsample(x: Tensor, node: Node) -> Tensor:
    kept = x[:, :, :: node.window.stride[0], :: node.window.stride[1]]
    after = node.shape[1] - kept.shape[1] - node.channels_before
    return F.pad(kept, (0, 0, 0, 0, node.channels_before, after))


def _max_pool(x: Tensor, node: Node) -> Tensor:
    padded = _overrun(_padded(x, node, -torch.inf), node, -torch.inf)
    return F.max_pool2d(padded, node.window.kernel, node.window.stride, 0, node.window.dilation)


RUN: dict[Op, Callable[[Tensor, Node], Tensor]] = {
    Op.CONV: _convolve,
    Op.CONV_GROUPED: _convolve,
    Op.MAX_POOL: _max_pool,
    Op.AVG_POOL: _average,
    Op.ADAPTIVE_AVG_POOL: lambda x, node: F.adaptive_avg_pool2d(x, list(node.shape[2:])),
    Op.GLOBAL_AVG_POOL: lambda x, node: x.mean((2, 3), keepdim=True),
    Op.AFFINE: _affine,
    Op.ACTIVATION: lambda x, node: x,
    Op.SUBSAMPLE_PAD: _subsample,
    Op.FLATTEN: lambda x, node: x.reshape(node.shape),
    Op.SOFTMAX: lambda x, node: x.softmax(1),
    Op.PAD: _padded,
}


def _run_node(node: Node, values: dict[str, Tensor]) -> Tensor:
    inputs = [values[name] for name in node.inputs]
    if node.op is Op.CONCAT:
        result = torch.cat(inputs, 1)
    elif node.op is Op.ADD:
        result = inputs[0] + inputs[1]
    elif node.op is Op.MUL:
        result = inputs[0] * inputs[1]
    else:
        result = RUN[node.op](inputs[0], node)
    if node.residual is not None:
        result = result + values[node.residual]
    result = ACTIVATIONS[node.activation](result)
    assert tuple(result.shape) == node.shape, f"{node.name}: {tuple(result.shape)} != {node.shape}"
    return result


def interpret(graph: Graph, *inputs: Tensor) -> list[Tensor]:
    """Runs a graph; gives its outputs in torch's dimensions."""
    shapes = graph.shapes
    values = {
        port.tensor: value.double().reshape(shapes[port.tensor])
        for port, value in zip(graph.inputs, inputs, strict=True)
    }
    for node in graph.nodes:
        values[node.name] = _run_node(node, values)
    return [values[port.tensor].reshape(port.dims) for port in graph.outputs]


@pytest.fixture(name="interpret")
def interpret_fixture() -> Callable[..., list[Tensor]]:
    return interpret


@pytest.fixture
def stirred() -> Callable[[nn.Module, int], nn.Module]:
    """Gives every batch-norm statistics that folding cannot get right by accident."""

    def stir(module: nn.Module, seed: int = 0) -> nn.Module:
        generator = torch.Generator().manual_seed(seed)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d | nn.BatchNorm1d):
                size = part.num_features
                part.running_mean = torch.randn(size, generator=generator) * 0.3
                part.running_var = torch.rand(size, generator=generator) + 0.3
                if part.weight is not None:
                    part.weight.data = torch.randn(size, generator=generator) * 0.5 + 0.8
                    part.bias.data = torch.randn(size, generator=generator) * 0.3
        return module.eval()

    return stir
