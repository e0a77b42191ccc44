"""What every part of a data set does, wherever its images lie: hands them out in batches."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator

import torch
from torch import Tensor

from autosparse.data.augment import Draws, coloured, erased, moved
from autosparse.data.passes import Pass, Share, planned
from autosparse.data.raw import Augmentation
from autosparse.errors import DataError


class AnySplit(ABC):
    """One part of a data set, normalised and varied as it is handed out.

    Args:
        labels: (n,) int64.
        side: height of the images, pixels.
        unit: what stored pixels are divided by, 255 for bytes.
        mean: subtracted, per channel, from images in 0..1.
        std: divided by, per channel.
        augmentation: how `batches` varies images when asked to.

    Raises:
        DataError: mean or standard deviation are none.
    """

    def __init__(
        self,
        labels: Tensor,
        *,
        side: int,
        unit: float,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        augmentation: Augmentation,
    ) -> None:
        _check_moments(mean, std)
        self.labels = labels
        self.augmentation = augmentation
        self._side = side
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
        shard: tuple[int, int] = (0, 1),
        device: str | torch.device | None = None,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Hands out the examples, each at most once.

        The same arguments give the same batches, bit for bit; batch k does not depend on the batches
        before it having been taken, so that an interrupted pass goes on with `first_batch`. The shares
        of all ranks, in the order of ranks, are the batch that one process gets alone; they differ in
        size by at most one example, and one of a last small batch may be empty.

        Args:
            batch_size: examples per batch, of all ranks together; the last one may be smaller.
            shuffle_seed: order of the examples, and what `augment` draws; None keeps the stored order.
                A training loop gives every epoch its own.
            augment: vary the images as `augmentation` says.
            limit: stop after so many examples.
            drop_last: leave out a last batch that is not full.
            first_batch: start here.
            shard: rank and number of ranks, where several processes share every batch.
            device: where the batches shall be and are varied; None for where the images are.

        Returns:
            Pairs of normalised images (b, c, h, w) float32 and labels (b,) int64.

        Raises:
            DataError: an argument is out of range, or `augment` without a seed; while batches are
                taken, images that cannot be read.
        """
        asked = planned(
            len(self),
            self._side,
            self.augmentation if augment else None,
            batch_size=batch_size,
            shuffle_seed=shuffle_seed,
            limit=limit,
            drop_last=drop_last,
            first_batch=first_batch,
            shard=shard,
        )
        return self._batches(asked, None if device is None else torch.device(device))

    @abstractmethod
    def resident(self, device: str | torch.device) -> AnySplit:
        """Gives a split with its images on a device; this one where they do not fit."""

    @abstractmethod
    def _stored(
        self, asked: Pass, device: torch.device | None
    ) -> Iterator[tuple[Share, Tensor, Tensor]]:
        """Gives every share with its images, as they are stored, and its labels, on the device."""

    def _batches(self, asked: Pass, device: torch.device | None) -> Iterator[tuple[Tensor, Tensor]]:
        for share, images, labels in self._stored(asked, device):
            yield self._finished(images, share.draws), labels

    def _finished(self, images: Tensor, draws: Draws | None) -> Tensor:
        scale, shift = self._scale.to(images.device), self._shift.to(images.device)
        if draws is None or not len(images):
            return images.float().mul(scale).add_(shift)
        images = moved(images, self.augmentation, draws)
        if draws.colours is not None:
            images = coloured(images.float(), draws.colours)
        normal = images.float().mul(scale).add_(shift)
        return normal if draws.erase is None else erased(normal, draws.erase, self.augmentation.erase)


def _check_moments(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    if len(mean) != len(std):
        raise DataError(
            f"mean and std must have one value per channel, but got {len(mean)} and {len(std)}"
        )
    if not all(0 < value < math.inf for value in std):
        raise DataError(f"std must be greater than zero and finite, but got {std}")
    if not all(math.isfinite(value) for value in mean):
        raise DataError(f"mean must be finite, but got {mean}")
