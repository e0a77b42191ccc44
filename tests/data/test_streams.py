"""Images that stay in their files: the batches of those in memory, whoever decodes them."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image

from autosparse.data import ImageData, StreamedSplit, resolve
from autosparse.data.kinds import imagefolder
from autosparse.data.raw import Augmentation
from autosparse.data.samples import Samples
from autosparse.errors import DataError
from autosparse.progress import Progress, ProgressEvent

CROPS = Augmentation(
    crop_area=(0.08, 1.0), flip=True, brightness=0.4, contrast=0.4, saturation=0.4, erase=0.5
)
Batches = list[tuple[torch.Tensor, torch.Tensor]]


def picture(seed: int, size: tuple[int, int] = (13, 10)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3))
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """41 images of many formats and modes to train on, and 7 to test on."""
    for part, count in (("train", 41), ("test", 7)):
        for number in range(count):
            name = tmp_path / "set" / part / ("猫", "dög")[number % 2] / f"bild-{number:02}-é"
            name.parent.mkdir(parents=True, exist_ok=True)
            saved(picture(number + (100 if part == "test" else 0)), name, number)
    return tmp_path / "set"


def saved(image: Image.Image, name: Path, number: int) -> None:
    match number % 6:
        case 0:
            image.save(name.with_suffix(".jpg"), quality=90)
        case 1:
            image.convert("L").save(name.with_suffix(".png"))
        case 2:
            image.convert("P").save(name.with_suffix(".png"))
        case 3:
            wide = np.asarray(image.convert("L")).astype(np.uint16) * 257
            Image.fromarray(wide).save(name.with_suffix(".png"))
        case 4:
            image.convert("CMYK").save(name.with_suffix(".jpg"))
        case 5:
            exif = Image.Exif()
            exif[0x0112] = 6
            image.save(name.with_suffix(".jpg"), exif=exif)


def streamed(folder: Path, **options: object) -> ImageData:
    return resolve(f"imagefolder-stream:{folder}", resolution=8, **options)  # type: ignore[arg-type]


def same(left: Batches, right: Batches) -> bool:
    return len(left) == len(right) and all(
        torch.equal(a, b) and torch.equal(m, n) for (a, m), (b, n) in zip(left, right, strict=True)
    )


@pytest.mark.smoke
@pytest.mark.parametrize("channels", [3, 1])
def test_a_stream_hands_out_what_memory_does(folder: Path, channels: int) -> None:
    memory = resolve(f"imagefolder:{folder}", resolution=8, channels=channels)
    stream = streamed(folder, channels=channels, workers=0)
    assert (stream.classes, stream.mean, stream.resolution) == (2, memory.mean, 8)
    for one, other in ((stream.validation, memory.validation), (stream.test, memory.test)):
        assert len(one) == len(other)
        assert same(list(one.batches(3)), list(other.batches(3)))
    asked = {"shuffle_seed": 4, "augment": True}
    assert same(list(stream.train.batches(5, **asked)), list(memory.train.batches(5, **asked)))


def test_class_folders_alone_are_divided_as_in_memory(folder: Path) -> None:
    memory = resolve(f"imagefolder:{folder / 'train'}", resolution=8)
    stream = streamed(folder / "train", workers=0)
    for part in ("train", "validation", "test"):
        left, right = getattr(stream, part), getattr(memory, part)
        assert same(list(left.batches(6)), list(right.batches(6)))


def test_a_margin_is_kept_around_the_centre(folder: Path) -> None:
    memory = resolve(f"imagefolder:{folder}", resolution=8, margin=1.25)
    stream = streamed(folder, margin=1.25, workers=0)
    plain = streamed(folder, workers=0)
    assert same(list(stream.test.batches(3)), list(memory.test.batches(3)))
    assert not same(list(stream.test.batches(3)), list(plain.test.batches(3)))
    assert stream.id != plain.id


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_processes_changes_no_bit(folder: Path, workers: int) -> None:
    asked = {"shuffle_seed": 9, "augment": True, "drop_last": True}
    alone = streamed(folder, augmentation=CROPS, workers=0).train
    helped = streamed(folder, augmentation=CROPS, workers=workers).train
    whole = list(alone.batches(4, **asked))
    assert same(whole, list(helped.batches(4, **asked)))
    for first in (0, 3, 8, 9):
        assert same(whole[first:], list(helped.batches(4, first_batch=first, **asked)))
    assert not same(whole, list(helped.batches(4, **(asked | {"shuffle_seed": 10}))))
    assert isinstance(helped, StreamedSplit)
    helped.close()


def test_processes_outlive_a_pass_that_is_broken_off(folder: Path) -> None:
    split = streamed(folder, workers=2).train
    assert isinstance(split, StreamedSplit)
    others = children()
    whole = list(split.batches(3))
    crew = children() - others
    assert len(crew) == 2
    assert same(list(itertools.islice(split.batches(3), 2)), whole[:2])
    assert same(list(split.batches(3)), whole)
    assert children() - others == crew
    split.close()
    assert not crew & children()


def children() -> set[int]:
    return {child.pid for child in psutil.Process().children()}


def test_two_passes_at_once_do_not_disturb_each_other(folder: Path) -> None:
    split = streamed(folder, workers=1).train
    assert isinstance(split, StreamedSplit)
    pairs = list(zip(split.batches(4), split.batches(4, shuffle_seed=1), strict=True))
    assert same([left for left, _ in pairs], list(split.batches(4)))
    assert same([right for _, right in pairs], list(split.batches(4, shuffle_seed=1)))
    split.close()


def test_the_random_numbers_of_training_are_left_alone(folder: Path) -> None:
    split = streamed(folder, workers=1).train
    torch.manual_seed(0)
    before = torch.get_rng_state()
    for seed in (1, 2):
        list(split.batches(8, shuffle_seed=seed, augment=True))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_damaged_image_is_replaced_the_same_way_and_told_once(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sound = streamed(folder, workers=0).test
    rows, labels = (torch.cat(list(part)) for part in zip(*sound.batches(3), strict=True))
    bad = Path(sound.samples.name(6))  # type: ignore[attr-defined]
    bad.write_bytes(b"no picture")
    caplog.set_level(logging.WARNING, "autosparse")
    for workers in (0, 2):
        caplog.clear()
        split = streamed(folder, workers=workers).test
        for _ in range(2):
            again, given = (torch.cat(list(part)) for part in zip(*split.batches(3), strict=True))
            assert torch.equal(again, torch.cat([rows[:6], rows[:1]]))
            assert given.tolist() == [*labels[:6].tolist(), int(labels[0])]
        (told,) = [record.getMessage() for record in caplog.records]
        assert told.startswith(f"{bad} is left out")


def test_too_many_damaged_images_end_the_pass(folder: Path) -> None:
    stream = streamed(folder, workers=0)
    for file in sorted((folder / "train").rglob("*-é*"))[:20]:
        file.write_bytes(file.read_bytes()[:50])
    with pytest.raises(DataError, match=r"at most 10 may be unusable, but 11 are, first .*bild"):
        list(stream.train.batches(41))


def test_a_split_without_one_sound_image_ends_at_once(folder: Path) -> None:
    stream = streamed(folder, workers=0)
    for file in (folder / "test").rglob("*-é*"):
        file.unlink()
    with pytest.raises(DataError, match=r"at most 6 may be unusable, but 7 are.*No such file"):
        next(stream.test.batches(1))


def test_no_more_files_are_opened_than_a_batch_has(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    read = Samples.read
    monkeypatch.setattr(Samples, "read", lambda self, row: opened.append(row) or read(self, row))
    split = streamed(folder, workers=0).train
    assert opened == []
    batches = split.batches(4, shuffle_seed=0)
    for taken in (4, 8):
        next(batches)
        assert len(opened) == taken
    assert not any(
        isinstance(value, torch.Tensor) and value.numel() > len(split) for value in vars(split).values()
    )


def test_what_does_not_fit_into_memory_is_streamed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    needed = 48 * 3 * 8 * 8
    events: list[ProgressEvent] = []

    def free(size: int) -> Callable[[], object]:
        return lambda: type("Memory", (), {"available": size})

    for available, fits in ((2 * needed, True), (2 * needed - 1, False)):
        monkeypatch.setattr(imagefolder.psutil, "virtual_memory", free(available))
        progress = Progress(events.append)
        data = resolve(f"imagefolder:{folder}", resolution=8, progress=progress, workers=0)
        assert isinstance(data.train, StreamedSplit) is not fits
    assert next(e.message for e in events if e.kind == "log").startswith("48 images of 8x8 need")
    assert data.id == streamed(folder).id


def test_the_id_is_of_names_sizes_and_options_and_not_of_the_place(
    folder: Path, tmp_path: Path
) -> None:
    first = streamed(folder)
    moved = folder.rename(tmp_path / "elsewhere")
    assert streamed(moved).id == first.id
    assert streamed(moved, seed=1).id != first.id
    assert streamed(moved, augmentation=CROPS).id != first.id
    next((moved / "test").rglob("*.png")).unlink()
    assert streamed(moved).id != first.id


def test_a_class_of_one_image_trains_where_nothing_is_held_out(folder: Path) -> None:
    for part in ("train", "test"):
        (folder / part / "one").mkdir()
        picture(1).save(folder / part / "one" / "0.png")
    with pytest.raises(DataError, match="at least 2 training examples"):
        streamed(folder)
    (folder / "val").symlink_to(folder / "test")
    data = streamed(folder, workers=0)
    labels = torch.cat([labels for _, labels in data.train.batches(8)])
    assert (data.classes, int((labels == 1).sum())) == (3, 1)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"workers": -1}, "workers must be at least 0"),
        ({"margin": 0.5}, "margin must be at least 1"),
        ({"margin": float("nan")}, "margin must be at least 1"),
        ({"channels": 4}, "3 channels and cannot be given with 4"),
    ],
)
def test_impossible_options_are_refused(folder: Path, options: dict[str, float], reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        streamed(folder, **options)
