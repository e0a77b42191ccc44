"""What a reader of files hands over: plain arrays and what is known of them. No torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autosparse.errors import DataError
from autosparse.progress import Progress
from autosparse.records import Record

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation(Record):
    """How training images are varied, each one anew in each epoch.

    Attributes:
        shift: how far an image may move in either direction, as a fraction of its side; what moves in
            is black. One eighth is the usual four pixels of 32.
        flip: whether half of the images are mirrored left to right.
    """

    shift: float = 0.125
    flip: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RawSplit:
    """Images and labels of one part.

    Attributes:
        images: (n, channels, height, width), uint8 in 0..255, or float32 which is used as it is.
        labels: (n,) int64, in 0..classes-1.
    """

    images: npt.NDArray[Any]
    labels: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: npt.NDArray[np.int64]) -> RawSplit:
        """Gives some examples, in the order of `rows`."""
        return RawSplit(images=self.images[rows], labels=self.labels[rows])


@dataclass(frozen=True, slots=True, kw_only=True)
class RawData:
    """A data set as it was read.

    Attributes:
        train: what training may see.
        test: what only reports.
        validation: what decides; None has it held out of `train`.
        classes: number of classes.
        mean: per channel of the images divided by 255.
        std: likewise.
        augmentation: variation of training images.
    """

    train: RawSplit
    test: RawSplit
    validation: RawSplit | None = None
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRequest:
    """What a reader is told.

    Attributes:
        path: the folder, None for embedded data.
        resolution: side that images will have, None for the set's own; of use only to readers whose
            images come in many sizes, all others hand over what they have.
        progress: told of long work.
    """

    path: Path | None
    resolution: int | None
    progress: Progress

    @property
    def folder(self) -> Path:
        """The path, for a kind that has one."""
        if self.path is None:
            raise DataError("this kind of data set must name its folder, but got none; write KIND:PATH")
        return self.path


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """One kind of data set.

    Attributes:
        takes_path: whether a folder must be named.
        check: refuses files that cannot be read, from names, sizes and first bytes alone.
        read: reads them all.
    """

    takes_path: bool
    check: Callable[[Path | None], None]
    read: Callable[[ReadRequest], RawData]


def hold_out(
    labels: npt.NDArray[np.int64], fraction: float, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Divides examples in two parts that have the classes in the same proportion.

    Args:
        labels: (n,) classes.
        fraction: share of each class that is held out, at least one example.
        seed: decides which.

    Returns:
        Rows that stay and rows held out, each in a mixed order, so that any first few are a fair
        sample.

    Raises:
        DataError: a class has fewer than two examples.
    """
    # The legacy generator, because its stream is promised never to change between numpy versions.
    random = np.random.RandomState(seed)
    stay, held = [], []
    for label in np.unique(labels):
        rows = random.permutation(np.flatnonzero(labels == label))
        if len(rows) < 2:
            raise DataError(
                f"every class must have at least 2 training examples, but class {label} has {len(rows)}"
            )
        count = min(max(1, round(fraction * len(rows))), len(rows) - 1)
        held.append(rows[:count])
        stay.append(rows[count:])
    return random.permutation(np.concatenate(stay)), random.permutation(np.concatenate(held))


def check_labels(labels: npt.NDArray[np.int64], classes: int, where: str) -> None:
    """Refuses labels outside 0..classes-1.

    Raises:
        DataError: there is one.
    """
    if len(labels) and not (0 <= labels.min() and labels.max() < classes):
        raise DataError(
            f"labels of {where} must lie in 0..{classes - 1}, but got "
            f"{labels.min()}..{labels.max()}; the file is damaged or of another data set"
        )
