"""What a kernel's method makes of a layer: operations, and weights to read."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from autosparse.records import LayerShape

DIRECT = frozenset({"px", "oc", "mx"})
"""Methods that multiply every weight with every pixel of its window."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Filtering:
    """Winograd's minimal filtering, F(outputs x outputs, taps x taps).

    Attributes:
        inputs: per side of a tile.
        outputs: per side of a tile.
        kernel: extent of the kernels that it runs.
        stride: of the convolutions that it runs; each phase of a strided one is a plane of its own.
        forward: vector instructions that transform one row of inputs, at least.
        inverse: the same for one row of products.
        points: at which polynomials are evaluated, but infinity, which comes last.

    Source: Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016, section 4;
    instructions counted in kernels/conv/wg.h, without multiplications by one.
    """

    inputs: int
    outputs: int
    kernel: int
    stride: int
    forward: int
    inverse: int
    points: tuple[float, ...]

    @property
    def taps(self) -> int:
        """Extent of the kernels that it filters; those of a strided one are its phases."""
        return self.inputs - self.outputs + 1

    @property
    def growth(self) -> float:
        """How much larger the summed products are than the sum of a direct convolution, RMS.

        ``y = A^T ((G g) * (B^T d))``: for independent d and g a position p is ``|G_p| |B_p|`` large,
        and an output's error is that of all positions weighted by A; along both axes.
        """
        points = np.array(self.points, float)
        to_output = np.zeros((self.outputs, self.inputs))
        sizes = np.empty(self.inputs)
        for index, point in enumerate(points):
            others = np.delete(points, index)
            powers = point ** np.arange(max(self.outputs, self.taps))
            of_kernel = powers[: self.taps] / np.prod(point - others)
            sizes[index] = np.linalg.norm(of_kernel) * np.linalg.norm(np.poly(others))
            to_output[:, index] = powers[: self.outputs]
        sizes[-1] = np.linalg.norm(np.poly(points))  # the point at infinity
        to_output[-1, -1] = 1
        along_one_axis = np.sqrt(to_output**2 @ sizes**2 / self.taps).max()
        return float(along_one_axis**2)

    def runs(self, shape: LayerShape) -> bool:
        """Whether a layer's windows are such as it filters."""
        return (
            shape.groups == 1
            and shape.kernel == (self.kernel, self.kernel)
            and shape.stride == (self.stride, self.stride)
            and shape.dilation == (1, 1)
        )


FILTERINGS: Mapping[str, Filtering] = {
    "wg": Filtering(inputs=4, outputs=2, kernel=3, stride=1, forward=4, inverse=4, points=(0, 1, -1)),
    "wf": Filtering(
        inputs=6,
        outputs=4,
        kernel=3,
        stride=1,
        forward=12,
        inverse=12,
        points=(0, 0.75, -0.75, 1.5, -1.5),
    ),
    "wp": Filtering(
        inputs=7, outputs=4, kernel=7, stride=2, forward=27, inverse=14, points=(0, 1, -1, 2, -2, 0.5)
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodWork:
    """What has to be done, whoever does it.

    Attributes:
        flops: operations, two per multiply-add; instructions that do not fuse count as two too.
        weights: elements that are read once.
        units: what vectors along pixels are filled with, per image: pixels, or tiles of several.
    """

    flops: int
    weights: int
    units: int


def work_of(shape: LayerShape, kept: int, method: str) -> MethodWork:
    """Gives the least that a method has to do.

    Args:
        shape: the layer.
        kept: inputs kept per output group; -1 for all.
        method: the kernel's.
    """
    if method in FILTERINGS:
        return _filtered(shape, shape.in_channels if kept < 0 else kept, FILTERINGS[method])
    pixels = shape.out_height * shape.out_width
    flops = shape.kept_flops(kept)
    return MethodWork(flops=flops, weights=flops // (2 * shape.batch_size * pixels), units=pixels)


def works_of(shape: LayerShape, kept: int, dtype: str) -> list[MethodWork]:
    """Gives the work of a layer by every method that can run it in a type."""
    able = [name for name, how in FILTERINGS.items() if dtype == "f32" and how.runs(shape)]
    return [work_of(shape, kept, method) for method in ("px", *able)]


def summing(shape: LayerShape, kept: int, method: str) -> tuple[float, float]:
    """Gives a method's additions per output, and how much larger than the sum its terms are, RMS."""
    if method not in FILTERINGS:
        return float(kept * shape.taps), 1.0
    how = FILTERINGS[method]
    return float(kept * how.stride**2 + how.inputs), how.growth  # a strided kernel: phase by phase


def _filtered(shape: LayerShape, kept: int, how: Filtering) -> MethodWork:
    positions, planes = how.inputs**2, how.stride**2
    tiles = math.ceil(shape.out_height / how.outputs) * math.ceil(shape.out_width / how.outputs)
    weights = positions * planes * kept * shape.out_channels
    # All groups together use as many inputs as one, or more. Neighbouring tiles share rows of inputs
    # that were transformed along themselves.
    sides = how.inputs + how.outputs
    transforms = kept * planes * sides * how.forward + shape.out_channels * sides * how.inverse
    return MethodWork(
        flops=2 * shape.batch_size * tiles * (weights + transforms), weights=weights, units=tiles
    )
