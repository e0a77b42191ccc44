"""What a reader of files hands over: plain arrays and what is known of them. No torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autosparse.data.samples import Samples
from autosparse.errors import DataError
from autosparse.progress import Progress
from autosparse.records import Record
from autosparse.storage.serial import added

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Normalised pixels reach about 3, bytes 255; 16 bits as floats, 65,535, are a scale nobody trains at.
_GREATEST_PIXEL = 1e4
_CHUNK = 1024  # images looked at together


@dataclass(frozen=True, slots=True, kw_only=True)
class Augmentation(Record):
    """How training images are varied, each one anew in each epoch.

    Where there is `crop_area`, a crop takes the place of the shift. Erased is what is normalised
    already, so that it becomes the mean colour.

    Source: Szegedy et al., Going deeper with convolutions, 2015, for crops of random area and ratio;
        Zhong et al., Random erasing data augmentation, 2020.
    Differs: a crop wider or higher than its image is cut to it instead of being drawn anew; brightness,
        contrast and saturation are changed in this order, not in a random one.

    Attributes:
        shift: how far an image may move in either direction, as a fraction of its side; what moves in
            is black. One eighth is the usual four pixels of 32.
        flip: whether half of the images are mirrored left to right.
        crop_area: least and greatest share of an image that is cut out and resized, None for no crop;
            usual for ImageNet is 0.08 to 1.
        crop_ratio: least and greatest width of a crop per height.
        brightness: pixels of 0..255 are multiplied by 1 ± at most this; so for the next two.
        contrast: of the distance from the image's mean gray.
        saturation: of the distance from each pixel's own gray.
        erase: share of the images of which a rectangle, 0.02 to 1/3 of the area, is erased.
    """

    shift: float = 0.125
    flip: bool = False
    crop_area: tuple[float, float] | None = added(None)
    crop_ratio: tuple[float, float] = added((3 / 4, 4 / 3))
    brightness: float = added(0.0)
    contrast: float = added(0.0)
    saturation: float = added(0.0)
    erase: float = added(0.0)

    def __post_init__(self) -> None:
        least, most = self.crop_area or (1.0, 1.0)
        if not 0 < least <= most <= 1:
            raise DataError(
                f"crop_area must be two rising shares in (0, 1], but got {self.crop_area}; "
                "take 0.08 and 1"
            )
        if not 0 < self.crop_ratio[0] <= self.crop_ratio[1] < math.inf:
            raise DataError(
                f"crop_ratio must be two rising ratios above 0, but got {self.crop_ratio}; "
                "take 3/4 and 4/3"
            )
        for name in ("brightness", "contrast", "saturation", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise DataError(
                    f"{name} must lie in [0, 1], but got {getattr(self, name)}; "
                    "0 leaves images as they are"
                )

    @property
    def colours(self) -> tuple[float, float, float]:
        """How far brightness, contrast and saturation may change."""
        return self.brightness, self.contrast, self.saturation


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
class RawStream:
    """A data set of which is known where its images lie, and which is read as it is used.

    Attributes:
        train: what training may see.
        test: what only reports.
        validation: what decides; None has it held out of `train`.
        classes: number of classes.
        mean: per channel, red green blue, of images in 0..1.
        std: likewise.
        resolution: side that images are decoded to.
        margin: shorter side that an image is resized to before its centre is cut out, per `resolution`.
        augmentation: variation of training images.
    """

    train: Samples
    test: Samples
    validation: Samples | None = None
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resolution: int
    margin: float = 1.0
    augmentation: Augmentation = field(default_factory=Augmentation)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadRequest:
    """What a reader is told.

    Attributes:
        path: the folder, None for embedded data.
        resolution: side that images will have, None for the set's own; of use only to readers whose
            images come in many sizes, all others hand over what they have.
        progress: told of long work.
        margin: shorter side that images of many sizes are resized to before their centre is cut out,
            per resolution; 256/224 is usual for ImageNet.
    """

    path: Path | None
    resolution: int | None
    progress: Progress
    margin: float = 1.0

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
        read: reads them all, or finds out where they are.
    """

    takes_path: bool
    check: Callable[[Path | None], None]
    read: Callable[[ReadRequest], RawData | RawStream]


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
        DataError: there is one; names the first row that has one.
    """
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if wrong.size:
        raise DataError(
            f"labels of {where} must lie in 0..{classes - 1}, but got "
            f"{labels.min()}..{labels.max()}, first in row {wrong[0]}; the data are damaged or of "
            "another data set"
        )


def check_parts(
    parts: Mapping[str, tuple[npt.NDArray[Any], npt.NDArray[np.int64]]], source: str
) -> None:
    """Refuses what nothing can be learnt from or measured on, before any work is done with it.

    Args:
        parts: name of a part to its images, as `RawSplit` has them, and labels.
        source: whose they are, for messages.

    Raises:
        DataError: an empty part; a pixel that is not finite or of another scale than images have; a
            part whose pixels are all equal; a training part of one class. Names part and row.
    """
    for name, (images, labels) in parts.items():
        where = f"the {name} images of {source}"
        if not len(images):
            raise DataError(f"{where} must be at least one, but there is none")
        if images.dtype.kind == "f":
            _check_floats(images, where)
        first = images.flat[0]
        if all((part == first).all() for part in _chunks(images)):
            raise DataError(
                f"{where} must differ, but every pixel of all {len(images)}, rows 0 to "
                f"{len(images) - 1}, is {first:g}; were they scaled or clipped when they were saved?"
            )
        if name == "train" and (labels == labels[0]).all():
            raise DataError(
                f"{where} must be of at least two classes, but all {len(labels)} are of class "
                f"{labels[0]}"
            )


def _check_floats(images: npt.NDArray[np.floating[Any]], where: str) -> None:
    start = 0
    for part in _chunks(images):
        # Also false for what is not a number.
        good = (np.abs(part) <= _GREATEST_PIXEL).reshape(len(part), -1).all(axis=1)
        if not good.all():
            row = int(np.argmin(good))
            pixels = part[row].reshape(-1)
            value = pixels[~(np.abs(pixels) <= _GREATEST_PIXEL)][0]
            raise DataError(
                f"pixels of {where} must be finite and within ±{_GREATEST_PIXEL:g}, but row "
                f"{start + row} has {value:g}; repair or remove it, or scale the images to 0..1"
            )
        start += len(part)


def _chunks(images: npt.NDArray[Any]) -> Iterator[npt.NDArray[Any]]:
    """Hands out a few images at a time, so that what is computed of them stays small."""
    for start in range(0, len(images), _CHUNK):
        yield images[start : start + _CHUNK]
