"""Folders of image files, one per class: how they are laid out, and which files they hold.

Below the named folder there are either the class folders themselves, of which one fifth of the images,
the same in every run, becomes the test part; or ``train`` and ``val`` and/or ``test`` above them. With
``train`` and only one other, that other is the test part and validation is held out of ``train``.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np

from autosparse.data.decode import SUFFIXES
from autosparse.data.samples import Listing, Names, Samples
from autosparse.errors import DataError, MissingDependency

RESOLUTION = 224
TEST_FRACTION = 0.2
TEST_SEED = 224  # fixed: the test part must not depend on a run's seed
SPELLINGS = {"train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}


def check(path: Path | None) -> None:
    """Refuses a folder that is not laid out so, from the names in it.

    Raises:
        DataError: it has classes that differ from part to part, or a class without images.
        MissingDependency: Pillow is not installed.
    """
    assert path is not None
    check_pillow("imagefolder")
    folders = parts(path)
    classes = class_names(folders.get("train", path))
    for name, folder in folders.items():
        strangers = sorted(set(class_names(folder)) - set(classes))
        if strangers:
            raise DataError(
                f"{folder} must have no class that {folders['train']} lacks, but has {strangers[0]!r} "
                f"in {name}; name the class folders alike"
            )
    for folder in folders.values() or (path,):
        for name in class_names(folder):
            if not any(_is_image(file) for file in os.listdir(folder / name)):
                raise DataError(f"a class folder must hold images, but {folder / name} has none")


def check_pillow(kind: str) -> None:
    """Refuses to go on where nothing decodes pictures.

    Raises:
        MissingDependency: Pillow is not installed.
    """
    if importlib.util.find_spec("PIL") is None:
        raise MissingDependency(f"{kind} needs Pillow, which is not installed; run: pip install pillow")


def parts(path: Path) -> dict[str, Path]:
    """Gives the folders of the parts by name; none if class folders come first."""
    found = {
        part: path / name
        for part, spellings in SPELLINGS.items()
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


def class_names(folder: Path) -> tuple[str, ...]:
    """Gives the names of the class folders, ascending.

    Raises:
        DataError: there are fewer than two.
    """
    with os.scandir(folder) as entries:
        names = sorted(e.name for e in entries if e.is_dir() and not e.name.startswith("."))
    if len(names) < 2:
        raise DataError(
            f"imagefolder must have at least two class folders, but {folder} has {len(names)}"
        )
    return tuple(names)


def samples(folder: Path, classes: tuple[str, ...]) -> Samples:
    """Gives all image files in a mixed order, so that any first few are a fair sample."""
    names: list[str] = []
    sizes: list[int] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        for file, size in _files(folder / name):
            names.append(f"{name}/{file}")
            sizes.append(size)
            labels.append(label)
    count = len(names)
    listing = Listing(
        root=folder,
        files=Names.of(names),
        file=np.arange(count),
        offset=np.zeros(count, np.int64),
        size=np.array(sizes, np.int64),
        labels=np.array(labels, np.int64),
    )
    return Samples(listing=listing, rows=np.random.RandomState(TEST_SEED).permutation(count))


def _files(folder: Path) -> list[tuple[str, int]]:
    """Gives names and sizes in bytes of the images in a class folder, which a part may lack."""
    if not os.path.isdir(folder):
        return []
    with os.scandir(folder) as entries:
        return sorted((entry.name, _size(entry)) for entry in entries if _is_image(entry.name))


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except OSError:  # a link to nothing; who reads it says so
        return 0


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith(".")
