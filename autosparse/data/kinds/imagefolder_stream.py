"""Image files in one folder per class, decoded as they are used; nothing but their names is in memory.

`folders` says how they are laid out. Parts, order and unvaried images are those of ``imagefolder``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from autosparse.data import folders
from autosparse.data.raw import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Augmentation,
    Kind,
    RawStream,
    ReadRequest,
    hold_out,
)
from autosparse.data.samples import Samples


def streamed(request: ReadRequest, found: Mapping[str, Samples], classes: int) -> RawStream:
    """Gives listed images as a data set.

    Args:
        request: what was asked for.
        found: images of each part, or all of them under the empty name.
        classes: number of classes.
    """
    parts = dict(found)
    if "" in parts:
        rows, test = hold_out(parts[""].labels, folders.TEST_FRACTION, folders.TEST_SEED)
        parts = {"train": parts[""].take(rows), "test": parts[""].take(test)}
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


def _read(request: ReadRequest) -> RawStream:
    path = request.folder
    folders.check(path)
    layout = folders.parts(path) or {"": path}
    classes = folders.class_names(layout.get("train", path))
    found = {name: folders.samples(place, classes) for name, place in layout.items()}
    return streamed(request, found, len(classes))


KIND: Final = Kind(takes_path=True, check=folders.check, read=_read)
