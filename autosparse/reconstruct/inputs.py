"""What a layer's weights are multiplied with: the columns of its input, position by position."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

Layer = nn.Conv2d | nn.Linear

# Columns of so many bytes are made at a time: enough to keep a matrix product busy.
_CHUNK_BYTES = 32 << 20


def width(layer: Layer) -> int:
    """Gives the number of columns: inputs times taps."""
    return layer.weight[0].numel()


def output_positions(layer: Layer, inputs: Tensor) -> int:
    """Gives how many rows of columns each sample of an input has.

    Args:
        layer: of one convolution group.
        inputs: ``[B, C, H, W]`` for a convolution, ``[..., C]`` for a linear layer.
    """
    if isinstance(layer, nn.Linear):
        return math.prod(inputs.shape[1:-1])
    height, wide = _output_extent(layer, _padded(layer, inputs[:1]))
    return height * wide


def draw_positions(count: int, limit: int, generator: torch.Generator) -> Tensor:
    """Draws at most `limit` of `count` positions, each as likely as any other; 0 takes all."""
    if not limit or limit >= count:
        return torch.arange(count)
    return torch.randperm(count, generator=generator)[:limit].sort().values


def columns_of(layer: Layer, inputs: Tensor, positions: Tensor) -> Iterator[Tensor]:
    """Gives the columns of an input in chunks of samples, ``[rows, inputs * taps]``.

    A convolution's output at a position is the flattened weight times such a row: stride, dilation and
    padding of any mode are in it. Rows go sample by sample, positions in the order given.

    Args:
        layer: of one convolution group.
        inputs: as for `output_positions`.
        positions: which rows of each sample.
    """
    if isinstance(layer, nn.Linear):
        rows = inputs.reshape(len(inputs), -1, inputs.shape[-1])
        for part in torch.split(rows, _samples_at_once(positions, inputs.shape[-1])):
            yield part[:, positions].reshape(-1, inputs.shape[-1])
        return
    for part in torch.split(inputs, _samples_at_once(positions, width(layer))):
        padded = _padded(layer, part)
        where = _where(layer, padded, positions)
        taken = padded.flatten(2)[:, :, where]  # [B, C, positions, taps]
        yield taken.permute(0, 2, 1, 3).reshape(-1, width(layer))


def _samples_at_once(positions: Tensor, columns: int) -> int:
    return max(1, _CHUNK_BYTES // max(1, 4 * len(positions) * columns))


def _padded(layer: nn.Conv2d, inputs: Tensor) -> Tensor:
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return functional.pad(inputs, layer._reversed_padding_repeated_twice, mode=mode)


def _output_extent(layer: nn.Conv2d, padded: Tensor) -> tuple[int, int]:
    down, across = (
        (size - reach * (kernel - 1) - 1) // stride + 1
        for size, kernel, reach, stride in zip(
            padded.shape[2:], layer.kernel_size, layer.dilation, layer.stride, strict=True
        )
    )
    return down, across


def _where(layer: nn.Conv2d, padded: Tensor, positions: Tensor) -> Tensor:
    """Gives the pixels of the padded input that each output position reads, ``[positions, taps]``."""
    _, across = _output_extent(layer, padded)
    rows, columns = positions // across * layer.stride[0], positions % across * layer.stride[1]
    down = torch.arange(layer.kernel_size[0]) * layer.dilation[0]
    right = torch.arange(layer.kernel_size[1]) * layer.dilation[1]
    taps = (down[:, None] * padded.shape[3] + right).flatten()
    return (rows * padded.shape[3] + columns)[:, None] + taps
