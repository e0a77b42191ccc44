"""Where rows of a product lie in memory: pixels of the input they start from, and of the output."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from autosparse.errors import NoKernel
from autosparse.records import LayerShape

_INT32 = 1 << 31
_TAP = 1 << 15  # rows and columns of a tap share a 32-bit number


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where the output pixels of one phase lie, if not one after the other.

    Attributes:
        image: rows and columns of an image.
        step: rows and columns from one to the next.
        shift: row and column of the first.
    """

    image: tuple[int, int]
    step: tuple[int, int]
    shift: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Geometry:
    """The rows of a product: output pixels, image by image, row by row.

    Row and column of the input that an output pixel ``(y, x)`` starts from are ``y * stride - origin``.

    Attributes:
        images: of the batch.
        input: rows, columns and channels of an image of the input.
        output: rows and columns of an image that are counted.
        channels: of an output pixel.
        origin: how far above and left of the image the first pixel starts; may be negative.
        stride: input rows and columns per row and column.
        is_decoded: whether rows are decoded to pixels; else row r reads pixel r.
        is_padded: whether taps may lead outside of the image.
        placement: where output pixels lie; None one after the other.

    Raises:
        NoKernel: pixels or distances that 32 bits do not count.
    """

    images: int
    input: tuple[int, int, int]
    output: tuple[int, int]
    channels: int
    origin: tuple[int, int] = (0, 0)
    stride: tuple[int, int] = (1, 1)
    is_decoded: bool = True
    is_padded: bool = False
    placement: Placement | None = None

    def __post_init__(self) -> None:
        height, width, channels = self.input
        largest = max(
            self.images * height * width, height * width * channels, 512 * self.channels, self.rows
        )
        if self.placement is not None:  # how far apart pixels of a block may lie
            out = self.placement.image[0] * self.placement.image[1]
            spanned = min(self.images, 2 + 256 // (self.output[0] * self.output[1]))
            largest = max(largest, spanned * out * self.channels)
        if largest >= _INT32:
            raise NoKernel(f"32 bits must count pixels and distances, but got {largest}", {})

    @property
    def rows(self) -> int:
        """How many there are."""
        return self.images * self.output[0] * self.output[1]

    def offset(self, down: int, across: int) -> int:
        """Gives the elements from a pixel of the input to another of the same image."""
        return (down * self.input[1] + across) * self.input[2]


def of_layer(shape: LayerShape) -> Geometry:
    """Gives the rows of a layer: a linear one is a convolution of one tap."""
    out = shape.out_height, shape.out_width
    if (shape.kernel, shape.stride, shape.padding) == ((1, 1), (1, 1), (0, 0)):
        rows = shape.batch_size * out[0] * out[1]
        return Geometry(
            images=1, input=(rows, 1, shape.in_channels), output=(rows, 1),
            channels=shape.out_channels, is_decoded=False,
        )  # fmt: skip
    return Geometry(
        images=shape.batch_size,
        input=(shape.in_height, shape.in_width, shape.in_channels),
        output=out,
        channels=shape.out_channels,
        origin=shape.padding,
        stride=shape.stride,
        is_padded=shape.padding != (0, 0),
    )


def taps_of(shape: LayerShape) -> tuple[tuple[int, int], ...]:
    """Gives row and column of each kernel position, from where an output pixel starts.

    Raises:
        NoKernel: the kernel reaches further than 16 bits count.
    """
    (height, width), (down, across) = shape.kernel, shape.dilation
    taps = tuple((r * down, s * across) for r in range(height) for s in range(width))
    if max(taps[-1]) >= _TAP:
        raise NoKernel(f"kernels must reach less than {_TAP} pixels, but got {taps[-1]}", {})
    return taps


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """Input pixels of a convolution that the same taps lead to, as outputs of a product.

    Attributes:
        geometry: of the gradient of its inputs there, whose input is that of its outputs.
        taps: kernel position to row and column of the output pixel, from where the product starts.
    """

    geometry: Geometry
    taps: dict[int, tuple[int, int]]


def phases(shape: LayerShape, out_channels: int) -> tuple[Phase, ...]:
    """Takes a convolution's backward product for its input apart into products of stride 1.

    Input row ``y`` was read through the tap at ``t`` for output row ``(y + padding - t) / stride``,
    where that is a whole number: for the input rows of one remainder by the stride, always or never.

    Args:
        shape: the layer.
        out_channels: of the gradient of its outputs: fewer than the layer's, if pruned ones are left
            out, or more, if it was filled up.
    """
    forward = of_layer(shape)
    if not forward.is_decoded:
        rows = forward.rows
        whole = Geometry(
            images=1, input=(rows, 1, out_channels), output=(rows, 1),
            channels=shape.in_channels, is_decoded=False,
        )  # fmt: skip
        return (Phase(geometry=whole, taps={0: (0, 0)}),)
    (sy, sx), taps = shape.stride, taps_of(shape)
    shifts = itertools.product(range(min(sy, shape.in_height)), range(min(sx, shape.in_width)))
    return tuple(_phase(shape, out_channels, taps, shift) for shift in shifts)


def _phase(
    shape: LayerShape,
    out_channels: int,
    taps: tuple[tuple[int, int], ...],
    shift: tuple[int, int],
) -> Phase:
    (sy, sx), (py, px) = shape.stride, shape.padding
    found = {
        tap: ((shift[0] + py - down) // sy, (shift[1] + px - across) // sx)
        for tap, (down, across) in enumerate(taps)
        if (shift[0] + py - down) % sy == 0 and (shift[1] + px - across) % sx == 0
    }
    first = [min((place[axis] for place in found.values()), default=0) for axis in (0, 1)]
    geometry = Geometry(
        images=shape.batch_size,
        input=(shape.out_height, shape.out_width, out_channels),
        output=(-(-(shape.in_height - shift[0]) // sy), -(-(shape.in_width - shift[1]) // sx)),
        channels=shape.in_channels,
        origin=(-first[0], -first[1]),
        is_padded=True,
        placement=Placement(image=(shape.in_height, shape.in_width), step=shape.stride, shift=shift),
    )
    return Phase(
        geometry=geometry,
        taps={tap: (y - first[0], x - first[1]) for tap, (y, x) in found.items()},
    )
