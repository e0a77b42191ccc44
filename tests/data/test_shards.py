"""Tar shards: indexed once, read in any order, faults named."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from autosparse.data import ImageData, check_source, resolve, shard_index
from autosparse.errors import DataError, MissingDependency
from autosparse.progress import Progress, ProgressEvent

Members = list[tuple[str, bytes]]


def pixels(value: int) -> bytes:
    stream = io.BytesIO()
    grid = (np.indices((9, 7)).sum(0) * 5 + value) % 256
    Image.fromarray(np.stack([grid] * 3, 2).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def sample(key: str, value: int, label: int) -> Members:
    return [(f"{key}.png", pixels(value)), (f"{key}.cls", str(label).encode())]


def write(path: Path, members: Members, kind: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=kind) as shard:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            shard.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two shards of 12 images to train on, and one of 5 to test on; image k is of class k % 3."""
    monkeypatch.setenv("AUTOSPARSE_HOME", str(tmp_path / "home"))
    for shard in range(2):
        numbers = range(12 * shard, 12 * shard + 12)
        members = [m for k in numbers for m in sample(f"bilder/{k:03}-é猫", 10 * k + 1, k % 3)]
        write(tmp_path / "set" / f"train-{shard:04}.tar", members)
    members = [m for k in range(5) for m in sample(f"{k}", 10 * k + 2, k % 3)]
    write(tmp_path / "set" / "val-0000.tar", members, tarfile.GNU_FORMAT)
    return tmp_path / "set"


def loaded(folder: Path, **options: object) -> ImageData:
    return resolve(f"shards:{folder}", resolution=7, workers=0, **options)  # type: ignore[arg-type]


def logged(folder: Path) -> list[str]:
    events: list[ProgressEvent] = []
    loaded(folder, progress=Progress(events.append))
    return [event.message for event in events if event.kind == "log"]


@pytest.mark.smoke
def test_every_sample_is_read_with_its_own_label(folder: Path) -> None:
    check_source(f"shards:{folder}")
    data = loaded(folder)
    assert (len(data.train), len(data.validation), len(data.test), data.classes) == (21, 3, 5, 3)
    seen = set()
    for split in (data.train, data.validation):
        for images, labels in split.batches(4, shuffle_seed=1):
            corner = (images[:, 0, 0, 0] * data.std[0] + data.mean[0]) * 255
            numbers = ((corner.round() - 5) % 256).to(torch.int64)  # one row of 9 is cut off the top
            found = [next(k for k in range(24) if (10 * k + 1) % 256 == n) for n in numbers.tolist()]
            assert labels.tolist() == [k % 3 for k in found]
            seen |= set(found)
    assert seen == set(range(24))


