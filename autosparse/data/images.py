"""Labelled images in memory, handed out in batches ready for a model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from autosparse.data.raw import Augmentation
from autosparse.errors import DataError

_SEED_STRIDE = 1_000_003  # a prime: keeps the seeds of (epoch, batch) pairs apart


class Split:
    """One part of a data set: images kept small, normalised and varied as they are handed out.

    Args:
        images: (n, c, h, w), uint8 in 0..255, or float32 which is not divided by 255. c is 1 or the
            number of `mean`; one channel is repeated as often as there are means.
        labels: (n,) int64.
        mean: subtracted, per channel, from images in 0..1.
        std: divided by, per channel.
        augmentation: how `batches` varies images when asked to.

    Raises:
        DataError: the shapes or types do not fit one another.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        *,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        augmentation: Augmentation | None = None,
    ) -> None:
        _check_tensors(images, labels, mean, std)
        self.images = images
        self.labels = labels
        self.augmentation = augmentation or Augmentation(shift=0.0)
        unit = 255.0 if images.dtype == torch.uint8 else 1.0
        deviation = torch.tensor(std, dtype=torch.float64).view(1, -1, 1, 1)
        centre = torch.tensor(mean, dtype=torch.float64).view(1, -1, 1, 1)
        self._scale = (1 / (unit * deviation)).float()
        self._shift = (-centre / deviation).float()

    def __len__(self) -> int:
        return len(self.labels)

    def batches(
        self,
        batch_size: int,
        *,
        shuffle_seed: int | None = None,
        augment: bool = False,
        limit: int | None = None,
        drop_last: bool = False,
        first_batch: int = 0,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Hands out the examples, each at most once.

        The same arguments give the same batches, bit for bit; batch k does not depend on the batches
        before it having been taken, so that an interrupted pass goes on with `first_batch`.

        Args:
            batch_size: examples per batch; the last one may be smaller.
            shuffle_seed: order of the examples, and what `augment` draws; None keeps the stored order.
                A training loop gives every epoch its own.
            augment: vary the images as `augmentation` says.
            limit: stop after so many examples.
            drop_last: leave out a last batch that is not full.
            first_batch: start here.

        Returns:
            Pairs of normalised images (b, c, h, w) float32 and labels (b,) int64.

        Raises:
            DataError: an argument is out of range, or `augment` without a seed.
        """
        for name, value in (("batch_size", batch_size), ("limit", 1 if limit is None else limit)):
            if value < 1:
                raise DataError(f"{name} must be at least 1, but got {value}")
        if augment and shuffle_seed is None:
            raise DataError("augment needs a shuffle_seed, but got None; give each epoch its own")
        count = len(self) if limit is None else min(limit, len(self))
        if drop_last:
            count -= count % batch_size
        return self._batches(batch_size, shuffle_seed, augment, count, first_batch)

    def _batches(
        self, batch_size: int, shuffle_seed: int | None, augment: bool, count: int, first_batch: int
    ) -> Iterator[tuple[Tensor, Tensor]]:
        order = None
        if shuffle_seed is not None:
            order = torch.randperm(len(self), generator=torch.Generator().manual_seed(shuffle_seed))
        for start in range(first_batch * batch_size, count, batch_size):
            stop = min(start + batch_size, count)
            rows = slice(start, stop) if order is None else order[start:stop]
            images = self.images[rows]
            if augment and shuffle_seed is not None:
                seed = (shuffle_seed * _SEED_STRIDE + start // batch_size + 1) % 2**63
                images = vary(images, self.augmentation, torch.Generator().manual_seed(seed))
            yield self._normalise(images), self.labels[rows]

    def _normalise(self, images: Tensor) -> Tensor:
        return images.float().mul(self._scale).add_(self._shift)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageData:
    """A labelled set of images in three parts.

    Attributes:
        name: its kind, such as ``cifar10``.
        id: short hash of all that decides its batches: content, resolution, channels, division and
            normalisation; equal for equal data wherever its files lie.
        classes: number of classes.
        channels: of the images handed out.
        resolution: height and width.
        mean: per channel, of images in 0..1.
        std: likewise.
        train: trains.
        validation: decides.
        test: only reports.
        augmentation: how training images are varied.
    """

    name: str
    id: str
    classes: int
    channels: int
    resolution: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: Split
    validation: Split
    test: Split
    augmentation: Augmentation = field(default_factory=Augmentation)


def vary(images: Tensor, augmentation: Augmentation, generator: torch.Generator) -> Tensor:
    """Moves and mirrors each image of a batch at random.

    Args:
        images: (b, c, h, w).
        augmentation: how far and whether.
        generator: source of the random numbers.

    Returns:
        Images of the same shape and type.
    """
    count, _, height, width = images.shape
    reach = max(1, round(augmentation.shift * height)) if augmentation.shift > 0 else 0
    if reach:
        padded = F.pad(images, (reach,) * 4)
        top, left = torch.randint(0, 2 * reach + 1, (2, count), generator=generator)
        # every position of the window at once, as a view; the index then copies one per image
        windows = padded.unfold(2, height, 1).unfold(3, width, 1)
        images = windows[torch.arange(count), :, top, left]
    if augmentation.flip:
        mirrored = torch.rand(count, generator=generator) < 0.5
        images = torch.where(mirrored.view(-1, 1, 1, 1), images.flip(-1), images)
    return images


def _check_tensors(
    images: Tensor, labels: Tensor, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    if images.dim() != 4 or images.dtype not in (torch.uint8, torch.float32):
        raise DataError(
            "images must be (n, channels, height, width) of uint8 or float32, but got "
            f"{tuple(images.shape)} of {images.dtype}"
        )
    if labels.shape != images.shape[:1] or labels.dtype != torch.int64:
        raise DataError(
            f"labels must be one int64 per image, but got {tuple(labels.shape)} of {labels.dtype} for "
            f"{len(images)} images"
        )
    if len(mean) != len(std) or images.shape[1] not in (1, len(mean)):
        raise DataError(
            f"mean and std must have one value per channel, but got {len(mean)} and {len(std)} for "
            f"{images.shape[1]} channels"
        )
    if not all(0 < value < math.inf for value in std):
        raise DataError(f"std must be greater than zero and finite, but got {std}")
    if not all(math.isfinite(value) for value in mean):
        raise DataError(f"mean must be finite, but got {mean}")
