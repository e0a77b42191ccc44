"""Batches: normalised as said, varied as said, the same for the same arguments."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from autosparse.data import Split, resolve
from autosparse.data.augment import draw, moved
from autosparse.data.conversion import recoloured, resized
from autosparse.data.raw import Augmentation, hold_out
from autosparse.errors import DataError


def make(count: int = 10, channels: int = 3, side: int = 8, **options: object) -> Split:
    images = torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8)
    labels = torch.arange(count)
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    return Split(images, labels, mean=mean, std=std, **options)  # type: ignore[arg-type]


def together(split: Split, batch_size: int = 4, **options: object) -> tuple[torch.Tensor, torch.Tensor]:
    pairs = list(split.batches(batch_size, **options))  # type: ignore[arg-type]
    return torch.cat([x for x, _ in pairs]), torch.cat([y for _, y in pairs])


@pytest.mark.smoke
@pytest.mark.parametrize("channels", [1, 3])
def test_batches_are_normalised_per_channel(channels: int) -> None:
    split = make(channels=channels)
    images, labels = together(split)
    pixels = np.broadcast_to(split.images.numpy() / 255.0, (10, 3, 8, 8))
    mean = np.array([0.5, 0.4, 0.3]).reshape(1, 3, 1, 1)
    std = np.array([0.2, 0.25, 0.3]).reshape(1, 3, 1, 1)
    np.testing.assert_allclose(images.numpy(), (pixels - mean) / std, atol=2e-6)
    assert images.dtype == torch.float32
    assert labels.tolist() == list(range(10))


def test_floats_are_not_divided() -> None:
    images = torch.randn(4, 1, 3, 3)
    split = Split(images, torch.arange(4), mean=(0.0,), std=(1.0,))
    assert torch.equal(together(split)[0], images)


@pytest.mark.parametrize(
    ("options", "sizes"),
    [
        ({}, [4, 4, 2]),
        ({"drop_last": True}, [4, 4]),
        ({"limit": 5}, [4, 1]),
        ({"limit": 5, "drop_last": True}, [4]),
        ({"limit": 99}, [4, 4, 2]),
        ({"first_batch": 2}, [2]),
        ({"first_batch": 3}, []),
    ],
)
def test_batches_have_the_sizes_asked_for(options: dict[str, int], sizes: list[int]) -> None:
    assert [len(y) for _, y in make().batches(4, **options)] == sizes  # type: ignore[arg-type]


def test_shuffling_is_a_permutation_fixed_by_its_seed() -> None:
    split = make(100)
    one, same, other = (together(split, shuffle_seed=seed)[1].tolist() for seed in (1, 1, 2))
    assert one == same != other
    assert sorted(one) == list(range(100)) != one


def test_shuffled_images_keep_their_labels() -> None:
    split = make(50)
    plain, _ = together(split)
    images, labels = together(split, shuffle_seed=3)
    assert torch.equal(images, plain[labels])


@pytest.mark.smoke
@pytest.mark.parametrize("first", [0, 1, 2])
def test_a_pass_can_be_resumed_at_any_batch(first: int) -> None:
    split = make(augmentation=Augmentation(flip=True))
    whole = list(split.batches(4, shuffle_seed=5, augment=True))
    rest = list(split.batches(4, shuffle_seed=5, augment=True, first_batch=first))
    assert len(rest) == 3 - first
    for (x, y), (again_x, again_y) in zip(whole[first:], rest, strict=True):
        assert torch.equal(x, again_x)
        assert torch.equal(y, again_y)


def test_variation_differs_from_epoch_to_epoch() -> None:
    split = make(augmentation=Augmentation(flip=True))
    one, labels = together(split, shuffle_seed=1, augment=True)
    two, other = together(split, shuffle_seed=2, augment=True)
    assert one.shape == two.shape == (10, 3, 8, 8)
    assert not torch.equal(one[labels.argsort()], two[other.argsort()])


def test_every_varied_image_is_a_shifted_or_mirrored_original() -> None:
    images = torch.randint(1, 256, (60, 2, 8, 8), dtype=torch.uint8)
    augmentation = Augmentation(shift=0.25, flip=True)
    draws = draw(augmentation, 60, 8, torch.Generator().manual_seed(0))
    got = moved(images, augmentation, draws)
    seen = set()
    for original, varied in zip(images.numpy(), got.numpy(), strict=True):
        padded = np.pad(original, ((0, 0), (2, 2), (2, 2)))
        matches = {
            (top, left, mirrored)
            for top in range(5)
            for left in range(5)
            for mirrored in (False, True)
            if np.array_equal(
                varied, padded[:, top : top + 8, left : left + 8][:, :, :: -1 if mirrored else 1]
            )
        }
        assert len(matches) == 1
        seen |= matches
    assert {top for top, _, _ in seen} == {left for _, left, _ in seen} == set(range(5))
    assert {mirrored for _, _, mirrored in seen} == {False, True}


def test_nothing_moves_without_shift_and_flip() -> None:
    images = torch.randint(0, 256, (5, 1, 4, 4), dtype=torch.uint8)
    still = Augmentation(shift=0.0)
    same = moved(images, still, draw(still, 5, 4, torch.Generator().manual_seed(0)))
    assert torch.equal(same, images)


def test_evaluation_is_never_varied() -> None:
    split = make(augmentation=Augmentation(flip=True))
    assert torch.equal(together(split)[0], together(split)[0])
    plain, labels = together(split, shuffle_seed=7)
    assert torch.equal(plain, together(split)[0][labels])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"batch_size": 2, "limit": 0}, "limit must be at least 1"),
        ({"batch_size": 2, "augment": True}, "augment needs a shuffle_seed"),
    ],
)
def test_impossible_batches_are_refused_at_once(options: dict[str, object], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        make().batches(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("images", "labels", "mean", "std"),
    [
        (torch.zeros(2, 3, 4), torch.zeros(2, dtype=torch.int64), (0.0,), (1.0,)),
        (torch.zeros(2, 1, 4, 4, dtype=torch.int32), torch.zeros(2, dtype=torch.int64), (0.0,), (1.0,)),
        (torch.zeros(2, 1, 4, 4), torch.zeros(3, dtype=torch.int64), (0.0,), (1.0,)),
        (torch.zeros(2, 1, 4, 4), torch.zeros(2), (0.0,), (1.0,)),
        (torch.zeros(2, 2, 4, 4), torch.zeros(2, dtype=torch.int64), (0.0,), (1.0,)),
        (torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64), (0.0,), (0.0,)),
    ],
)
def test_parts_that_do_not_fit_are_refused(
    images: torch.Tensor, labels: torch.Tensor, mean: tuple[float, ...], std: tuple[float, ...]
) -> None:
    with pytest.raises(DataError, match=r"must (be|have)"):
        Split(images, labels, mean=mean, std=std)


@pytest.mark.parametrize("resolution", [4, 8, 20, 32])
def test_images_are_resized_once_and_kept_as_bytes(resolution: int) -> None:
    data = resolve("digits", resolution=resolution)
    assert data.resolution == resolution
    for split in (data.train, data.validation, data.test):
        assert split.images.shape[1:] == (1, resolution, resolution)
        assert split.images.dtype == torch.uint8
    images, _ = next(data.train.batches(3))
    assert images.shape == (3, 3, resolution, resolution)
    assert torch.equal(images[:, 0], images[:, 2])


def test_enlarging_is_bilinear() -> None:
    x = torch.tensor([[0, 100], [200, 40]], dtype=torch.uint8).view(1, 1, 2, 2)
    weights = np.array([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]])
    expected = np.rint(weights @ x[0, 0].numpy().astype(np.float64) @ weights.T)
    np.testing.assert_array_equal(resized(x, 4)[0, 0].numpy(), expected)


def test_shrinking_blurs_first() -> None:
    board = torch.tensor([[0, 255] * 8, [255, 0] * 8] * 8, dtype=torch.uint8).view(1, 1, 16, 16)
    small = resized(board, 4)[0, 0].float()
    assert (small - 127.5).abs().max() < 12  # without blurring, single pixels would shine through


def test_colour_becomes_gray_by_luminance() -> None:
    x = torch.randint(0, 256, (5, 3, 2, 2), dtype=torch.uint8)
    expected = np.tensordot([0.299, 0.587, 0.114], x.numpy().astype(np.float64), (0, 1))
    got = recoloured(x, 1)[:, 0].numpy()
    np.testing.assert_allclose(got, expected, atol=0.51)


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.5, 0.99])
def test_divisions_are_disjoint_complete_and_stratified(fraction: float) -> None:
    labels = np.repeat(np.arange(4), [2, 10, 50, 200])
    stay, held = hold_out(labels, fraction, seed=3)
    assert sorted([*stay, *held]) == list(range(len(labels)))
    for label, count in enumerate([2, 10, 50, 200]):
        expected = min(max(1, round(fraction * count)), count - 1)
        assert (labels[held] == label).sum() == expected


def test_a_class_of_one_cannot_be_divided() -> None:
    with pytest.raises(DataError, match="class 1 has 1"):
        hold_out(np.array([0, 0, 1]), 0.5, 0)
