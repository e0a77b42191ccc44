"""The embedded digits: content, division, normalisation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from autosparse.data import ImageData, Split, resolve
from autosparse.data.kinds import digits as kind
from autosparse.errors import DataError


@pytest.fixture(scope="module")
def digits() -> ImageData:
    return resolve("digits", channels=1)


def rows(split: Split) -> set[bytes]:
    return {image.numpy().tobytes() for image in split.images}


@pytest.mark.smoke
def test_every_digit_is_in_exactly_one_part(digits: ImageData) -> None:
    parts = [rows(split) for split in (digits.train, digits.validation, digits.test)]
    assert sum(len(part) for part in parts) == len(parts[0] | parts[1] | parts[2]) == 1797
    pixels = load_digits().data
    expected = {np.rint(row * 255 / 16).astype(np.uint8).tobytes() for row in pixels}
    assert parts[0] | parts[1] | parts[2] == expected


def test_labels_stay_with_their_images(digits: ImageData) -> None:
    pixels, labels = load_digits(return_X_y=True)
    known = {
        np.rint(r * 255 / 16).astype(np.uint8).tobytes(): y for r, y in zip(pixels, labels, strict=True)
    }
    for split in (digits.train, digits.validation, digits.test):
        for image, label in zip(split.images, split.labels.tolist(), strict=True):
            assert known[image.numpy().tobytes()] == label


def test_classes_are_in_proportion_in_every_part(digits: ImageData) -> None:
    whole = np.bincount(load_digits().target) / 1797
    for split in (digits.train, digits.validation, digits.test):
        share = np.bincount(split.labels.numpy(), minlength=10) / len(split)
        np.testing.assert_allclose(share, whole, atol=0.01)


def test_any_first_few_are_a_fair_sample(digits: ImageData) -> None:
    for split in (digits.train, digits.test):
        assert len(set(split.labels[:60].tolist())) == 10


def test_the_seed_moves_validation_and_never_test(digits: ImageData) -> None:
    other = resolve("digits", channels=1, seed=1)
    assert torch.equal(other.test.images, digits.test.images)
    assert rows(other.validation) != rows(digits.validation)
    again = resolve("digits", channels=1)
    assert torch.equal(again.train.images, digits.train.images)
    assert again.id == digits.id != other.id


def test_a_fraction_is_held_out() -> None:
    data = resolve("digits", validation_fraction=0.25)
    share = len(data.validation) / (len(data.train) + len(data.validation))
    assert share == pytest.approx(0.25, abs=0.005)


def test_the_stated_mean_and_deviation_are_those_of_the_pixels(digits: ImageData) -> None:
    values = load_digits().data / 16
    assert digits.mean[0] == pytest.approx(values.mean(), abs=5e-4)
    assert digits.std[0] == pytest.approx(values.std(), abs=5e-4)


def test_ids_tell_apart_what_differs() -> None:
    variants = [
        resolve("digits"),
        resolve("digits", resolution=16),
        resolve("digits", channels=1),
        resolve("digits", seed=2),
        resolve("digits", validation_fraction=0.2),
    ]
    assert len({data.id for data in variants}) == len(variants)


def test_digits_are_not_mirrored(digits: ImageData) -> None:
    assert not digits.augmentation.flip
    assert digits.augmentation.shift > 0


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5])
def test_impossible_fractions_are_refused(fraction: float) -> None:
    with pytest.raises(DataError, match="between 0 and 1"):
        resolve("digits", validation_fraction=fraction)


@pytest.mark.parametrize("resolution", [0, -8])
def test_impossible_resolutions_are_refused(resolution: int) -> None:
    with pytest.raises(DataError, match="at least 1"):
        resolve("digits", resolution=resolution)


def test_impossible_channels_are_refused() -> None:
    with pytest.raises(DataError, match="channels must be at least 1"):
        resolve("digits", channels=0)


def test_a_version_that_keeps_its_file_elsewhere_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    direct = kind._pixels_and_labels()
    monkeypatch.setattr(kind, "_FILE", ("elsewhere.csv",))
    for ours, theirs in zip(direct, kind._pixels_and_labels(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
