"""What a kernel is called with: the struct ``Args`` of `cuda/layer.cuh`, member by member."""

from __future__ import annotations

import ctypes

from autosparse.records import LayerShape

_POINTERS = ("x", "residual", "out", "blocks", "runs", "parts", "outputs", "bias")
_NUMBERS = (
    *("part_count", "pixel_blocks", "pixels"),
    *("in_channels", "out_channels"),
    *("height", "width", "out_height", "out_width"),
    *("stride_y", "stride_x", "pad_y", "pad_x"),
)


class Args(ctypes.Structure):
    """Pointers first, then 32-bit numbers, so that no compiler leaves a gap."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in _POINTERS),
        *((name, ctypes.c_int32) for name in _NUMBERS),
    )


def args_of(shape: LayerShape, parts: int, bm: int) -> Args:
    """Gives the numbers of a layer; its pointers are still null.

    Args:
        shape: the layer.
        parts: of tiles, those without steps included.
        bm: pixels of a block, or of all blocks of a cluster.
    """
    pixels = shape.batch_size * shape.out_height * shape.out_width
    return Args(
        part_count=parts,
        pixel_blocks=-(-pixels // bm),
        pixels=pixels,
        in_channels=shape.in_channels,
        out_channels=shape.out_channels,
        height=shape.in_height,
        width=shape.in_width,
        out_height=shape.out_height,
        out_width=shape.out_width,
        stride_y=shape.stride[0],
        stride_x=shape.stride[1],
        pad_y=shape.padding[0],
        pad_x=shape.padding[1],
    )
