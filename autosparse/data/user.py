"""Data sets that users make: a function of theirs, called, and what it returned taken over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from autosparse import factories
from autosparse.data import pictures
from autosparse.data.images import ImageData, Split
from autosparse.data.raw import (
    Augmentation,
    RawData,
    RawSplit,
    ReadRequest,
    check_labels,
    check_parts,
)
from autosparse.errors import DataError
from autosparse.progress import Progress


def read(spec: str, request: ReadRequest, **offered: Any) -> ImageData | RawData:
    """Calls a user's function and takes over what it returns.

    Images of floats are used as they are, normalised or not; bytes, 16-bit values and pictures are used
    in 0..1. Nothing is varied in training: a data set's own transforms run once, when it is read.

    Args:
        spec: ``path/to/file.py:factory``.
        request: whose progress is told of the reading.
        offered: arguments the function may take.

    Returns:
        `ImageData` as the function made it; or, from (train, test) or (train, validation, test) torch
        data sets of (image, label), what is to be divided and resized.

    Raises:
        DataError: the function fails, or returns something else.
    """
    made = factories.call(spec, factories.load(spec, DataError), DataError, **offered)
    if isinstance(made, ImageData):
        return _checked(spec, made, offered)
    if not isinstance(made, tuple | list) or len(made) not in (2, 3):
        raise DataError(
            f"{spec} must return ImageData, or (train, test) or (train, validation, test) torch data "
            f"sets, but got {type(made).__name__}"
        )
    names = ("train", "validation", "test") if len(made) == 3 else ("train", "test")
    parts = [_part(spec, name, part, request.progress) for name, part in zip(names, made, strict=True)]
    types = [(part.images.dtype, part.images.shape[1]) for part in parts]
    if len(set(types)) > 1:
        told = ", ".join(f"{n} {t} in {c} channels" for n, (t, c) in zip(names, types, strict=True))
        raise DataError(f"the splits of {spec} must be of one type, but got {told}; convert them alike")
    classes = _classes(made[0], parts)
    channels = parts[0].images.shape[1]
    return RawData(
        train=parts[0],
        validation=parts[1] if len(parts) == 3 else None,
        test=parts[-1],
        classes=classes,
        mean=(0.0,) * channels,
        std=(1.0,) * channels,
        augmentation=Augmentation(shift=0.0),
    )


def _checked(spec: str, made: ImageData, offered: dict[str, Any]) -> ImageData:
    for name, found in (("resolution", made.resolution), ("channels", made.channels)):
        asked = offered.get(name)
        if asked is not None and asked != found:
            raise DataError(
                f"{spec} must return images of {name} {asked}, but returned {found}; "
                f"let the function take {name}"
            )
    splits = {"train": made.train, "validation": made.validation, "test": made.test}
    in_memory = {name: split for name, split in splits.items() if isinstance(split, Split)}
    check_parts(
        {n: (split.images.numpy(), split.labels.numpy()) for n, split in in_memory.items()}, spec
    )
    for name, split in splits.items():
        check_labels(split.labels.numpy(), made.classes, f"the {name} split of {spec}")
    return made


def _part(spec: str, name: str, dataset: Any, progress: Progress) -> RawSplit:
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise DataError(
            f"{spec} must return data sets with a length and an index, but got {type(dataset).__name__}"
        )
    if len(dataset) == 0:
        raise DataError(f"{spec} must return data sets with examples, but got an empty one")
    images, labels = [], []
    with progress.step("read data set", len(dataset)) as step:
        for row in range(len(dataset)):
            image, label = _example(spec, name, dataset, row)
            images.append(image)
            labels.append(label)
            step.advance()
    shapes = sorted({(image.shape, str(image.dtype)) for image in images})
    if len(shapes) > 1:
        raise DataError(
            f"images of {spec} must be alike, but got {shapes[0]} and {shapes[1]}; "
            "resize them in the data set"
        )
    return RawSplit(images=np.stack(images), labels=np.array(labels, np.int64))


def _example(spec: str, name: str, dataset: Any, row: int) -> tuple[npt.NDArray[Any], int]:
    try:
        image, label = dataset[row]
        return _image(image), _label(label)
    except Exception as problem:  # a border to code that is not ours: anything may come
        told = problem if isinstance(problem, DataError) else f"{type(problem).__name__}: {problem}"
        raise DataError(
            f"{spec} must give an (image, label) pair in row {row} of its {name} split, but: {told}"
        ) from problem


def _label(label: Any) -> int:
    value = int(label)
    if value != float(label) or value < 0:
        raise DataError(f"a label must be a whole number from 0 on, but got {label}")
    return value


def _image(image: Any) -> npt.NDArray[Any]:
    """Gives (c, h, w) of uint8 or float32, from a tensor (c, h, w) or a picture (h, w[, c])."""
    if isinstance(image, torch.Tensor):
        array = image.detach().cpu().numpy()
    else:
        array = pictures.to_bytes(image) if pictures.is_picture(image) else np.asarray(image)
        array = array.transpose(2, 0, 1) if array.ndim == 3 else array
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3:
        raise DataError(f"an image must have 2 or 3 dimensions, but got {array.ndim}")
    if array.dtype == np.uint16:
        return array.astype(np.float32) / np.float32(65535)
    if array.dtype.kind not in "fb" and array.dtype != np.uint8:
        raise DataError(
            f"pixels must be uint8, uint16 or floats, but got {array.dtype}, whose range is not "
            "defined; convert them"
        )
    return array if array.dtype == np.uint8 else array.astype(np.float32)


def _classes(dataset: Any, parts: Sequence[RawSplit]) -> int:
    seen = 1 + max(int(part.labels.max()) for part in parts)
    named = getattr(dataset, "classes", None)
    return max(seen, len(named)) if isinstance(named, list | tuple) else seen
