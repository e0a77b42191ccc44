"""Image files in one folder per class.

Below the named folder there are either the class folders themselves, of which one fifth of the images,
the same in every run, becomes the test part; or ``train`` and ``val`` and/or ``test`` above them. With
``train`` and only one other, that other is the test part and validation is held out of ``train``.
Images are turned upright, scaled so that their shorter side fits, cropped at the centre, and kept as
bytes; `pictures.to_bytes` says what becomes of bit depths and colour modes.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import psutil

from autosparse.data import pictures
from autosparse.data.raw import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Augmentation,
    Kind,
    RawData,
    RawSplit,
    ReadRequest,
    hold_out,
)
from autosparse.errors import DataError, MissingDependency
from autosparse.progress import Progress
from autosparse.storage.files import opened
from autosparse.units import format_bytes

_SUFFIXES = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
_RESOLUTION = 224
_TEST_FRACTION = 0.2
_TEST_SEED = 224  # fixed: the test part must not depend on a run's seed
_TRAIN, _VALIDATION, _TEST = ("train",), ("val", "valid", "validation"), ("test",)

_Listing = list[tuple[Path, int]]


def _check(path: Path | None) -> None:
    assert path is not None
    if importlib.util.find_spec("PIL") is None:
        raise MissingDependency(
            "imagefolder needs Pillow, which is not installed; run: pip install pillow"
        )
    folders = _parts(path)
    classes = _class_names(folders.get("train", path))
    for name, folder in folders.items():
        strangers = sorted(set(_class_names(folder)) - set(classes))
        if strangers:
            raise DataError(
                f"{folder} must have no class that {folders['train']} lacks, but has {strangers[0]!r} "
                f"in {name}; name the class folders alike"
            )
    for folder in folders.values() or (path,):
        for name in _class_names(folder):
            if not any(_is_image(file) for file in (folder / name).iterdir()):
                raise DataError(f"a class folder must hold images, but {folder / name} has none")


def _read(request: ReadRequest) -> RawData:
    path = request.folder
    _check(path)
    folders = _parts(path)
    side = request.resolution or _RESOLUTION
    classes = _class_names(folders.get("train", path))
    listings = {name: _listing(folder, classes) for name, folder in (folders or {"": path}).items()}
    _check_memory(sum(len(listing) for listing in listings.values()), side)
    read = {n: _images(listing, side, request.progress) for n, listing in listings.items()}
    if not folders:
        rows, test = hold_out(read[""].labels, _TEST_FRACTION, _TEST_SEED)
        read = {"train": read[""].take(rows), "test": read[""].take(test)}
    return RawData(
        train=read["train"],
        validation=read.get("validation"),
        test=read["test"],
        classes=len(classes),
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        augmentation=Augmentation(flip=True),
    )


def _parts(path: Path) -> dict[str, Path]:
    """Gives the folders of the parts by name; none if class folders come first."""
    found = {
        part: path / name
        for part, spellings in (("train", _TRAIN), ("validation", _VALIDATION), ("test", _TEST))
        for name in spellings
        if os.path.isdir(path / name)
    }
    if "train" not in found:
        return {}
    if len(found) == 1:
        raise DataError(f"{path} has train, so it must also have val or test, but it has neither")
    if "test" not in found:  # the part that training has never seen reports, and does not decide
        found["test"] = found.pop("validation")
    return found


def _class_names(folder: Path) -> tuple[str, ...]:
    names = sorted(f.name for f in folder.iterdir() if os.path.isdir(f) and not f.name.startswith("."))
    if len(names) < 2:
        raise DataError(
            f"imagefolder must have at least two class folders, but {folder} has {len(names)}"
        )
    return tuple(names)


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in _SUFFIXES and not file.name.startswith(".")


def _listing(folder: Path, classes: tuple[str, ...]) -> _Listing:
    """Gives all files and labels in a mixed order, so that any first few are a fair sample."""
    files = [
        (file, label)
        for label, name in enumerate(classes)
        if os.path.isdir(folder / name)
        for file in sorted((folder / name).iterdir())
        if _is_image(file)
    ]
    order = np.random.RandomState(_TEST_SEED).permutation(len(files))
    return [files[row] for row in order]


def _check_memory(count: int, side: int) -> None:
    needed = 2 * count * 3 * side * side  # once more while the parts are divided
    available = psutil.virtual_memory().available
    if needed > available:
        raise DataError(
            f"images must fit into memory, but {count} of {side}x{side} need {format_bytes(needed)} "
            f"and {format_bytes(available)} are free; take a smaller data resolution or fewer images"
        )


def _images(listing: _Listing, side: int, progress: Progress) -> RawSplit:
    images = np.empty((len(listing), 3, side, side), np.uint8)
    with progress.step("read images", len(listing)) as step:
        for row, (file, _) in enumerate(listing):
            images[row] = _image(file, side)
            step.advance()
    return RawSplit(images=images, labels=np.array([label for _, label in listing], np.int64))


def _image(file: Path, side: int) -> npt.NDArray[np.uint8]:
    library: Any = importlib.import_module("PIL.Image")
    try:
        with opened(file) as stream, library.open(stream) as found:
            picture = library.fromarray(pictures.to_bytes(found)).convert("RGB")
    except DataError as problem:
        raise DataError(f"{file}: {problem}") from None
    except (OSError, ValueError, SyntaxError, library.DecompressionBombError) as problem:
        raise DataError(
            f"an image must be readable, but {file} is damaged, truncated or of another kind "
            f"({problem}); replace or remove it"
        ) from None
    width, height = picture.size
    scale = side / min(width, height)
    size = (max(side, round(width * scale)), max(side, round(height * scale)))
    picture = picture.resize(size, library.Resampling.BILINEAR)
    left, top = (size[0] - side) // 2, (size[1] - side) // 2
    cropped = picture.crop((left, top, left + side, top + side))
    return np.asarray(cropped, np.uint8).transpose(2, 0, 1)


KIND: Final = Kind(takes_path=True, check=_check, read=_read)
