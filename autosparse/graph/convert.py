"""How a torch operator becomes a node: the table of converters, and what a converter is given.

A converter is a function of one `Call`; it either emits nodes and returns the `Value` (or tuple of
values) that the operator makes, or raises `Unsupported` with the reason. Converters live in the files
``convert_*.py`` beside this one and enter the table by decorator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from autosparse.graph.ir import Activation, Dims, FloatArray, Node, Op, Window, inside


class Unsupported(Exception):
    """The executor has no operator for this call.

    Attributes:
        reason: what stands against it.
        layer: path of the module whose weight the call would use, None without.
    """

    def __init__(self, reason: str, layer: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.layer = layer


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of the graph as torch sees it: several values may stand for one tensor inside.

    Attributes:
        tensor: name of the graph's tensor.
        dims: torch's dimensions.
    """

    tensor: str
    dims: Dims

    @property
    def shape(self) -> Dims:
        """Its shape inside the graph.

        Raises:
            Unsupported: fewer than two or more than four dimensions.
        """
        shape = inside(self.dims)
        if shape is None:
            raise Unsupported(f"tensors must have 2 to 4 dimensions, but got {list(self.dims)}")
        return shape


@dataclass(frozen=True, slots=True)
class Constant:
    """A tensor known before the model runs: a parameter, a buffer, or computed from such.

    Attributes:
        tensor: its value.
        name: qualified name of the parameter or buffer, empty when computed.
    """

    tensor: torch.Tensor
    name: str = ""


@dataclass(slots=True)
class Call:
    """One call of a torch operator, its arguments by name.

    Attributes:
        name: unique name for the node it becomes.
        aten: the operator.
        module: path of the module that calls it.
        dims: torch's dimensions of its result; of the first if there are several.
        arguments: by the schema's names; graph tensors as `Value`, known ones as `Constant`.
        nodes: what was emitted so far, for this and all earlier calls.
        emitted: nodes emitted by this call.
    """

    name: str
    aten: str
    module: str
    dims: Dims
    arguments: dict[str, Any]
    nodes: list[Node]
    emitted: int = field(default=0)

    def __getitem__(self, argument: str) -> Any:
        return self.arguments[argument]

    def get(self, argument: str, default: Any = None) -> Any:
        """Gives an argument, or `default` if the operator has none of that name."""
        return self.arguments.get(argument, default)

    def value(self, argument: str) -> Value:
        """Gives an argument that the model computes.

        Raises:
            Unsupported: it is a constant or a number.
        """
        found = self.arguments[argument]
        if not isinstance(found, Value):
            raise Unsupported(f"argument {argument!r} must be computed by the model, not a constant")
        return found

    def image(self, argument: str) -> Value:
        """Gives an argument that must be a batch of images, four dimensions.

        Raises:
            Unsupported: it is not.
        """
        value = self.value(argument)
        if len(value.dims) != 4:
            raise Unsupported(f"the input must have 4 dimensions, but got {list(value.dims)}")
        return value

    def constant(self, argument: str) -> Constant:
        """Gives an argument that must be known before the model runs.

        Raises:
            Unsupported: the model computes it from its inputs.
        """
        found = self.arguments[argument]
        if not isinstance(found, Constant):
            raise Unsupported(f"argument {argument!r} must not depend on the model's inputs")
        return found

    def emit(self, op: Op, *inputs: Value, shape: Dims | None = None, **fields: Any) -> Value:
        """Adds a node and gives its value, with torch's dimensions of the call's result."""
        suffix = f"_{self.emitted}" if self.emitted else ""
        self.emitted += 1
        made = shape if shape is not None else Value("", self.dims).shape
        node = Node(
            name=self.name + suffix,
            op=op,
            inputs=tuple(value.tensor for value in inputs),
            shape=made,
            aten=self.aten,
            module=self.module,
            **fields,
        )
        self.nodes.append(node)
        return Value(node.name, self.dims if shape is None else made)

    def activate(self, value: Value, activation: Activation) -> Value:
        """Adds an activation."""
        return self.emit(Op.ACTIVATION, value, shape=None, activation=activation)

    def alias(self, value: Value) -> Value:
        """Gives the same tensor under the dimensions of the call's result."""
        return Value(value.tensor, self.dims)


Converter = Callable[[Call], Value | tuple[Value, ...]]
CONVERTERS: dict[str, Converter] = {}


def converts(*names: str) -> Callable[[Converter], Converter]:
    """Enters a converter for the named overloads, such as ``aten.relu.default``."""

    def enter(converter: Converter) -> Converter:
        for name in names:
            assert name not in CONVERTERS, f"two converters for {name}"
            CONVERTERS[name] = converter
        return converter

    return enter


def array(tensor: torch.Tensor) -> FloatArray:
    """Gives a constant as a numpy array of its own type.

    Raises:
        Unsupported: it is neither float32 nor float64.
    """
    if tensor.dtype not in (torch.float32, torch.float64):
        raise Unsupported(
            f"constants must be float32, but got {str(tensor.dtype).removeprefix('torch.')}"
        )
    # A private copy only where torch's memory is no plain array: a graph is a view of the module.
    found: FloatArray = tensor.detach().cpu().contiguous().numpy()
    return found


def weights(constant: Constant, layer: str | None) -> FloatArray:
    """Gives a layer's weight or bias, float32.

    Raises:
        Unsupported: it has another type.
    """
    if constant.tensor.dtype != torch.float32:
        dtype = str(constant.tensor.dtype).removeprefix("torch.")
        raise Unsupported(f"weights must be float32, but got {dtype}", layer)
    return array(constant.tensor)


def pair(value: int | Sequence[int]) -> tuple[int, int]:
    """Gives height and width from torch's one or two numbers."""
    if isinstance(value, int):
        return value, value
    return (value[0], value[0]) if len(value) == 1 else (value[0], value[1])


def both_sides(padding: tuple[int, int]) -> tuple[int, int, int, int]:
    """Gives top, left, bottom, right from symmetric padding."""
    return (*padding, *padding)


def window(
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int] = (1, 1),
) -> Window:
    """Makes a window."""
    return Window(kernel=kernel, stride=stride, padding=padding, dilation=dilation)


def per_channel(constant: torch.Tensor, dims: Dims) -> FloatArray | None:
    """Gives one float64 number per channel if `constant` broadcasts so over `dims`, else None."""
    if constant.dim() > len(dims):
        return None
    padded = (1,) * (len(dims) - constant.dim()) + tuple(constant.shape)
    if any(size != 1 for axis, size in enumerate(padded) if axis != 1) or padded[1] not in (1, dims[1]):
        return None
    flat = constant.detach().cpu().to(torch.float64).reshape(-1).numpy()
    return np.ascontiguousarray(np.broadcast_to(flat, (dims[1],)))
