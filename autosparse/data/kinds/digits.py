"""Handwritten digits, 1,797 grayscale images of 8x8 in 10 classes, embedded in scikit-learn.

One fifth, the same in every run, is the test part; the set has no division of its own.

Source: Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, 1998, the test part.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Final

import numpy as np

from autosparse.data.raw import Augmentation, Kind, RawData, RawSplit, ReadRequest, hold_out
from autosparse.errors import MissingDependency

_TEST_FRACTION = 0.2
_TEST_SEED = 1797  # fixed: the test part must not depend on a run's seed
_LEVELS = 16  # pixels are counts 0..16


def _check(path: Path | None) -> None:
    del path
    if importlib.util.find_spec("sklearn") is None:
        raise MissingDependency(
            "digits needs scikit-learn, which is not installed; run: pip install scikit-learn"
        )


def _read(request: ReadRequest) -> RawData:
    del request
    from sklearn.datasets import load_digits  # takes a second: only for those who read digits

    pixels, labels = load_digits(return_X_y=True)
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
