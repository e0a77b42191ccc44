"""From a data set's name to its three parts: read, divided and resized once, or left in files."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from autosparse.data import user
from autosparse.data.conversion import LUMINANCE, recoloured, resized
from autosparse.data.images import ImageData, Split
from autosparse.data.raw import (
    Augmentation,
    RawData,
    RawSplit,
    RawStream,
    ReadRequest,
    check_parts,
    hold_out,
)
from autosparse.data.samples import Samples
from autosparse.data.sources import check_source, kind_named, parse
from autosparse.data.streams import StreamedSplit
from autosparse.errors import DataError
from autosparse.progress import Progress
from autosparse.records import short_hash

_Part = TypeVar("_Part", RawSplit, Samples)


def resolve(
    spec: str,
    *,
    resolution: int | None = None,
    channels: int = 3,
    seed: int = 0,
    validation_fraction: float = 0.1,
    progress: Progress | None = None,
    augmentation: Augmentation | None = None,
    margin: float = 1.0,
    workers: int | None = None,
) -> ImageData:
    """Reads the data set that a name means, or finds out where its images lie.

    Args:
        spec: ``digits``, ``KIND:PATH`` or ``path/to/file.py:factory``.
        resolution: height and width images shall have; None keeps the set's own.
        channels: 3, or 1; gray images are repeated, coloured ones turned to gray.
        seed: decides which training examples are held out for validation, never what is test.
        validation_fraction: share of each class that is held out, for sets without a validation part.
        progress: told of long reading.
        augmentation: how training images are varied, None for the set's own way.
        margin: shorter side that pictures of many sizes are resized to before their centre is cut out,
            per resolution; 256/224 is usual for ImageNet.
        workers: processes that decode images which stay in their files, 0 for none but this one, None
            for one per usable core.

    Raises:
        DataError: an unknown kind, unreadable files, an argument out of range, or an augmentation for
            images that have one of their own.
        MissingDependency: the library that reads this kind is not installed.
    """
    if resolution is not None and resolution < 1:
        raise DataError(f"a data resolution must be at least 1, but got {resolution}")
    if channels < 1:
        raise DataError(f"channels must be at least 1, but got {channels}; take 3 or 1")
    if not 0 < validation_fraction < 1:
        raise DataError(
            f"validation_fraction must lie between 0 and 1, but got {validation_fraction}; take 0.1"
        )
    if not margin >= 1:
        raise DataError(f"margin must be at least 1, but got {margin}; 1 keeps as much as there is")
    check_source(spec)
    kind = parse(spec).kind
    request = ReadRequest(
        path=parse(spec).path,
        resolution=resolution,
        progress=progress or Progress(),
        margin=margin,
    )
    raw: ImageData | RawData | RawStream
    if kind is not None:
        raw = kind_named(kind).read(request)
    else:
        raw = user.read(
            spec,
            request,
            resolution=resolution,
            channels=channels,
            seed=seed,
            validation_fraction=validation_fraction,
        )
    if isinstance(raw, ImageData):
        if augmentation is not None:
            raise DataError(
                "a factory that returns ImageData says itself how images are varied, but another way "
                f"was asked for, of {spec}; say it there, or return torch data sets"
            )
        return raw
    if augmentation is not None:
        raw = dataclasses.replace(raw, augmentation=augmentation)
    if isinstance(raw, RawStream):
        return _streamed(kind or spec, raw, channels, (seed, validation_fraction), workers)
    return _assemble(kind or spec, raw, resolution, channels, (seed, validation_fraction))


def _assemble(
    name: str, raw: RawData, resolution: int | None, channels: int, held_out: tuple[int, float]
) -> ImageData:
    named = {"train": raw.train, "validation": raw.validation, "test": raw.test}
    check_parts({k: (part.images, part.labels) for k, part in named.items() if part}, name)
    side = resolution or raw.train.images.shape[-1]
    mean, std = _per_channel(name, raw.train.images.shape[1], raw, channels)
    division = None if raw.validation is not None else held_out
    identity = [_fingerprint(raw), side, channels, division, mean, std, raw.augmentation]
    train, validation = _divided(raw.train, raw.validation, held_out)

    def split(part: RawSplit) -> Split:
        images = resized(recoloured(_tensor(part.images), channels), side)
        labels = _tensor(part.labels)
        return Split(images, labels, mean=mean, std=std, augmentation=raw.augmentation)

    return ImageData(
        name=name,
        id=short_hash(identity, 16),
        classes=raw.classes,
        channels=channels,
        resolution=side,
        mean=mean,
        std=std,
        train=split(train),
        validation=split(validation),
        test=split(raw.test),
        augmentation=raw.augmentation,
    )


def _streamed(
    name: str, raw: RawStream, channels: int, held_out: tuple[int, float], workers: int | None
) -> ImageData:
    labels = raw.train.labels
    if (labels == labels[0]).all():
        raise DataError(
            f"the train images of {name} must be of at least two classes, but all {len(labels)} are of "
            f"class {labels[0]}"
        )
    side = raw.resolution
    mean, std = _per_channel(name, len(raw.mean), raw, channels)
    division = None if raw.validation is not None else held_out
    parts = [part.fingerprint() for part in (raw.train, raw.validation, raw.test) if part is not None]
    identity = ["stream", parts, side, raw.margin, channels, division, mean, std, raw.augmentation]
    train, validation = _divided(raw.train, raw.validation, held_out)

    def split(part: Samples, what: str) -> StreamedSplit:
        return StreamedSplit(
            part,
            side=side,
            channels=channels,
            mean=mean,
            std=std,
            augmentation=raw.augmentation,
            margin=raw.margin,
            workers=workers,
            name=f"the {what} part of {name}",
        )

    return ImageData(
        name=name,
        id=short_hash(identity, 16),
        classes=raw.classes,
        channels=channels,
        resolution=side,
        mean=mean,
        std=std,
        train=split(train, "train"),
        validation=split(validation, "validation"),
        test=split(raw.test, "test"),
        augmentation=raw.augmentation,
    )


def _divided(
    train: _Part, validation: _Part | None, held_out: tuple[int, float]
) -> tuple[_Part, _Part]:
    """Gives what trains and what decides; if there is none, holds it out by seed and fraction."""
    if validation is not None:
        return train, validation
    seed, fraction = held_out
    stay, held = hold_out(train.labels, fraction, seed)
    return train.take(stay), train.take(held)


def _per_channel(
    name: str, found: int, raw: RawData | RawStream, channels: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    if found == channels:
        return raw.mean, raw.std
    if found == 1:
        return raw.mean * channels, raw.std * channels
    if (found, channels) == (3, 1):
        gray = [
            (sum(w * v for w, v in zip(LUMINANCE, values, strict=True)),)
            for values in (raw.mean, raw.std)
        ]
        return gray[0], gray[1]
    raise DataError(
        f"images of {name} have {found} channels and cannot be given with {channels}; "
        f"take a model with {found} input channels"
    )


def _tensor(array: npt.NDArray[Any]) -> Tensor:
    """Wraps an array; copies only what torch cannot share: read-only or strided memory."""
    return torch.from_numpy(np.require(array, requirements=("C", "W")))


def _fingerprint(raw: RawData) -> str:
    digest = hashlib.sha256()
    for part in (raw.train, raw.validation, raw.test):
        for array in () if part is None else (part.images, part.labels):
            digest.update(f"{array.shape}{array.dtype}".encode())
            digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:16]
