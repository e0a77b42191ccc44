"""Every bit depth, colour mode and orientation of picture files, against values worked out by hand."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from autosparse.data import pictures, resolve
from autosparse.errors import DataError

RAMP = np.array([[0, 257, 32896], [65535, 128, 129]], np.uint16)
RAMP_IN_8_BITS = [[0, 1, 128], [255, 0, 1]]
ORIENTATION = 0x0112


def reopened(picture: Image.Image, kind: str, **options: object) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    buffer.seek(0)
    return Image.open(buffer)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_to_eight(kind: str) -> None:
    picture = reopened(Image.fromarray(RAMP), kind)
    assert pictures.to_bytes(picture).tolist() == RAMP_IN_8_BITS


def test_sixteen_bits_of_the_other_byte_order_are_scaled_too() -> None:
    picture = Image.frombytes("I;16B", (3, 2), RAMP.astype(">u2").tobytes())
    assert pictures.to_bytes(picture).tolist() == RAMP_IN_8_BITS


@pytest.mark.parametrize("values", [np.zeros((2, 2), np.int32), np.zeros((2, 2), np.float32)])
def test_pixels_without_a_range_are_refused(values: np.ndarray) -> None:
    with pytest.raises(DataError, match="8 or 16 bits"):
        pictures.to_bytes(reopened(Image.fromarray(values), "TIFF"))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("deep", [False, True])
def test_pictures_are_turned_upright(orientation: int, deep: bool) -> None:
    upright = (np.arange(12).reshape(3, 4) * 5000).astype(np.uint16)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.T,
        6: np.rot90(upright, 1),  # the camera was turned; a viewer turns it back by a quarter
        7: upright[::-1, ::-1].T,
        8: np.rot90(upright, -1),
    }[orientation]
    values = np.ascontiguousarray(stored if deep else (stored // 257).astype(np.uint8))
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    found = pictures.to_bytes(reopened(Image.fromarray(values), "PNG", exif=exif))
    wanted = np.rint(upright / 257) if deep else upright // 257
    assert found.tolist() == wanted.tolist()


@pytest.mark.parametrize("exif", [b"", b"junk", b"Exif\0\0II*\0\xff\xff\xff\xff"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_damaged_orientation_counts_as_none(exif: bytes) -> None:
    picture = reopened(Image.new("L", (5, 3)), "JPEG", exif=exif)
    assert pictures.to_bytes(picture).shape == (3, 5)


def test_palettes_are_looked_up_and_their_transparency_is_dropped() -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([9, 8, 7, 200, 100, 50])
    picture.putpixel((1, 0), 1)
    again = reopened(picture, "PNG", transparency=b"\x00\xff")
    assert pictures.to_bytes(again).tolist() == [[[9, 8, 7], [200, 100, 50]]]


@pytest.mark.parametrize(
    ("mode", "colour", "wanted"),
    [
        ("1", 1, 255),
        ("L", 77, 77),
        ("LA", (77, 0), 77),
        ("RGB", (1, 2, 3), [1, 2, 3]),
        ("RGBA", (1, 2, 3, 0), [1, 2, 3]),
        ("CMYK", (0, 0, 0, 0), [255, 255, 255]),
        ("CMYK", (255, 0, 0, 0), [0, 255, 255]),
        ("YCbCr", (128, 128, 128), [128, 128, 128]),
        ("HSV", (0, 255, 255), [255, 0, 0]),
    ],
)
def test_colour_modes_become_gray_or_rgb(mode: str, colour: object, wanted: object) -> None:
    assert pictures.to_bytes(Image.new(mode, (1, 1), colour)).tolist() == [[wanted]]  # type: ignore[arg-type]


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I;16"])
def test_every_mode_that_files_have_is_read(mode: str) -> None:
    found = pictures.to_bytes(Image.new(mode, (4, 3)))
    assert found.dtype == np.uint8
    assert found.shape[:2] == (3, 4)


def test_a_folder_of_sixteen_bit_pictures_is_not_white(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for index in range(4):
            values = random.integers(0, 65536, (8, 8)).astype(np.uint16)
            Image.fromarray(values).save(tmp_path / name / f"{index}.png")
    data = resolve(f"imagefolder:{tmp_path}", resolution=8)
    found = {image[0].numpy().tobytes() for image in data.train.images}
    read = [np.asarray(Image.open(file)) for file in sorted(tmp_path.rglob("*.png"))]
    assert found <= {np.rint(values / 257).astype(np.uint8).tobytes() for values in read}


def test_a_picture_without_a_range_is_named(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for index in range(4):
            Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / name / f"{index}.tiff")
    with pytest.raises(DataError, match=r"\.tiff: a picture must have 8 or 16 bits .* mode F"):
        resolve(f"imagefolder:{tmp_path}", resolution=8)
