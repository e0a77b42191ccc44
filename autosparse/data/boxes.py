"""Rectangles of random area, ratio and place in an image."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class Box(NamedTuple):
    """Rectangles, in pixels from the upper left corner; each of any one shape."""

    top: Floats
    left: Floats
    height: Floats
    width: Floats


def area_and_ratio(
    draws: Floats, area: tuple[float, float], ratio: tuple[float, float]
) -> tuple[Floats, Floats]:
    """Gives the share of the image and the width per height, even in its logarithm, of each draw."""
    low, high = math.log(ratio[0]), math.log(ratio[1])
    return area[0] + (area[1] - area[0]) * draws[0], np.exp(low + (high - low) * draws[1])


def box(
    draws: Floats, area: tuple[float, float], ratio: tuple[float, float], height: int, width: int
) -> Box:
    """Places rectangles in an image; what would be wider or higher than it is cut.

    Args:
        draws: (4, ...) random numbers in [0, 1): for area, ratio, top and left.
        area: least and greatest share of the image.
        ratio: least and greatest width per height.
        height: of the image, pixels.
        width: likewise.
    """
    share, shape = area_and_ratio(draws, area, ratio)
    wide = np.minimum(np.sqrt(share * height * width * shape), width)
    high = np.minimum(np.sqrt(share * height * width / shape), height)
    return Box(draws[2] * (height - high), draws[3] * (width - wide), high, wide)
