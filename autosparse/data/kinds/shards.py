"""Images in tar shards, in the layout of WebDataset, read as they are used.

A folder holds ``train-*.tar`` and ``val-*.tar`` and/or ``test-*.tar``; with only one other than train,
that one is the test part and validation is held out of train. A file ``classes.txt`` beside them, one
class a line, says how many classes there are; without it the greatest label of train does.
`shard_index` says what is in a shard.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import numpy as np

from autosparse.data import folders, shard_index
from autosparse.data.faulty import Faulty
from autosparse.data.raw import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Augmentation,
    Kind,
    RawStream,
    ReadRequest,
)
from autosparse.data.samples import Listing, Samples
from autosparse.errors import DataError
from autosparse.progress import Progress
from autosparse.storage.files import opened

_CLASSES = "classes.txt"


def _check(path: Path | None) -> None:
    assert path is not None
    folders.check_pillow("shards")
    for names in _parts(path).values():
        for name in names:
            shard_index.check_shard(path / name)


def _read(request: ReadRequest) -> RawStream:
    folder = request.folder
    _check(folder)
    found = {
        part: shard_index.index(folder, names, request.progress)
        for part, names in _parts(folder).items()
    }
    classes = _classes(folder, found["train"])
    parts = {
        part: _samples(listing, f"the {part} shards of {folder}", classes, request.progress)
        for part, listing in found.items()
    }
    return RawStream(
        train=parts["train"],
        validation=parts.get("validation"),
        test=parts["test"],
        classes=classes,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        resolution=request.resolution or folders.RESOLUTION,
        margin=request.margin,
        augmentation=Augmentation(flip=True),
    )


def _parts(folder: Path) -> dict[str, tuple[str, ...]]:
    """Gives the names of the shards of each part.

    Raises:
        DataError: there are none of train, or none of any other part.
    """
    names = sorted(name for name in os.listdir(folder) if name.endswith(".tar"))
    found = {
        part: tuple(name for name in names if name.partition("-")[0] in spellings)
        for part, spellings in folders.SPELLINGS.items()
    }
    found = {part: shards for part, shards in found.items() if shards}
    if "train" not in found or len(found) == 1:
        raise DataError(
            "shards must be train-*.tar and val-*.tar or test-*.tar, but "
            f"{folder} has {'no train-*.tar' if 'train' not in found else 'train-*.tar alone'}"
        )
    if "test" not in found:  # the part that training has never seen reports, and does not decide
        found["test"] = found.pop("validation")
    return found


def _classes(folder: Path, train: Listing) -> int:
    """Gives the number of classes; a label above the number of images is a fault and does not count."""
    path = folder / _CLASSES
    if path.is_file():
        with opened(path) as stream:
            return sum(1 for line in stream if line.strip())
    believable = train.labels[train.labels < len(train.labels)]
    return int(believable.max(initial=0)) + 1


def _samples(listing: Listing, where: str, classes: int, progress: Progress) -> Samples:
    """Leaves out samples without a label of a class, and gives the others in a mixed order."""
    count = len(listing.labels)
    if not count:
        raise DataError(f"{where} must hold images, but have none; write key.jpg and key.cls")
    everything = Samples(listing=listing, rows=np.arange(count))
    faulty = Faulty(count, where, progress.log)
    good = (listing.labels >= 0) & (listing.labels < classes)
    for row in np.flatnonzero(~good):
        label = int(listing.labels[row])
        told = "missing or no whole number" if label == shard_index.NO_LABEL else str(label)
        faulty.add(everything.name(int(row)), f"its label must lie in 0..{classes - 1}, but is {told}")
    order = np.random.RandomState(folders.TEST_SEED).permutation(count)
    return everything.take(order[good[order]])


KIND: Final = Kind(takes_path=True, check=_check, read=_read)
