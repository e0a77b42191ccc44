"""The operator graph: what a traced model computes, as frozen records over four-dimensional tensors.

Every tensor is (batch, channels, height, width); one of two or three dimensions gets ones behind, so
that adding or dropping such a dimension is no operator at all. Operators are those of the executor
(`as_op_kind` in ``kernels/include/autosparse.h``) and two more: `Op.PAD`, which fusion moves into a
convolution, and `Op.UNSUPPORTED`, which carries the reason why the executor cannot run it.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

from autosparse.records import Activation as Activation

FloatArray = npt.NDArray[np.float32] | npt.NDArray[np.float64]
Dims = tuple[int, ...]


class Op(StrEnum):
    """What a node computes."""

    CONV = "conv"
    CONV_GROUPED = "conv_grouped"
    MAX_POOL = "max_pool"
    AVG_POOL = "avg_pool"
    ADAPTIVE_AVG_POOL = "adaptive_avg_pool"
    GLOBAL_AVG_POOL = "global_avg_pool"
    ADD = "add"
    MUL = "mul"
    CONCAT = "concat"
    AFFINE = "affine"
    ACTIVATION = "activation"
    SUBSAMPLE_PAD = "subsample_pad"
    FLATTEN = "flatten"
    SOFTMAX = "softmax"
    PAD = "pad"
    UNSUPPORTED = "unsupported"


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Geometry of a convolution or pooling window, in elements.

    Attributes:
        kernel: height and width.
        stride: steps along height and width.
        padding: top, left, bottom, right.
        dilation: distance between taps along height and width.
    """

    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)

    @property
    def is_symmetric(self) -> bool:
        """Whether opposite borders are padded alike."""
        return self.padding[:2] == self.padding[2:]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Node:
    """One operator and the one tensor it makes.

    Attributes:
        name: name of the node and of its tensor, unique in the graph.
        op: what it computes.
        inputs: names of the tensors it reads, in order.
        shape: of its output, (batch, channels, height, width); the dimensions as torch gives them
            where the operator is unsupported and they are not two to four.
        aten: torch's name of the operator, for messages.
        module: dotted path of the module it comes from, empty for the model itself.
        layer: dotted path of the module whose weight it uses; None without a weight.
        linear: whether a `Op.CONV` was a matrix product.
        residual: tensor added before the activation, None without.
        activation: applied last.
        window: of a convolution or pooling; the stride of `Op.SUBSAMPLE_PAD`, the padding of `Op.PAD`.
        groups: of a convolution.
        weight: (out, in / groups, height, width) of a convolution, one per channel of `Op.AFFINE`.
        bias: one per output channel.
        channels_before: zero channels in front, of `Op.SUBSAMPLE_PAD`.
        count_include_pad: whether padded pixels count in an average; those beyond the padding, where
            the last window overruns it, never do.
        why_dense: reasons, known when tracing, that forbid to prune the weight.
        reason: why the executor cannot run it; only of `Op.UNSUPPORTED`.
    """

    name: str
    op: Op
    inputs: tuple[str, ...]
    shape: Dims
    aten: str = ""
    module: str = ""
    layer: str | None = None
    linear: bool = False
    residual: str | None = None
    activation: Activation = Activation.NONE
    window: Window = Window()
    groups: int = 1
    weight: FloatArray | None = None
    bias: FloatArray | None = None
    channels_before: int = 0
    count_include_pad: bool = True
    why_dense: tuple[str, ...] = ()
    reason: str = ""

    def describe(self) -> str:
        """Says what an unsupported node is, where it is, and why it is refused."""
        where = f" in module {self.module!r}" if self.module else ""
        return f"{self.aten or 'a result'}{where}: {self.reason}"

    @property
    def reads(self) -> tuple[str, ...]:
        """Names of all tensors it reads, the residual included."""
        return self.inputs if self.residual is None else (*self.inputs, self.residual)


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """A tensor where it enters or leaves the graph.

    Attributes:
        tensor: its name inside.
        dims: its dimensions outside, as torch has them.
        dtype: its element type outside, such as ``float32``.
    """

    tensor: str
    dims: Dims
    dtype: str = "float32"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Graph:
    """A model as a list of operators in an order in which they can run.

    Attributes:
        inputs: in the order of the model's arguments.
        nodes: operators, each after all that it reads.
        outputs: leaves of the model's result.
        out_spec: torch's description of how the leaves make up the result.
    """

    inputs: tuple[Port, ...]
    nodes: tuple[Node, ...]
    outputs: tuple[Port, ...]
    out_spec: Any = None

    @property
    def unsupported(self) -> tuple[Node, ...]:
        """Operators that the executor cannot run."""
        return tuple(node for node in self.nodes if node.op is Op.UNSUPPORTED)

    @property
    def shapes(self) -> dict[str, Dims]:
        """Every tensor's shape inside the graph."""
        shapes = {port.tensor: inside(port.dims) or port.dims for port in self.inputs}
        return shapes | {node.name: node.shape for node in self.nodes}

    def uses(self) -> Counter[str]:
        """How often each tensor is read, leaving the graph included."""
        uses = Counter(port.tensor for port in self.outputs)
        for node in self.nodes:
            uses.update(node.reads)
        return uses


def inside(dims: Dims) -> Dims | None:
    """Gives the four-dimensional shape that stands for torch's dimensions, None if none does."""
    return dims + (1,) * (4 - len(dims)) if 2 <= len(dims) <= 4 else None


def elements(dims: Dims) -> int:
    """Number of elements of a tensor."""
    return math.prod(dims)
