"""Data sets that users make: a function of theirs, called, and what it returned taken over."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from autosparse import factories
from autosparse.data.images import ImageData
from autosparse.data.raw import Augmentation, RawData, RawSplit, ReadRequest
from autosparse.errors import DataError
from autosparse.progress import Progress


def read(spec: str, request: ReadRequest, **offered: Any) -> ImageData | RawData:
    """Calls a user's function and takes over what it returns.

    Images that are tensors of floats are used as they are, normalised or not; bytes and pictures are
    used in 0..1. Nothing is varied in training: a data set's own transforms run once, when it is read.

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
    parts = [_part(spec, part, request.progress) for part in made]
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
    return made


def _part(spec: str, dataset: Any, progress: Progress) -> RawSplit:
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        raise DataError(
            f"{spec} must return data sets with a length and an index, but got {type(dataset).__name__}"
        )
    if len(dataset) == 0:
        raise DataError(f"{spec} must return data sets with examples, but got an empty one")
    images, labels = [], []
    with progress.step("read data set", len(dataset)) as step:
        for row in range(len(dataset)):
            image, label = _example(spec, dataset, row)
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


def _example(spec: str, dataset: Any, row: int) -> tuple[npt.NDArray[Any], int]:
    try:
        image, label = dataset[row]
        return _image(image), int(label)
    except Exception as problem:  # a border to code that is not ours: anything may come
        raise DataError(
            f"{spec} must give an (image, label) pair at {row}, but it raised "
            f"{type(problem).__name__}: {problem}"
        ) from problem


def _image(image: Any) -> npt.NDArray[Any]:
    """Gives (c, h, w) of uint8 or float32, from a tensor (c, h, w) or a picture (h, w[, c])."""
    if isinstance(image, torch.Tensor):
        array = image.detach().cpu().numpy()
    else:
        array = np.asarray(image)
        array = array.transpose(2, 0, 1) if array.ndim == 3 else array
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3:
        raise DataError(f"an image must have 2 or 3 dimensions, but got {array.ndim}")
    return array if array.dtype == np.uint8 else array.astype(np.float32)


def _classes(dataset: Any, parts: Sequence[RawSplit]) -> int:
    seen = 1 + max(int(part.labels.max()) for part in parts)
    named = getattr(dataset, "classes", None)
    return max(seen, len(named)) if isinstance(named, list | tuple) else seen
