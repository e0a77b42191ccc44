"""From the bytes of a picture file to a square of pixels: the centre, or a random crop.

`pictures.to_bytes` says what becomes of bit depths, colour modes and orientation.
"""

from __future__ import annotations

import importlib
import math
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from autosparse.data import pictures
from autosparse.data.boxes import Floats, area_and_ratio, box
from autosparse.data.raw import Augmentation

SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)

Pixels = npt.NDArray[np.uint8]


def centre(stream: IO[bytes], side: int, margin: float = 1.0) -> Pixels:
    """Decodes a picture, resizes its shorter side to ``side * margin``, and cuts out the centre.

    Args:
        stream: the picture file.
        side: height and width of the result, pixels.
        margin: at least 1, which keeps as much as there is.

    Returns:
        (3, side, side), red green blue.

    Raises:
        Exception: the picture cannot be read; Pillow's readers raise errors of many types.
    """
    picture = _upright(_opened(stream))
    shorter = round(side * margin)
    scale = shorter / min(picture.size)
    width, height = (max(shorter, round(length * scale)) for length in picture.size)
    picture = picture.resize((width, height), _pillow().Resampling.BILINEAR)
    left, top = (width - side) // 2, (height - side) // 2
    return _planes(picture.crop((left, top, left + side, top + side)))


def crop(stream: IO[bytes], side: int, draws: Floats, augmentation: Augmentation) -> Pixels:
    """Decodes a picture, cuts out a random part and resizes it.

    A JPEG file is decoded at a half, a quarter or an eighth of its size where the part has pixels
    enough then, which takes a fraction of the time.

    Args:
        stream: the picture file.
        side: height and width of the result, pixels.
        draws: (4,) random numbers in [0, 1), as `box` takes them.
        augmentation: the ranges of area and ratio.

    Returns:
        (3, side, side), red green blue.

    Raises:
        Exception: as of `centre`.
    """
    area, ratio = augmentation.crop_area or (1.0, 1.0), augmentation.crop_ratio
    found = _opened(stream)
    share, shape = (float(value) for value in area_and_ratio(draws, area, ratio))
    shortest = min(*found.size, math.sqrt(share * math.prod(found.size) * min(shape, 1 / shape)))
    if side < shortest:  # also of a picture that lies on its side
        found.draft(None, tuple(math.ceil(length * side / shortest) for length in found.size))
    picture = _upright(found)
    part = box(draws, area, ratio, picture.size[1], picture.size[0])
    edges = (part.left, part.top, part.left + part.width, part.top + part.height)
    return _planes(
        picture.resize(
            (side, side), _pillow().Resampling.BILINEAR, box=tuple(float(edge) for edge in edges)
        )
    )


def why(problem: Exception) -> str:
    """Says in a few words why a picture could not be read."""
    told = getattr(problem, "strerror", None) or str(problem).strip().partition("\n")[0]
    return told or type(problem).__name__


def _pillow() -> Any:
    return importlib.import_module("PIL.Image")


def _opened(stream: IO[bytes]) -> Any:
    return _pillow().open(stream)


def _upright(picture: Any) -> Any:
    return _pillow().fromarray(pictures.to_bytes(picture)).convert("RGB")


def _planes(picture: Any) -> Pixels:
    return np.asarray(picture, np.uint8).transpose(2, 0, 1)
