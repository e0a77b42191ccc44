"""Batches shared by several processes, and handed out on a device, of both kinds of split."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from autosparse.data import AnySplit, Split, resolve
from autosparse.data.raw import Augmentation
from autosparse.errors import DataError

VARIED = Augmentation(
    crop_area=(0.2, 1.0), flip=True, brightness=0.4, contrast=0.4, saturation=0.4, erase=0.5
)
COUNT = 23


@pytest.fixture(scope="module", params=["memory", "moved", "stream"])
def split(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AnySplit:
    """23 images, in memory with crops or with shifts, or in files."""
    random = np.random.default_rng(3)
    if request.param != "stream":
        images = torch.from_numpy(random.integers(0, 256, (COUNT, 3, 9, 9)).astype(np.uint8))
        moved = Augmentation(flip=True, erase=0.5)
        augmentation = VARIED if request.param == "memory" else moved
        labels = torch.arange(COUNT)
        mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
        return Split(images, labels, mean=mean, std=std, augmentation=augmentation)
    folder = tmp_path_factory.mktemp("images")
    for part, count in (("train", COUNT), ("val", 4), ("test", 4)):
        for number in range(count):
            name = folder / part / "ab"[number % 2] / f"{number}.png"
            name.parent.mkdir(parents=True, exist_ok=True)
            pixels = random.integers(0, 256, (12, 10, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(name)
    spec = f"imagefolder-stream:{folder}"
    return resolve(spec, resolution=9, augmentation=VARIED, workers=0).train


@pytest.mark.smoke
@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 7},
        {"batch_size": 6, "shuffle_seed": 4},
        {"batch_size": 7, "shuffle_seed": 4, "augment": True},
        {"batch_size": 4, "shuffle_seed": 2, "augment": True, "drop_last": True},
        {"batch_size": 11, "shuffle_seed": 2, "augment": True, "first_batch": 1},
        {"batch_size": 2, "shuffle_seed": 2, "augment": True, "limit": 9},
    ],
)
def test_the_shares_of_all_ranks_are_the_batch_of_one(
    split: AnySplit, world: int, options: dict[str, int]
) -> None:
    whole = list(split.batches(**options))  # type: ignore[arg-type]
    ranks = [list(split.batches(**options, shard=(rank, world))) for rank in range(world)]  # type: ignore[arg-type]
    assert {len(shares) for shares in ranks} == {len(whole)}
    for batch, *shares in zip(whole, *ranks, strict=True):
        sizes = [len(labels) for _, labels in shares]
        assert max(sizes) - min(sizes) <= 1
        assert torch.equal(torch.cat([images for images, _ in shares]), batch[0])
        assert torch.equal(torch.cat([labels for _, labels in shares]), batch[1])


def test_a_share_of_a_small_last_batch_may_be_empty(split: AnySplit) -> None:
    asked = {"shuffle_seed": 1, "augment": True}
    shares = [list(split.batches(11, shard=(rank, 3), **asked)) for rank in range(3)]  # type: ignore[arg-type]
    assert [[len(labels) for _, labels in share] for share in shares] == [
        [3, 3, 0],
        [4, 4, 0],
        [4, 4, 1],
    ]
    assert shares[0][2][0].shape == (0, 3, 9, 9)


@pytest.mark.parametrize("shard", [(1, 1), (-1, 2), (0, 0), (2, 2)])
def test_impossible_shards_are_refused(split: AnySplit, shard: tuple[int, int]) -> None:
    with pytest.raises(DataError, match="shard must be a rank"):
        split.batches(4, shard=shard)


def test_batches_before_the_first_are_refused(split: AnySplit) -> None:
    with pytest.raises(DataError, match="first_batch must be at least 0, but got -1"):
        split.batches(4, first_batch=-1)


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")])
def test_batches_on_a_device_are_the_same(split: AnySplit, device: str) -> None:
    asked = {"shuffle_seed": 8, "augment": True}
    plain = list(split.batches(5, **asked))  # type: ignore[arg-type]
    for source in (split, split.resident(device)):
        moved = list(source.batches(5, device=device, **asked))  # type: ignore[arg-type]
        for (images, labels), (other, given) in zip(plain, moved, strict=True):
            assert torch.equal(images, other)
            assert torch.equal(labels, given)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_batches_on_a_gpu_are_those_of_the_processor(split: AnySplit) -> None:
    asked = {"shuffle_seed": 8, "augment": True}
    plain = list(split.batches(5, **asked))  # type: ignore[arg-type]
    for source in (split, split.resident("cuda:0")):
        moved = list(source.batches(5, device="cuda:0", **asked))  # type: ignore[arg-type]
        for (images, labels), (other, given) in zip(plain, moved, strict=True):
            assert (other.device.type, given.device.type) == ("cuda", "cuda")
            torch.testing.assert_close(other.cpu(), images, rtol=0, atol=0.05)  # one level of 255
            assert torch.equal(labels, given.cpu())


def test_a_resident_copy_is_made_once_and_elsewhere_only() -> None:
    split = Split(torch.zeros(2, 1, 3, 3), torch.arange(2), mean=(0.0,), std=(1.0,))
    assert split.resident("cpu") is split
    copy = split.resident("meta")
    assert (copy.images.device.type, copy.labels.device.type) == ("meta", "meta")
    assert copy.resident("meta") is copy
