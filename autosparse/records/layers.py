"""Layers of a model, and what each may become."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from autosparse.patterns.labels import label_of
from autosparse.patterns.pattern import DENSE, Pattern
from autosparse.records.rules import require, require_at_least
from autosparse.storage.serial import Record


class Activation(StrEnum):
    """The function applied last by an operator, after bias and residual sum: all that are native."""

    NONE = "none"
    RELU = "relu"
    RELU6 = "relu6"
    SILU = "silu"
    HARD_SWISH = "hard_swish"
    HARD_SIGMOID = "hard_sigmoid"
    SIGMOID = "sigmoid"
    GELU = "gelu"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerShape(Record):
    """All that decides how long a layer runs, in elements, epilogue included.

    A linear layer is a convolution over 1x1 images: `in_height` is the number of rows per sample.
    """

    op: Literal["conv2d", "linear"]
    batch_size: int
    in_channels: int
    out_channels: int
    in_height: int = 1
    in_width: int = 1
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    activation: Activation = Activation.NONE
    residual: bool = False

    def __post_init__(self) -> None:
        require(
            self.activation in list(Activation),
            f"activation must be one of {', '.join(Activation)}",
            activation=self.activation,
        )
        # A plain string equals the member, but has another hash.
        object.__setattr__(self, "activation", Activation(self.activation))
        extents = ("batch_size", "in_channels", "out_channels", "in_height", "in_width")
        require_at_least(1, self, *extents)
        require(
            self.in_channels % self.groups == 0 and self.out_channels % self.groups == 0,
            "groups must divide both channel counts",
            groups=self.groups,
            in_channels=self.in_channels,
            out_channels=self.out_channels,
        )
        require(
            self.out_height >= 1 and self.out_width >= 1,
            "the kernel must fit into the padded input",
            kernel=self.kernel,
            height=self.in_height,
            width=self.in_width,
        )

    def _extent(self, size: int, axis: int) -> int:
        span = self.dilation[axis] * (self.kernel[axis] - 1) + 1
        return (size + 2 * self.padding[axis] - span) // self.stride[axis] + 1

    @property
    def out_height(self) -> int:
        """Rows of the output."""
        return self._extent(self.in_height, 0)

    @property
    def out_width(self) -> int:
        """Columns of the output."""
        return self._extent(self.in_width, 1)

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """Extents of the input, NCHW."""
        return (self.batch_size, self.in_channels, self.in_height, self.in_width)

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        """Extents of the output, NCHW."""
        return (self.batch_size, self.out_channels, self.out_height, self.out_width)

    @property
    def taps(self) -> int:
        """Kernel positions, kh * kw."""
        return self.kernel[0] * self.kernel[1]

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        """Extents of the weight, OIHW; inputs are those of one group."""
        return (self.out_channels, self.in_channels // self.groups, *self.kernel)

    @property
    def weights(self) -> int:
        """Weight elements of the dense layer."""
        return self.out_channels * (self.in_channels // self.groups) * self.taps

    @property
    def flops(self) -> int:
        """Floating-point operations of the dense layer: two per multiply-add."""
        return 2 * self.batch_size * self.out_height * self.out_width * self.weights

    def kept_flops(self, kept: int) -> int:
        """Gives the operations of a layer whose outputs keep `kept` inputs; all of them for -1.

        Counted as the direct method does them: what a layer is, not what a kernel makes of it.
        """
        return self.flops if kept < 0 else self.flops // (self.in_channels // self.groups) * kept

    @property
    def key(self) -> str:
        """One canonical string, equal for equal shapes and for no others."""
        parts = [
            self.op,
            f"b{self.batch_size}",
            f"i{self.in_channels}x{self.in_height}x{self.in_width}",
            f"o{self.out_channels}",
        ]
        if self.op == "conv2d":
            parts += [
                f"{letter}{pair[0]}x{pair[1]}"
                for letter, pair in (
                    ("k", self.kernel),
                    ("s", self.stride),
                    ("p", self.padding),
                    ("d", self.dilation),
                )
            ]
            parts.append(f"g{self.groups}")
        if self.activation is not Activation.NONE:
            parts.append(self.activation)
        if self.residual:
            parts.append("res")
        return "_".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerInfo(Record):
    """One weight-bearing layer of a traced model.

    Attributes:
        name: the module's dotted path; the weight is ``<name>.weight``.
        shape: its shape in this trace, or None where the operator is not conv2d or linear.
        why_dense: reasons that keep it dense whatever the search wants; empty if it may be sparse.
    """

    name: str
    shape: LayerShape | None
    why_dense: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerChoice(Record):
    """What one layer shall be.

    Attributes:
        pattern: dense or a sparse pattern.
        sparsity: fraction of blocks pruned, in [0, 1]; 0 for a dense layer.
        dtype: arithmetic type of weights and activations.
        kernel: kernel that shall run it, or None to let `compile` pick.
    """

    pattern: Pattern = DENSE
    sparsity: float = 0.0
    dtype: Literal["f32", "bf16", "f16"] = "f32"
    kernel: str | None = None

    def __post_init__(self) -> None:
        require(0 <= self.sparsity <= 1, "sparsity must lie in [0, 1]", sparsity=self.sparsity)
        require(
            not (self.pattern.is_dense and self.sparsity > 0),
            "a dense layer has sparsity 0",
            sparsity=self.sparsity,
        )

    @property
    def label(self) -> str:
        """Short label: ``dense`` or ``1x16@0.75``; equal for equal patterns and sparsities alone."""
        return label_of(self.pattern, self.sparsity)
