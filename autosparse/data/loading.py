"""From a data set's name to images in memory: read, divided, resized once."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from autosparse.data import user
from autosparse.data.images import ImageData, Split
from autosparse.data.raw import RawData, RawSplit, ReadRequest, check_parts, hold_out
from autosparse.data.sources import check_source, kind_named, parse
from autosparse.errors import DataError
from autosparse.progress import Progress
from autosparse.records import short_hash

_LUMINANCE = (0.299, 0.587, 0.114)  # ITU-R BT.601, red green blue
_CHUNK = 1024  # images resized at a time, so that their float copies stay small


def resolve(
    spec: str,
    *,
    resolution: int | None = None,
    channels: int = 3,
    seed: int = 0,
    validation_fraction: float = 0.1,
    progress: Progress | None = None,
) -> ImageData:
    """Reads the data set that a name means.

    Args:
        spec: ``digits``, ``KIND:PATH`` or ``path/to/file.py:factory``.
        resolution: height and width images shall have; None keeps the set's own.
        channels: 3, or 1; gray images are repeated, coloured ones turned to gray.
        seed: decides which training examples are held out for validation, never what is test.
        validation_fraction: share of each class that is held out, for sets without a validation part.
        progress: told of long reading.

    Raises:
        DataError: an unknown kind, unreadable files, or an argument out of range.
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
    check_source(spec)
    request = ReadRequest(path=parse(spec).path, resolution=resolution, progress=progress or Progress())
    kind = parse(spec).kind
    if kind is not None:
        raw = kind_named(kind).read(request)
        return _assemble(kind, raw, resolution, channels, seed, validation_fraction)
    made = user.read(
        spec,
        request,
        resolution=resolution,
        channels=channels,
        seed=seed,
        validation_fraction=validation_fraction,
    )
    if isinstance(made, ImageData):
        return made
    return _assemble(spec, made, resolution, channels, seed, validation_fraction)


def _assemble(
    name: str,
    raw: RawData,
    resolution: int | None,
    channels: int,
    seed: int,
    validation_fraction: float,
) -> ImageData:
    named = {"train": raw.train, "validation": raw.validation, "test": raw.test}
    check_parts({k: (part.images, part.labels) for k, part in named.items() if part}, name)
    side = resolution or raw.train.images.shape[-1]
    mean, std = _per_channel(name, raw, channels)
    division = None if raw.validation is not None else (seed, validation_fraction)
    identity = [_fingerprint(raw), side, channels, division, mean, std, raw.augmentation]
    train, validation = raw.train, raw.validation
    if validation is None:
        stay, held = hold_out(train.labels, validation_fraction, seed)
        train, validation = train.take(stay), train.take(held)

    def split(part: RawSplit) -> Split:
        images = _resized(_recoloured(_tensor(part.images), channels), side)
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


def _per_channel(name: str, raw: RawData, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    found = raw.train.images.shape[1]
    if found == channels:
        return raw.mean, raw.std
    if found == 1:
        return raw.mean * channels, raw.std * channels
    if (found, channels) == (3, 1):
        gray = [
            (sum(w * v for w, v in zip(_LUMINANCE, values, strict=True)),)
            for values in (raw.mean, raw.std)
        ]
        return gray[0], gray[1]
    raise DataError(
        f"images of {name} have {found} channels and cannot be given with {channels}; "
        f"take a model with {found} input channels"
    )


def _recoloured(images: Tensor, channels: int) -> Tensor:
    """Turns colour to gray if one channel is wanted; gray stays one channel and is repeated later."""
    if channels != 1 or images.shape[1] == 1:
        return images
    weights = torch.tensor(_LUMINANCE).view(1, 3, 1, 1)
    return torch.cat(
        [_as_type((c.float() * weights).sum(1, True), images) for c in torch.split(images, _CHUNK)]
    )


def _resized(images: Tensor, side: int) -> Tensor:
    """Resizes bilinearly, blurring first where images shrink; keeps the type."""
    height, width = images.shape[2:]
    if (height, width) == (side, side):
        return images.contiguous()
    shrinks = side < max(height, width)
    chunks = (
        F.interpolate(chunk.float(), (side, side), mode="bilinear", antialias=shrinks)
        for chunk in torch.split(images, _CHUNK)
    )
    return torch.cat([_as_type(chunk, images) for chunk in chunks])


def _as_type(values: Tensor, like: Tensor) -> Tensor:
    return values.round_().clamp_(0, 255).to(torch.uint8) if like.dtype == torch.uint8 else values


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
