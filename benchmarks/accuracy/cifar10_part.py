"""A part of CIFAR-10's training and validation images, all test images, for quick comparisons."""

from __future__ import annotations

import dataclasses
import os

from autosparse import data
from autosparse.data import AnySplit, ImageData, Split

VARIABLE = "CIFAR10_PART"  # folder, a colon and how many training images


def load(resolution: int | None = None, channels: int = 3, seed: int = 0) -> ImageData:
    """Gives the first training images of the folder that the environment names."""
    folder, _, count = os.environ[VARIABLE].rpartition(":")
    whole = data.resolve(f"cifar10:{folder}", resolution=resolution, channels=channels, seed=seed)

    def first(part: AnySplit, most: int) -> Split:
        assert isinstance(part, Split)
        return Split(
            part.images[:most],
            part.labels[:most],
            mean=whole.mean,
            std=whole.std,
            augmentation=part.augmentation,
        )

    few = max(1_000, int(count) // 9)  # as large a share of the whole as of the usual division
    return dataclasses.replace(
        whole,
        train=first(whole.train, int(count)),
        validation=first(whole.validation, few),
        id=f"{whole.id}-{count}",
        name=f"cifar10 of {count}",
    )
