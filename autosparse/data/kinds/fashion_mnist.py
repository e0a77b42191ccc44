"""Fashion-MNIST: 60,000 + 10,000 grayscale images of 28x28 in 10 classes, as four idx files.

Any set in the same four files, such as MNIST itself, can be read.

Source: Xiao et al., Fashion-MNIST, 2017; the idx format as on the page of the MNIST database.
"""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from autosparse.data.raw import Augmentation, Kind, RawData, RawSplit, ReadRequest, check_labels
from autosparse.errors import DataError
from autosparse.storage.files import opened

_CLASSES = 10
_FOLDERS = ("", "raw", "FashionMNIST/raw", "FashionMNIST")
_PARTS = ("train", "t10k")
_IMAGES = ("images-idx3-ubyte", 3)
_LABELS = ("labels-idx1-ubyte", 1)
_GZIP_DAMAGE = (EOFError, zlib.error, gzip.BadGzipFile)


def _check(path: Path | None) -> None:
    assert path is not None
    for part in _PARTS:
        images, labels = _headers(path, part)
        if images[0] != labels[0]:
            raise DataError(
                f"{path}: images and labels of {part} must be equally many, but got {images[0]} and "
                f"{labels[0]}; fetch both files again"
            )


def _read(request: ReadRequest) -> RawData:
    _check(request.folder)
    train, test = (_part(request.folder, part) for part in _PARTS)
    return RawData(
        train=train,
        test=test,
        classes=_CLASSES,
        mean=(0.2860,),
        std=(0.3530,),
        augmentation=Augmentation(flip=True),
    )


def _part(folder: Path, part: str) -> RawSplit:
    images = _array(_find(folder, f"{part}-{_IMAGES[0]}"), _IMAGES[1])
    where = _find(folder, f"{part}-{_LABELS[0]}")
    labels = _array(where, _LABELS[1]).astype(np.int64)
    check_labels(labels, _CLASSES, str(where))
    return RawSplit(images=images[:, None], labels=labels)


def _headers(folder: Path, part: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    shapes = []
    for stem, dimensions in (_IMAGES, _LABELS):
        path = _find(folder, f"{part}-{stem}")
        shape = _shape(path, dimensions)
        expected = 4 + 4 * dimensions + math.prod(shape)
        found = _content_bytes(path)
        if found != expected % 2**32:
            raise DataError(
                f"{path} must hold {expected} bytes by its own header, but holds {found}; "
                "it is truncated or damaged; fetch it again"
            )
        shapes.append(shape)
    return shapes[0], shapes[1]


def _find(folder: Path, name: str) -> Path:
    for below in _FOLDERS:
        for suffix in (".gz", ""):
            path = folder / below / f"{name}{suffix}"
            if os.path.isfile(path):
                return path
    raise DataError(f"fashion-mnist must hold {name}.gz or {name}, but {folder} has neither")


def _shape(path: Path, dimensions: int) -> tuple[int, ...]:
    length = 4 + 4 * dimensions
    header = _content(path, length)
    if len(header) < length or header[:4] != bytes([0, 0, 8, dimensions]):
        raise DataError(
            f"{path} must be an idx file of bytes in {dimensions} dimensions, but it begins with "
            f"{header[:4].hex() or 'nothing'}; fetch it again"
        )
    return struct.unpack(f">{dimensions}I", header[4:])


def _content(path: Path, length: int = -1) -> bytes:
    try:
        with gzip.open(path) if path.suffix == ".gz" else opened(path) as stream:
            return stream.read(length)
    except _GZIP_DAMAGE as problem:
        raise DataError(
            f"{path} must be a complete gzip file, but it is damaged or truncated ({problem}); "
            "fetch it again"
        ) from None
    except OSError as problem:
        raise DataError(f"{path} must be readable, but got: {problem.strerror}") from None


def _content_bytes(path: Path) -> int:
    """Gives the size of what is inside, modulo 2**32; gzip notes it in its last four bytes."""
    if path.suffix != ".gz":
        return path.stat().st_size % 2**32
    with opened(path) as stream:
        stream.seek(-4, 2)
        return int.from_bytes(stream.read(4), "little")


def _array(path: Path, dimensions: int) -> npt.NDArray[Any]:
    shape = _shape(path, dimensions)
    content = np.frombuffer(_content(path), np.uint8)[4 + 4 * dimensions :]
    if content.size != math.prod(shape):
        raise DataError(
            f"{path} must hold {math.prod(shape)} values by its own header, but holds {content.size}; "
            "fetch it again"
        )
    return content.reshape(shape)


KIND: Final = Kind(takes_path=True, check=_check, read=_read)
