"""Labelled images in memory, and the three parts of a data set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from autosparse.data.passes import Pass, Share, shares
from autosparse.data.raw import Augmentation
from autosparse.data.split import AnySplit
from autosparse.errors import DataError

_DEVICE_SHARE = 0.25  # of a device's free memory; the rest is for a model and its activations


class Split(AnySplit):
    """One part of a data set in memory: kept small, normalised and varied as it is handed out.

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
        _check_tensors(images, labels, mean)
        varied = augmentation or Augmentation(shift=0.0)
        if images.dtype != torch.uint8 and any(varied.colours):
            raise DataError(
                "brightness, contrast and saturation must be changed on uint8 images, whose range is "
                f"known, but got {images.dtype}; set all three to 0"
            )
        self.images = images
        self._moments = mean, std
        unit = 255.0 if images.dtype == torch.uint8 else 1.0
        super().__init__(
            labels, side=images.shape[2], unit=unit, mean=mean, std=std, augmentation=varied
        )

    def resident(self, device: str | torch.device) -> Split:
        """Gives a split with its images on a device; this one where they do not fit."""
        place = torch.device(device)
        if self.images.device == place or not _fits(self.images.nbytes, place):
            return self
        mean, std = self._moments
        return Split(
            self.images.to(place),
            self.labels.to(place),
            mean=mean,
            std=std,
            augmentation=self.augmentation,
        )

    def _stored(
        self, asked: Pass, device: torch.device | None
    ) -> Iterator[tuple[Share, Tensor, Tensor]]:
        here = self.images.device
        for share in shares(asked):
            rows = share.rows if isinstance(share.rows, slice) else share.rows.to(here)
            images, labels = self.images[rows], self.labels[rows]
            yield share, images.to(device or here), labels.to(device or here)


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageData:
    """A labelled set of images in three parts.

    Attributes:
        name: its kind, such as ``cifar10``.
        id: short hash of all that decides its batches: content, resolution, channels, division and
            normalisation; equal for equal data wherever its files lie. Of images that are read as they
            are used, names and sizes stand for the content.
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
    train: AnySplit
    validation: AnySplit
    test: AnySplit
    augmentation: Augmentation = field(default_factory=Augmentation)


def _fits(size_bytes: int, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    return size_bytes <= _DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]


def _check_tensors(images: Tensor, labels: Tensor, mean: tuple[float, ...]) -> None:
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
    if images.shape[1] not in (1, len(mean)):
        raise DataError(
            f"mean and std must have one value per channel, but got {len(mean)} for "
            f"{images.shape[1]} channels"
        )
