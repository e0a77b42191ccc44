"""Folders of images: divided the same way in every run, cropped, damaged files named."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from autosparse.data import check_source, resolve
from autosparse.errors import DataError, MissingDependency, Stopped
from autosparse.progress import Progress, ProgressEvent


def fill(
    folder: Path, counts: dict[str, int], size: tuple[int, int] = (12, 9), suffix: str = "png"
) -> Path:
    random = np.random.default_rng(len(str(folder)))
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = random.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index:03}.{suffix}")
    return folder


def test_class_folders_alone_are_divided_the_same_way_always(tmp_path: Path) -> None:
    folder = fill(tmp_path / "set", {"cat": 20, "dog": 10})
    check_source(f"imagefolder:{folder}")
    data = resolve(f"imagefolder:{folder}", resolution=8)
    assert (len(data.train), len(data.validation), len(data.test)) == (21, 3, 6)
    assert np.bincount(data.test.labels).tolist() == [4, 2]
    other = resolve(f"imagefolder:{folder}", resolution=8, seed=1)
    assert torch.equal(other.test.images, data.test.images)
    assert not torch.equal(other.validation.images, data.validation.images)
    assert (data.classes, data.resolution, data.channels) == (2, 8, 3)


@pytest.mark.parametrize(
    ("parts", "sizes"),
    [
        (("train", "test"), (18, 2, 10)),
        (("train", "val"), (18, 2, 10)),
        (("train", "validation", "test"), (20, 10, 10)),
    ],
)
def test_named_parts_are_kept(
    parts: tuple[str, ...], sizes: tuple[int, int, int], tmp_path: Path
) -> None:
    for part in parts:
        per_class = 10 if part == "train" else 5
        fill(tmp_path / "set" / part, {"cat": per_class, "dog": per_class})
    data = resolve(f"imagefolder:{tmp_path / 'set'}", resolution=4)
    assert (len(data.train), len(data.validation), len(data.test)) == sizes


def test_parts_are_stored_in_a_mixed_order(tmp_path: Path) -> None:
    for part in ("train", "test"):
        fill(tmp_path / part, {"cat": 12, "dog": 12})
    data = resolve(f"imagefolder:{tmp_path}", resolution=4)
    for split in (data.train, data.test):
        assert set(split.labels[:8].tolist()) == {0, 1}


@pytest.mark.parametrize("size", [(16, 8), (8, 16), (8, 8)])
def test_the_centre_is_kept(size: tuple[int, int], tmp_path: Path) -> None:
    fill(tmp_path, {"cat": 4, "dog": 4}, size)
    data = resolve(f"imagefolder:{tmp_path}", resolution=8)
    left, top = (size[0] - 8) // 2, (size[1] - 8) // 2
    cropped = {
        np.asarray(Image.open(f).crop((left, top, left + 8, top + 8))).transpose(2, 0, 1).tobytes()
        for f in tmp_path.rglob("*.png")
    }
    splits = (data.train, data.validation, data.test)
    with_all = {image.numpy().tobytes() for split in splits for image in split.images}
    assert with_all <= cropped


def test_gray_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    fill(tmp_path, {"cat": 3, "dog": 3})
    Image.new("L", (9, 9), 77).save(tmp_path / "cat" / "gray.png")
    Image.new("RGBA", (9, 9), (1, 2, 3, 0)).save(tmp_path / "dog" / "clear.png")
    data = resolve(f"imagefolder:{tmp_path}", resolution=5)
    assert data.test.images.shape[1:] == (3, 5, 5)


def test_the_resolution_is_224_unless_told(tmp_path: Path) -> None:
    fill(tmp_path, {"cat": 3, "dog": 3})
    assert resolve(f"imagefolder:{tmp_path}").test.images.shape[2:] == (224, 224)


def test_a_damaged_image_is_left_out_and_named(tmp_path: Path) -> None:
    fill(tmp_path, {"cat": 5, "dog": 5}, suffix="jpg")
    path = tmp_path / "dog" / "001.jpg"
    path.write_bytes(path.read_bytes()[:300])
    events: list[ProgressEvent] = []
    data = resolve(f"imagefolder:{tmp_path}", resolution=4, progress=Progress(events.append))
    assert len(data.train) + len(data.validation) + len(data.test) == 9
    (told,) = [event.message for event in events if event.kind == "log"]
    assert "dog/001.jpg is left out" in told


def test_too_many_damaged_images_are_refused(tmp_path: Path) -> None:
    fill(tmp_path, {"cat": 20, "dog": 20})
    for path in sorted((tmp_path / "dog").iterdir())[:10]:
        path.write_bytes(path.read_bytes()[:40])
    resolve(f"imagefolder:{tmp_path}", resolution=4)
    (tmp_path / "cat" / "003.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"at most 10 may be unusable, but 11 are, .*\.png"):
        resolve(f"imagefolder:{tmp_path}", resolution=4)


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        ({"set/cat": 2}, "at least two class folders"),
        ({"set/cat": 2, "set/dog": 0}, "dog has none"),
        ({"set/train/cat": 2, "set/train/dog": 2}, "val or test"),
        (
            {"set/train/cat": 2, "set/train/dog": 2, "set/test/cat": 2, "set/test/cow": 2},
            "has 'cow'",
        ),
    ],
)
def test_impossible_layouts_are_refused(build: dict[str, int], reason: str, tmp_path: Path) -> None:
    fill(tmp_path, build)
    with pytest.raises(DataError, match=reason):
        check_source(f"imagefolder:{tmp_path / 'set'}")


def test_absent_pillow_is_named_with_the_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, {"cat": 2, "dog": 2})
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="pip install pillow"):
        check_source(f"imagefolder:{tmp_path}")


def test_reading_reports_and_can_be_stopped(tmp_path: Path) -> None:
    fill(tmp_path, {"cat": 4, "dog": 4})
    events: list[ProgressEvent] = []
    resolve(f"imagefolder:{tmp_path}", resolution=4, progress=Progress(events.append))
    assert [e.done for e in events if e.kind == "advance"][-1] == 8
    with pytest.raises(Stopped):
        stopping = Progress(should_stop=lambda: True)
        resolve(f"imagefolder:{tmp_path}", resolution=4, progress=stopping)
