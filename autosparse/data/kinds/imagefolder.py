"""Image files in one folder per class, in memory where they fit.

`folders` says how they are laid out. Images are turned upright, scaled so that their shorter side
fits, cropped at the centre, and kept as bytes; `pictures.to_bytes` says what becomes of bit depths and
colour modes. What would take more than half of the free memory is read as it is used, as
``imagefolder-stream`` does always.
"""

from __future__ import annotations

import io
from typing import Final

import numpy as np
import psutil

from autosparse.data import decode, folders
from autosparse.data.faulty import Faulty
from autosparse.data.kinds import imagefolder_stream
from autosparse.data.raw import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Augmentation,
    Kind,
    RawData,
    RawSplit,
    RawStream,
    ReadRequest,
    hold_out,
)
from autosparse.data.samples import Samples
from autosparse.hardware.cores import memory_limit_bytes
from autosparse.progress import Progress
from autosparse.units import format_bytes

_MEMORY_SHARE = 0.5  # of what is free: parts are copied while they are divided


def _read(request: ReadRequest) -> RawData | RawStream:
    path = request.folder
    folders.check(path)
    layout = folders.parts(path)
    side = request.resolution or folders.RESOLUTION
    classes = folders.class_names(layout.get("train", path))
    found = {name: folders.samples(place, classes) for name, place in (layout or {"": path}).items()}
    if not _fits(sum(len(part) for part in found.values()), side, request.progress):
        return imagefolder_stream.streamed(request, found, len(classes))
    read = {name: _images(part, side, request) for name, part in found.items()}
    if not layout:
        rows, test = hold_out(read[""].labels, folders.TEST_FRACTION, folders.TEST_SEED)
        read = {"train": read[""].take(rows), "test": read[""].take(test)}
    return RawData(
        train=read["train"],
        validation=read.get("validation"),
        test=read["test"],
        classes=len(classes),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        augmentation=Augmentation(flip=True),
    )


def _fits(count: int, side: int, progress: Progress) -> bool:
    needed, available = count * 3 * side * side, psutil.virtual_memory().available
    available = min(available, memory_limit_bytes() or available)
    if needed <= _MEMORY_SHARE * available:
        return True
    progress.log(
        f"{count} images of {side}x{side} need {format_bytes(needed)}, and {format_bytes(available)} "
        "of memory are free: they are read as they are used; imagefolder-stream:PATH does so always"
    )
    return False


def _images(part: Samples, side: int, request: ReadRequest) -> RawSplit:
    images = np.empty((len(part), 3, side, side), np.uint8)
    faulty = Faulty(len(part), str(part.listing.root), request.progress.log)
    good: list[int] = []
    with request.progress.step("read images", len(part)) as step:
        for row in range(len(part)):
            try:
                images[len(good)] = decode.centre(io.BytesIO(part.read(row)), side, request.margin)
                good.append(row)
            except Exception as problem:  # a border to readers of many formats: anything may come
                faulty.add(part.name(row), decode.why(problem))
            step.advance()
    return RawSplit(images=images[: len(good)], labels=part.labels[np.array(good, np.int64)])


KIND: Final = Kind(takes_path=True, check=folders.check, read=_read)
