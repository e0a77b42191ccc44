"""Every variation against its definition worked out in float64, and none where none is asked for."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from autosparse.data import Split
from autosparse.data.augment import Draws, coloured, draw, erased, moved
from autosparse.data.boxes import box
from autosparse.data.raw import Augmentation
from autosparse.errors import DataError

GRAY = np.array([0.299, 0.587, 0.114])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_fields_added_later_are_written_only_where_they_say_something() -> None:
    assert Augmentation(flip=True).to_json() == {"shift": 0.125, "flip": True}
    full = Augmentation(crop_area=(0.08, 1.0), contrast=0.5, erase=0.25)
    assert full.to_json() == {
        "shift": 0.125,
        "flip": False,
        "crop_area": [0.08, 1.0],
        "contrast": 0.5,
        "erase": 0.25,
    }
    assert Augmentation.from_json(full.to_json()) == full


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"crop_area": (0.0, 1.0)}, "crop_area must be"),
        ({"crop_area": (0.5, 0.1)}, "crop_area must be"),
        ({"crop_area": (0.5, 1.1)}, "crop_area must be"),
        ({"crop_ratio": (0.0, 1.0)}, "crop_ratio must be"),
        ({"crop_ratio": (2.0, 1.0)}, "crop_ratio must be"),
        ({"brightness": -0.1}, "brightness must lie in"),
        ({"saturation": 1.5}, "saturation must lie in"),
        ({"erase": math.nan}, "erase must lie in"),
    ],
)
def test_impossible_variations_are_refused(options: dict[str, object], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        Augmentation(**options)  # type: ignore[arg-type]


def test_added_variations_do_not_change_what_shift_and_flip_draw() -> None:
    plain = draw(Augmentation(flip=True), 9, 16, generator())
    more = draw(Augmentation(flip=True, contrast=0.3, erase=0.5), 9, 16, generator())
    assert plain.shift is not None and more.shift is not None
    assert plain.flip is not None and more.flip is not None
    assert torch.equal(plain.shift, more.shift) and torch.equal(plain.flip, more.flip)
    assert (plain.crop, plain.colours, plain.erase) == (None, None, None)


@pytest.mark.parametrize(("height", "width"), [(10, 10), (100, 7), (3, 200), (1, 1)])
def test_boxes_lie_in_their_image_and_have_the_area_asked_for(height: int, width: int) -> None:
    draws = np.random.default_rng(0).random((4, 2000))
    found = box(draws, (0.08, 1.0), (3 / 4, 4 / 3), height, width)
    assert (found.top >= 0).all() and (found.left >= 0).all()
    assert (found.top + found.height <= height + 1e-9).all()
    assert (found.left + found.width <= width + 1e-9).all()
    uncut = (found.height < height) & (found.width < width)
    share = (found.height * found.width / (height * width))[uncut]
    np.testing.assert_allclose(share, (0.08 + 0.92 * draws[0])[uncut])
    ratios = (found.width / found.height)[uncut]
    assert ((ratios > 0.7499) & (ratios < 1.3334)).all()


def bilinear(image: np.ndarray, top: float, left: float, height: float, width: float) -> np.ndarray:
    """Enlarges a part of (c, h, w) to the size of the whole, in float64."""
    side_y, side_x = image.shape[1:]

    def taps(start: float, length: float, side: int) -> np.ndarray:
        weights = np.zeros((side, side))
        for row in range(side):
            place = start + (row + 0.5) * length / side - 0.5
            low = math.floor(place)
            for index, weight in ((low, low + 1 - place), (low + 1, place - low)):
                weights[row, min(max(index, 0), side - 1)] += weight
        return weights

    rows, columns = taps(top, height, side_y), taps(left, width, side_x)
    return np.einsum("yi,cij,xj->cyx", rows, image.astype(np.float64), columns)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_crops_are_enlarged_bilinearly(dtype: torch.dtype) -> None:
    images = torch.randint(0, 256, (30, 3, 9, 9), generator=generator()).to(dtype)
    augmentation = Augmentation(crop_area=(0.1, 1.0))
    draws = draw(augmentation, 30, 9, generator(1))
    assert draws.shift is None and draws.crop is not None
    got = moved(images, augmentation, draws)
    assert got.dtype == dtype
    found = box(draws.crop.numpy(), (0.1, 1.0), (3 / 4, 4 / 3), 9, 9)
    for place, image in enumerate(images.numpy()):
        wanted = bilinear(image, *(float(edge[place]) for edge in found))
        atol = 0.502 if dtype == torch.uint8 else 2e-3
        np.testing.assert_allclose(got[place].numpy(), wanted, atol=atol)


def test_a_crop_of_everything_changes_nothing() -> None:
    images = torch.randint(0, 256, (5, 1, 6, 6), generator=generator()).to(torch.uint8)
    whole = Augmentation(crop_area=(1.0, 1.0), crop_ratio=(1.0, 1.0))
    assert torch.equal(moved(images, whole, draw(whole, 5, 6, generator())), images)


def jittered(image: np.ndarray, factors: np.ndarray) -> np.ndarray:
    def gray(x: np.ndarray) -> np.ndarray:
        return np.tensordot(GRAY, x, 1) if len(x) == 3 else x.mean(0)

    x = np.clip(image.astype(np.float64) * factors[0], 0, 255)
    mean = np.rint(gray(x)).mean()
    x = np.clip((x - mean) * factors[1] + mean, 0, 255)
    return np.clip((x - gray(x)) * factors[2] + gray(x), 0, 255)


@pytest.mark.parametrize("channels", [1, 3])
def test_colours_are_changed_as_defined(channels: int) -> None:
    images = torch.randint(0, 256, (40, channels, 5, 7), generator=generator()).float()
    factors = torch.rand((3, 40), generator=generator(1)) * 2
    before = images.clone()
    got = coloured(images, factors)
    assert torch.equal(images, before)
    for place, image in enumerate(images.numpy()):
        wanted = jittered(image, factors[:, place].numpy().astype(np.float64))
        # a gray value near a half may be rounded to either side: one level of 35 pixels
        np.testing.assert_allclose(got[place].numpy(), wanted, atol=0.06)


def test_colours_without_a_change_stay() -> None:
    images = torch.randint(0, 256, (4, 3, 5, 5), generator=generator()).float()
    torch.testing.assert_close(coloured(images, torch.ones(3, 4)), images, rtol=0, atol=1e-4)


def test_factors_are_drawn_within_their_ranges() -> None:
    draws = draw(Augmentation(brightness=0.4, saturation=1.0), 4000, 8, generator())
    assert draws.colours is not None
    for factors, spread in zip(draws.colours, (0.4, 0.0, 1.0), strict=True):
        assert 1 - spread <= factors.min() <= 1 - 0.99 * spread
        assert 1 + 0.99 * spread <= factors.max() <= 1 + spread


def test_rectangles_are_erased_in_the_share_of_images_asked_for() -> None:
    draws = draw(Augmentation(erase=0.25), 2000, 20, generator())
    assert draws.erase is not None
    images = erased(torch.ones(2000, 2, 20, 20), draws.erase, 0.25)
    gone = images == 0
    hit = gone.flatten(1).any(1)
    assert hit.tolist() == (draws.erase[0] < 0.25).tolist()
    assert 0.2 < hit.float().mean() < 0.3
    for mask in gone[hit].numpy():
        rows, columns = (np.flatnonzero(mask[0].any(axis)) for axis in (1, 0))
        area = mask[0].sum()
        assert area == len(rows) * len(columns)  # a full rectangle
        assert np.ptp(rows) == len(rows) - 1 and np.ptp(columns) == len(columns) - 1
        assert 0.01 * 400 <= area <= 0.4 * 400
        assert (mask[0] == mask[1]).all()


def test_a_batch_is_finished_in_the_order_that_is_told() -> None:
    augmentation = Augmentation(shift=0.0, brightness=1.0, erase=1.0)
    images = torch.full((50, 3, 8, 8), 100, dtype=torch.uint8)
    split = Split(images, torch.arange(50), mean=(0.5,) * 3, std=(0.25,) * 3, augmentation=augmentation)
    ((varied, _),) = split.batches(50, shuffle_seed=0, augment=True)
    gone = varied == 0
    assert gone.flatten(1).any(1).all()
    for image, mask in zip(varied, gone, strict=True):
        assert image[~mask].unique().numel() == 1  # brightness alone changes the others, all alike
    ((plain, _),) = split.batches(50, shuffle_seed=0)
    assert plain.unique().numel() == 1


def test_colours_of_floats_are_refused() -> None:
    with pytest.raises(DataError, match="must be changed on uint8 images"):
        Split(
            torch.zeros(2, 3, 4, 4),
            torch.arange(2),
            mean=(0.0,) * 3,
            std=(1.0,) * 3,
            augmentation=Augmentation(contrast=0.1),
        )


def test_draws_of_a_part_are_those_of_its_images() -> None:
    full = Augmentation(flip=True, crop_area=(0.1, 1.0), brightness=0.1, erase=0.1)
    draws = draw(full, 10, 8, generator())
    part = draws.of(slice(3, 7))
    assert part.shift is None
    for name in ("flip", "crop", "colours", "erase"):
        assert torch.equal(getattr(part, name), getattr(draws, name)[..., 3:7])
    assert isinstance(part, Draws)
