"""Pictures as bytes: any bit depth and colour mode that has a defined range, and upright."""

from __future__ import annotations

import contextlib
import importlib
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from autosparse.errors import DataError

_WIDE = ("I;16", "I;16B", "I;16L", "I;16N")
# 32-bit pixels have no range of their own; Pillow fills 16 bits of them from files of these formats.
_WIDE_IN_32 = ("PNG", "PPM")
_GRAY = ("1", "L", "LA")
_COLOUR = ("P", "PA", "RGB", "RGBA", "RGBX", "RGBa", "CMYK", "YCbCr", "HSV", "LAB")
# What Pillow raises on orientation data that are damaged; the pixels may be whole all the same.
_BAD_EXIF = (KeyError, OSError, SyntaxError, TypeError, ValueError, struct.error)


def is_picture(value: object) -> bool:
    """Whether a value is a picture of Pillow, which is imported only where there can be one."""
    return any(kind.__module__ == "PIL.Image" for kind in type(value).__mro__)


def to_bytes(picture: Any) -> npt.NDArray[np.uint8]:
    """Gives the pixels of a picture as people see them, but for transparency.

    Turned upright as its orientation tag (EXIF) says; a damaged tag counts as none. 16 bits are scaled
    to 8; palettes are looked up; CMYK, YCbCr, HSV and LAB become RGB. Transparency is dropped and the
    colour beneath is kept, as the field's usual loaders do; of several frames the first is taken.

    Args:
        picture: a Pillow image.

    Returns:
        ``(height, width)`` for gray and ``(height, width, 3)`` for colour.

    Raises:
        DataError: its pixels have no defined range: 32-bit integers and floats; or an unknown mode.
    """
    wide = picture.mode in _WIDE or (picture.mode == "I" and picture.format in _WIDE_IN_32)
    picture.load()
    operations = importlib.import_module("PIL.ImageOps")
    with contextlib.suppress(*_BAD_EXIF):
        picture = operations.exif_transpose(picture)
    if wide:
        values = np.asarray(picture).astype(np.float64)
        return np.rint(values * (255 / 65535)).clip(0, 255).astype(np.uint8)
    if picture.mode in _GRAY:
        return np.asarray(picture.convert("L"), np.uint8)
    if picture.mode in _COLOUR:
        if "transparency" in picture.info:  # else Pillow warns of losing it, once per file
            picture = picture.convert("RGBA")
        return np.asarray(picture.convert("RGB"), np.uint8)
    raise DataError(
        f"a picture must have 8 or 16 bits per channel, but got mode {picture.mode}, whose range is "
        "not defined; save it with 8 or 16 bits"
    )
