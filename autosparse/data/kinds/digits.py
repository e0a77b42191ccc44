"""Handwritten digits, 1,797 grayscale images of 8x8 in 10 classes, embedded in scikit-learn.

One fifth, the same in every run, is the test part; the set has no division of its own.

Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, 1998, the test part.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from autosparse.data.raw import Augmentation, Kind, RawData, RawSplit, ReadRequest, hold_out
from autosparse.errors import MissingDependency

_TEST_FRACTION = 0.2
_TEST_SEED = 1797  # fixed: the test part must not depend on a run's seed
_FILE = ("datasets", "data", "digits.csv.gz")
_LEVELS = 16  # pixels are counts 0..16


def _check(path: Path | None) -> None:
    del path
    if importlib.util.find_spec("sklearn") is None:
        raise MissingDependency(
            "digits needs scikit-learn, which is not installed; run: pip install scikit-learn"
        )


def _pixels_and_labels() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gives ``[1797, 64]`` and ``[1797]``.

    Importing scikit-learn takes a second, in every process that reads the digits, and reading its file
    a hundredth of that. Where a version keeps the file elsewhere, its own function reads it.
    """
    spec = importlib.util.find_spec("sklearn")
    for folder in (spec and spec.submodule_search_locations) or ():
        file = Path(folder, *_FILE)
        if file.is_file():
            table = np.loadtxt(file, delimiter=",")
            return table[:, :-1], table[:, -1]
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    return pixels, labels


def _read(request: ReadRequest) -> RawData:
    del request
    pixels, labels = _pixels_and_labels()
    images = np.rint(pixels * (255 / _LEVELS)).astype(np.uint8).reshape(-1, 1, 8, 8)
    whole = RawSplit(images=images, labels=labels.astype(np.int64))
    train, test = hold_out(whole.labels, _TEST_FRACTION, _TEST_SEED)
    return RawData(
        train=whole.take(train),
        test=whole.take(test),
        classes=10,
        mean=(0.3053,),
        std=(0.3760,),
        augmentation=Augmentation(flip=False),  # a mirrored digit is another sign
    )


KIND: Final = Kind(takes_path=False, check=_check, read=_read)
