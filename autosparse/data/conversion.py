"""Stored images brought to one size and number of channels, as the type they have."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601, red green blue
_CHUNK = 1024  # images converted at a time, so that their float copies stay small


def recoloured(images: Tensor, channels: int) -> Tensor:
    """Turns colour to gray if one channel is wanted; gray stays one channel and is repeated later."""
    if channels != 1 or images.shape[1] == 1:
        return images
    weights = torch.tensor(LUMINANCE).view(1, 3, 1, 1)
    return torch.cat(
        [_as_type((c.float() * weights).sum(1, True), images) for c in torch.split(images, _CHUNK)]
    )


def resized(images: Tensor, side: int) -> Tensor:
    """Resizes bilinearly, blurring first where images shrink; keeps the type."""
    height, width = images.shape[2:]
    if (height, width) == (side, side):
        return images.contiguous()
    shrinks = side < max(height, width)
    chunks = (
        F.interpolate(chunk.float(), (side, side), mode="bilinear", antialias=shrinks)
        for chunk in torch.split(images, _CHUNK)
    )
    return torch.cat([_as_type(chunk, images) for chunk in chunks])


def _as_type(values: Tensor, like: Tensor) -> Tensor:
    return values.round_().clamp_(0, 255).to(torch.uint8) if like.dtype == torch.uint8 else values
