"""Centres and random crops of picture files, against Pillow's own resizing of the part meant."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from autosparse.data import decode, pictures
from autosparse.data.boxes import box
from autosparse.data.raw import Augmentation

CROPS = Augmentation(crop_area=(0.08, 1.0))
ORIENTATION = 0x0112


def smooth(width: int, height: int) -> Image.Image:
    """A picture in which every place has its own colour, and none differs much from the next."""
    down, across = np.mgrid[0:height, 0:width]
    red, green = 255 * across / width, 255 * down / height
    return Image.fromarray(np.stack([red, green, (red + green) / 2], 2).astype(np.uint8))


def stored(picture: Image.Image, kind: str, **options: object) -> io.BytesIO:
    stream = io.BytesIO()
    picture.save(stream, kind, **options)
    stream.seek(0)
    return stream


def part(picture: Image.Image, draws: np.ndarray, side: int) -> np.ndarray:
    found = box(draws, (0.08, 1.0), (3 / 4, 4 / 3), picture.height, picture.width)
    top, left, height, width = (float(edge) for edge in found)
    edges = (left, top, left + width, top + height)
    return np.asarray(picture.resize((side, side), Image.Resampling.BILINEAR, box=edges))


@pytest.mark.parametrize("size", [(64, 48), (48, 64), (5, 90), (1, 1)])
@pytest.mark.parametrize("seed", range(4))
def test_a_crop_is_the_part_drawn(size: tuple[int, int], seed: int) -> None:
    picture, draws = smooth(*size), np.random.default_rng(seed).random(4)
    got = decode.crop(stored(picture, "PNG"), 16, draws, CROPS)
    assert (got.shape, got.dtype) == ((3, 16, 16), np.uint8)
    np.testing.assert_array_equal(got.transpose(1, 2, 0), part(picture, draws, 16))


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("seed", range(3))
def test_large_photographs_are_decoded_small_and_cropped_alike(
    orientation: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[tuple[int, int]] = []
    to_bytes = pictures.to_bytes
    monkeypatch.setattr(pictures, "to_bytes", lambda p: decoded.append(p.size) or to_bytes(p))
    upright = smooth(1200, 800)
    turns = {1: 0, 3: 2, 6: 1, 8: 3}[orientation]
    lying = Image.fromarray(np.rot90(np.asarray(upright), turns).copy())
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    draws = np.random.default_rng(seed).random(4)
    got = decode.crop(stored(lying, "JPEG", quality=95, exif=exif), 32, draws, CROPS)
    wanted = part(upright, draws, 32).astype(int)
    assert np.abs(got.transpose(1, 2, 0) - wanted).max() <= 8
    ((width, height),) = decoded
    assert width * height <= 1200 * 800 / 16
    found = box(draws, (0.08, 1.0), (3 / 4, 4 / 3), 800, 1200)
    assert min(found.height, found.width) * max(width, height) / 1200 >= 32  # nothing is enlarged


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_photographs_of_other_modes_are_cropped(mode: str) -> None:
    picture = smooth(600, 400).convert(mode)
    draws = np.array([0.9, 0.5, 0.5, 0.5])
    got = decode.crop(stored(picture, "JPEG", quality=95), 16, draws, CROPS)
    wanted = part(picture.convert("RGB"), draws, 16).astype(int)
    assert np.abs(got.transpose(1, 2, 0) - wanted).max() <= 8


@pytest.mark.parametrize(("width", "height"), [(100, 60), (60, 100), (20, 20), (3, 50)])
def test_the_centre_is_cut_out_of_what_a_margin_leaves(width: int, height: int) -> None:
    picture = smooth(width, height)
    got = decode.centre(stored(picture, "PNG"), 28, 256 / 224)
    scale = 32 / min(width, height)
    size = (max(32, round(width * scale)), max(32, round(height * scale)))
    large = picture.resize(size, Image.Resampling.BILINEAR)
    left, top = (large.width - 28) // 2, (large.height - 28) // 2
    wanted = np.asarray(large)[top : top + 28, left : left + 28]
    np.testing.assert_array_equal(got.transpose(1, 2, 0), wanted)


@pytest.mark.parametrize(
    ("problem", "told"),
    [
        (FileNotFoundError(2, "No such file"), "No such file"),
        (ValueError("a\nb"), "a"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_a_reason_is_one_line(problem: Exception, told: str) -> None:
    assert decode.why(problem) == told
