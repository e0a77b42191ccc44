"""A part of CIFAR-10's training images, all of its test images: a data set for quick comparisons."""

from __future__ import annotations

import dataclasses
import os

from autosparse import data
from autosparse.data import ImageData, Split

VARIABLE = "CIFAR10_PART"  # folder, a colon and how many training images


def load(resolution: int | None = None, channels: int = 3, seed: int = 0) -> ImageData:
    """Gives the first training images of the folder that the environment names."""
    folder, _, count = os.environ[VARIABLE].rpartition(":")
    whole = data.resolve(f"cifar10:{folder}", resolution=resolution, channels=channels, seed=seed)
    train = whole.train
    assert isinstance(train, Split)
    part = Split(
        train.images[: int(count)],
        train.labels[: int(count)],
        mean=whole.mean,
        std=whole.std,
        augmentation=train.augmentation,
    )
    return dataclasses.replace(whole, train=part, id=f"{whole.id}-{count}", name=f"cifar10 of {count}")
