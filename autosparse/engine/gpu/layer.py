"""A prepared layer as a part of torch's graph: tensors as torch has them, memory channels last.

An NCHW tensor whose memory is channels last is, permuted, the contiguous NHWC tensor that kernels read;
a matrix product's rows are pixels of images one pixel wide. So nothing is copied between layers.
"""

from __future__ import annotations

import itertools
import weakref

import torch
from torch import Tensor, nn

from autosparse.kernels.gpu.method import Prepared
from autosparse.records import LayerShape

_NUMBERS = itertools.count(1)
_LAYERS: weakref.WeakValueDictionary[int, SiteLayer] = weakref.WeakValueDictionary()


class SiteLayer(nn.Module):
    """A layer that computes what its site in torch's graph did.

    Args:
        prepared: its kernel, weights in place.
        shape: the layer, for inputs of one size.
        linear: whether it is a product over the last dimension.

    Attributes:
        opaque: whether a compiler that traces the graph sees it as one operator.
    """

    def __init__(self, prepared: Prepared, shape: LayerShape, *, linear: bool) -> None:
        super().__init__()
        self.prepared = prepared
        self.shape = shape
        self.linear = linear
        self.opaque = False
        self.number = next(_NUMBERS)
        _LAYERS[self.number] = self

    @property
    def place(self) -> str:
        """Its name in the program."""
        return f"layer_{self.number}"

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """Computes the layer on the current stream."""
        if self.opaque:
            return torch.ops.autosparse.gpu_layer(x, residual, self.number)  # type: ignore[no-any-return]
        return self.run(x, residual)

    def run(self, x: Tensor, residual: Tensor | None) -> Tensor:
        """Does so, whoever calls."""
        out = self.empty(x)
        added = None if residual is None else self._pixels(residual, self.shape.output_shape)
        self.prepared(self._pixels(x, self.shape.input_shape), added, self._pixels_of_result(out))
        return out

    def empty(self, x: Tensor) -> Tensor:
        """Makes room for the result, as torch has its dimensions."""
        batch, channels, height, width = self.shape.output_shape
        if self.linear:
            return x.new_empty((*x.shape[:-1], channels))
        return x.new_empty((batch, height, width, channels)).permute(0, 3, 1, 2)

    def _pixels(self, value: Tensor, size: tuple[int, int, int, int]) -> Tensor:
        """Gives NHWC; a copy where torch left the channels elsewhere."""
        batch, channels, height, width = size
        if self.linear:
            return value.reshape(batch, height, width, channels).contiguous()
        return value.permute(0, 2, 3, 1).contiguous()

    def _pixels_of_result(self, out: Tensor) -> Tensor:
        batch, channels, height, width = self.shape.output_shape
        return out.view(batch, height, width, channels) if self.linear else out.permute(0, 2, 3, 1)


@torch.library.custom_op("autosparse::gpu_layer", mutates_args=())
def _gpu_layer(x: Tensor, residual: Tensor | None, number: int) -> Tensor:
    return _LAYERS[number].run(x, residual)


@_gpu_layer.register_fake
def _(x: Tensor, residual: Tensor | None, number: int) -> Tensor:
    return _LAYERS[number].empty(x)
