"""How data sets are named, and users' own ones."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from autosparse.data import check_source, kind_names, resolve
from autosparse.data.raw import Augmentation
from autosparse.errors import DataError, MissingDependency

FACTORY = """
import numpy as np
import torch
from autosparse.data import ImageData, Split
from torch.utils.data import Dataset, TensorDataset

def tensors(count, side=6, channels=3, dtype=torch.float32):
    images = torch.arange(count * channels * side * side).view(count, channels, side, side)
    return TensorDataset((images % 256).to(dtype), torch.arange(count) % 4)

def pair():
    return tensors(40), tensors(8)

def triple():
    return tensors(40), tensors(12), tensors(8)

def bytes_pair():
    return tensors(40, dtype=torch.uint8), tensors(8, dtype=torch.uint8)

class Pictures(Dataset):
    classes = ["a", "b", "c", "d", "e"]
    def __init__(self, count):
        self.count = count
    def __len__(self):
        return self.count
    def __getitem__(self, row):
        return np.full((5, 5, 3), row, np.uint8), row % 4

def pictures():
    return [Pictures(20), Pictures(4)]

class Uneven(Pictures):
    def __getitem__(self, row):
        return torch.zeros(1, 3 + row % 2, 3), 0

def uneven():
    return Uneven(4), Uneven(4)

class Broken(Pictures):
    def __getitem__(self, row):
        raise OSError("disk on fire")

def broken():
    return Broken(4), Broken(4)

def ready(resolution=None, seed=0):
    side = resolution or 6
    images = torch.linspace(0, 1, 4 * side * side).view(4, 1, side, side)
    split = Split(images, torch.arange(4), mean=(0.0,) * 3, std=(1.0,) * 3)
    return ImageData(name="mine", id=f"mine-{seed}", classes=4, channels=3, resolution=side,
                     mean=(0.0,) * 3, std=(1.0,) * 3, train=split, validation=split, test=split)

def stubborn():
    return ready()

def empty():
    return tensors(0), tensors(0)

def number():
    return 7

def streams():
    return iter([]), iter([])

def raises():
    raise KeyError("no such key")
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mydata.py"
    path.write_text(FACTORY)
    return path


def test_the_kinds_are_those_of_the_readme() -> None:
    kinds = ("cifar10", "digits", "fashion-mnist", "imagefolder", "imagefolder-stream", "shards")
    assert kind_names() == kinds


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("cifar-10:/data", "did you mean cifar10"),
        ("fashion_mnist:/data", "did you mean fashion-mnist"),
        ("Digits", "did you mean digits"),
        ("", "known: cifar10"),
        ("cifar10", "write cifar10:PATH"),
        ("cifar10:", "write cifar10:PATH"),
        ("digits:/data", "takes no path"),
        ("cifar10:/no/such/folder", "there is nothing at /no/such/folder"),
        ("imagefolder:/no/such/folder", "there is nothing"),
    ],
)
def test_unknown_and_incomplete_names_are_refused(spec: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        check_source(spec)
    with pytest.raises(DataError, match=reason):
        resolve(spec)


def test_a_bare_folder_is_told_how_to_be_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"imagefolder:{tmp_path}"):
        check_source(str(tmp_path))


def test_a_file_in_place_of_a_folder_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(b"\x1f\x8b")
    with pytest.raises(DataError, match="there is a file at"):
        check_source(f"cifar10:{archive}")


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has none of them"):
        check_source(f"cifar10:{tmp_path}")
    with pytest.raises(DataError, match="has neither"):
        check_source(f"fashion-mnist:{tmp_path}")


def test_checking_needs_no_torch(cifar: Path, file: Path) -> None:
    code = (
        "import sys, autosparse.data as d\n"
        f"for spec in ('digits', 'cifar10:{cifar}', '{file}:pair'):\n    d.check_source(spec)\n"
        "print('torch' in sys.modules, 'sklearn' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_absent_sklearn_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependency, match="pip install scikit-learn"):
        check_source("digits")


def test_two_data_sets_have_validation_held_out_of_the_first(file: Path) -> None:
    check_source(f"{file}:pair")
    data = resolve(f"{file}:pair", validation_fraction=0.2)
    assert (len(data.train), len(data.validation), len(data.test)) == (32, 8, 8)
    assert (data.classes, data.resolution, data.channels) == (4, 6, 3)


def test_floats_come_out_as_they_went_in(file: Path) -> None:
    data = resolve(f"{file}:triple")
    assert (len(data.train), len(data.validation), len(data.test)) == (40, 12, 8)
    images, labels = next(data.test.batches(8))
    expected = (torch.arange(8 * 3 * 36) % 256).view(8, 3, 6, 6).float()
    assert torch.equal(images, expected)
    assert labels.tolist() == [0, 1, 2, 3] * 2


def test_bytes_come_out_between_zero_and_one(file: Path) -> None:
    images, _ = next(resolve(f"{file}:bytes_pair").test.batches(8))
    expected = (torch.arange(8 * 3 * 36) % 256).view(8, 3, 6, 6) / 255
    torch.testing.assert_close(images, expected)


def test_pictures_are_taken_with_channels_last(file: Path) -> None:
    data = resolve(f"{file}:pictures", resolution=10)
    assert data.classes == 5
    assert data.test.images.shape == (4, 3, 10, 10)
    np.testing.assert_array_equal(data.test.images[:, 0, 0, 0].numpy(), np.arange(4))


def test_ready_made_data_is_handed_through(file: Path) -> None:
    data = resolve(f"{file}:ready", resolution=9, seed=3)
    assert (data.id, data.resolution) == ("mine-3", 9)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("uneven", "must be alike"),
        ("broken", "OSError: disk on fire"),
        ("empty", "empty one"),
        ("number", "must return ImageData"),
        ("streams", "a length and an index"),
        ("raises", "KeyError: 'no such key'"),
        ("absent", "must define the function"),
    ],
)
def test_a_users_mistakes_are_named(name: str, reason: str, file: Path) -> None:
    with pytest.raises(DataError, match=reason):
        resolve(f"{file}:{name}")


def test_ready_made_data_of_another_resolution_is_refused(file: Path) -> None:
    with pytest.raises(DataError, match="resolution 9, but returned 6"):
        resolve(f"{file}:stubborn", resolution=9)


def test_a_factory_that_varies_its_images_itself_is_asked_for_no_other_way(file: Path) -> None:
    with pytest.raises(DataError, match="says itself how images are varied"):
        resolve(f"{file}:ready", augmentation=Augmentation(flip=True))