def test_parts_begin_with_a_mixture(folder: Path) -> None:
    members = [m for k in range(40) for m in sample(str(k), k, k // 20)]
    write(folder / "val-0000.tar", members)
    assert set(loaded(folder).test.labels[:10].tolist()) == {0, 1}


def test_a_named_validation_part_is_kept(folder: Path) -> None:
    write(folder / "test-0.tar", sample("a", 1, 0) + sample("b", 50, 1))
    data = loaded(folder)
    assert (len(data.train), len(data.validation), len(data.test)) == (24, 5, 2)


def test_the_index_is_made_once_and_again_when_a_shard_changes(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = loaded(folder)
    scans: list[int] = []
    scan = shard_index._scan
    monkeypatch.setattr(shard_index, "_scan", lambda *a: scans.append(a[1]) or scan(*a))
    again = loaded(folder)
    assert (again.id, scans) == (first.id, [])
    assert torch.equal(next(again.test.batches(5))[0], next(first.test.batches(5))[0])
    write(folder / "val-0000.tar", sample("a", 3, 2))
    assert len(loaded(folder).test) == 1
    assert scans == [0]
    kept = list((folder.parent / "home" / "shards").iterdir())
    for file in kept:
        file.write_bytes(file.read_bytes()[:100])
    assert len(loaded(folder).test) == 1
    assert scans == [0, 0, 1, 0]
    assert sorted(os.listdir(folder)) == ["train-0000.tar", "train-0001.tar", "val-0000.tar"]


def test_labels_may_be_json_and_other_members_are_passed_over(folder: Path) -> None:
    members: Members = [("readme.txt", b"hello"), ("x/", b"")]
    for key, label in (("a", 2), ("b", 0)):
        members += [
            (f"{key}.json", json.dumps({"label": label, "text": "é"}).encode()),
            (f"{key}.seg.png", pixels(9)),
            (f"{key}.PNG", pixels(4)),
            (f"{key}.txt", b"a caption"),
        ]
    write(folder / "val-0000.tar", members)
    assert sorted(loaded(folder).test.labels.tolist()) == [0, 2]


@pytest.mark.parametrize(
    ("label", "told"),
    [
        (b"cat", "is missing or no whole number"),
        (b"-1", "is missing or no whole number"),
        (b"1.5", "is missing or no whole number"),
        (b"\xff\xfe", "is missing or no whole number"),
        (b"", "is missing or no whole number"),
        (b"3", "must lie in 0..2, but is 3"),
        (None, "is missing or no whole number"),
    ],
)
def test_a_sample_with_a_bad_label_is_left_out(folder: Path, label: bytes | None, told: str) -> None:
    members = [m for k in range(5) for m in sample(str(k), k, k % 3)]
    members.append(("bad.png", pixels(1)))
    if label is not None:
        members.append(("bad.cls", label))
    write(folder / "val-0000.tar", members)
    (message,) = logged(folder)
    assert "val-0000.tar: bad.png is left out" in message
    assert told in message
    assert len(loaded(folder).test) == 5


@pytest.mark.parametrize(
    "label", ["[1]", '{"label": true}', '{"label": "1"}', '{"class": 1}', "{", "[" * 9999]
)
def test_json_without_a_whole_label_is_a_bad_label(folder: Path, label: str) -> None:
    members = [*sample("a", 1, 1), ("bad.png", pixels(1)), ("bad.json", label.encode())]
    write(folder / "val-0000.tar", members)
    assert len(logged(folder)) == 1


def test_many_bad_labels_are_refused(folder: Path) -> None:
    members = [m for k in range(30) for m in sample(str(k), k, 0 if k > 10 else 7)]
    write(folder / "val-0000.tar", members)
    with pytest.raises(
        DataError, match=r"of the 30 images of the test shards .* 10 may .* 11 are.*but is 7"
    ):
        loaded(folder)


def test_one_absurd_label_makes_no_classes(folder: Path) -> None:
    members = [m for k in range(24) for m in sample(str(k), k, k % 3)] + sample("absurd", 1, 10**9)
    write(folder / "train-0000.tar", members)
    assert loaded(folder).classes == 3


def test_classes_may_be_told(folder: Path) -> None:
    (folder / "classes.txt").write_text("cat\ndog\ncow\nhen\n\n")
    assert loaded(folder).classes == 4
    (folder / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(DataError, match="train shards"):  # eight images of class 2 and few more
        write(folder / "train-0002.tar", [m for k in range(9) for m in sample(str(k), k, 2)])
        loaded(folder)


@pytest.mark.parametrize("left", [10_000, 512 * 9, 512 * 9 + 100, 600, 512, 100, 0])
def test_a_truncated_shard_is_named(folder: Path, left: int) -> None:
    path = folder / "train-0001.tar"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(DataError, match=r"train-0001\.tar is damaged, truncated"):
        loaded(folder)


def test_a_shard_without_its_end_mark_is_named(folder: Path) -> None:
    path = folder / "train-0001.tar"
    path.write_bytes(path.read_bytes().rstrip(b"\0") + bytes(512 - 1))
    with pytest.raises(DataError, match=r"train-0001\.tar is damaged.*no end mark"):
        loaded(folder)


def test_damage_amid_a_shard_is_named(folder: Path) -> None:
    path = folder / "train-0001.tar"
    content = bytearray(path.read_bytes())
    header = content.index(b"bilder/015-?")
    content[header + 148 : header + 156] = b"7777777\0"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"train-0001\.tar is damaged"):
        loaded(folder)


def test_a_compressed_shard_is_refused_at_once(folder: Path) -> None:
    with tarfile.open(folder / "train-0001.tar", "w:gz") as shard:
        shard.add(folder / "val-0000.tar", "x.png")
    with pytest.raises(DataError, match=r"uncompressed, but .*train-0001\.tar"):
        check_source(f"shards:{folder}")


def test_a_damaged_image_is_replaced(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    members = [m for k in range(4) for m in sample(str(k), k, k % 3)]
    write(folder / "val-0000.tar", [*members, ("bad.jpg", b"\xff\xd8\xff"), ("bad.cls", b"1")])
    images, _ = next(loaded(folder).test.batches(5))
    assert len({image.numpy().tobytes() for image in images}) == 4
    assert "val-0000.tar: bad.jpg is left out" in caplog.text


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["val-0.tar"], "has no train"),
        (["train-0.tar"], "has train-\\*.tar alone"),
        (["train-0.tar", "other-0.tar", "val-0.tgz"], "alone"),
        ([], "has no train"),
    ],
)
def test_impossible_layouts_are_refused(tmp_path: Path, names: list[str], reason: str) -> None:
    for name in names:
        write(tmp_path / name, sample("a", 1, 0))
    with pytest.raises(DataError, match=reason):
        check_source(f"shards:{tmp_path}")


def test_shards_without_images_or_of_one_class_are_refused(folder: Path) -> None:
    write(folder / "val-0000.tar", [("a.txt", b"x")])
    with pytest.raises(DataError, match=r"test shards .* must hold images"):
        loaded(folder)
    write(folder / "val-0000.tar", sample("a", 1, 0))
    for shard in range(2):
        members = [m for k in range(3) for m in sample(str(k), k, 0)]
        write(folder / f"train-{shard:04}.tar", members)
    with pytest.raises(DataError, match="at least two classes, but all 6 are of class 0"):
        loaded(folder)


def test_absent_pillow_is_named_with_the_remedy(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match=r"shards needs Pillow.*pip install pillow"):
        check_source(f"shards:{folder}")
