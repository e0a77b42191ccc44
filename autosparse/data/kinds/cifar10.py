"""CIFAR-10: 50,000 + 10,000 colour images of 32x32 in 10 classes, as the python pickles.

Normalised with ImageNet's mean and standard deviation, because the public CIFAR-10 weights of the
option-A residual networks were trained so.

Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import numpy as np

from autosparse.data import restricted_pickle
from autosparse.data.raw import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Augmentation,
    Kind,
    RawData,
    RawSplit,
    ReadRequest,
    check_labels,
)
from autosparse.errors import DataError
from autosparse.storage.files import opened

_CLASSES = 10
_SIDE = 32
_VALUES = 3 * _SIDE * _SIDE
_FOLDERS = ("", "cifar-10-batches-py")
_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_TEST = ("test_batch",)
_CASES = 10_000  # images per file, unless batches.meta says otherwise


def _check(path: Path | None) -> None:
    assert path is not None
    folder = _find(path)
    least = _cases(folder) * _VALUES
    for name in (*_TRAIN, *_TEST):
        _check_file(folder / name, least)


def _read(request: ReadRequest) -> RawData:
    _check(request.folder)
    folder = _find(request.folder)
    cases = _cases(folder)
    return RawData(
        train=_part(folder, _TRAIN, cases),
        test=_part(folder, _TEST, cases),
        classes=_CLASSES,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        augmentation=Augmentation(flip=True),
    )


def _find(path: Path) -> Path:
    for below in _FOLDERS:
        if any(os.path.isfile(path / below / name) for name in (*_TRAIN, *_TEST)):
            return path / below
    raise DataError(
        f"cifar10 must name the folder with {_TRAIN[0]} to {_TRAIN[-1]} and {_TEST[0]} (the python "
        f"version, unpacked), but {path} has none of them"
    )


def _cases(folder: Path) -> int:
    meta = folder / "batches.meta"
    if not os.path.isfile(meta):
        return _CASES
    content = restricted_pickle.load(meta)
    cases = content.get(b"num_cases_per_batch") if isinstance(content, dict) else None
    if not isinstance(cases, int) or cases < 1:
        raise DataError(f"{meta} must say num_cases_per_batch, but it does not; fetch it again")
    return cases


def _check_file(path: Path, least_bytes: int) -> None:
    """Looks at size, first byte (protocol) and last byte (stop) of a pickle."""
    try:
        with opened(path) as stream:
            first = stream.read(1)
            size = stream.seek(0, 2)
            stream.seek(max(size - 1, 0))
            last = stream.read(1)
    except OSError as problem:
        raise DataError(f"cifar10 must hold {path.name}, but got {path}: {problem.strerror}") from None
    if first != b"\x80" or last != b"." or size <= least_bytes:
        raise DataError(
            f"{path} must be a complete pickle of more than {least_bytes} bytes, but it has {size}, "
            f"begins with {first.hex() or 'nothing'} and ends with {last.hex() or 'nothing'}; "
            "it is truncated or of another kind; fetch it again"
        )


def _part(folder: Path, names: tuple[str, ...], cases: int) -> RawSplit:
    batches = [_batch(folder / name, cases) for name in names]
    return RawSplit(
        images=np.concatenate([batch.images for batch in batches]),
        labels=np.concatenate([batch.labels for batch in batches]),
    )


def _batch(path: Path, cases: int) -> RawSplit:
    content = restricted_pickle.load(path)
    data = content.get(b"data", content.get("data")) if isinstance(content, dict) else None
    names = content.get(b"labels", content.get("labels")) if isinstance(content, dict) else None
    if not isinstance(data, np.ndarray) or not isinstance(names, list):
        raise DataError(f"{path} must hold a dict of data and labels, but it does not; fetch it again")
    if data.dtype != np.uint8 or data.shape != (cases, _VALUES) or len(names) != cases:
        raise DataError(
            f"{path} must hold {cases} labels and {cases}x{_VALUES} bytes, but got {len(names)} and "
            f"{'x'.join(map(str, data.shape))} of {data.dtype}; fetch it again"
        )
    if not all(isinstance(name, int) for name in names):
        raise DataError(f"labels of {path} must be whole numbers, but are not; fetch it again")
    labels = np.array(names, np.int64)
    check_labels(labels, _CLASSES, str(path))
    return RawSplit(images=data.reshape(-1, 3, _SIDE, _SIDE), labels=labels)


KIND: Final = Kind(takes_path=True, check=_check, read=_read)
