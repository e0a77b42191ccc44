"""Data that nothing can be learnt from are refused when read, with the split and the row."""

from __future__ import annotations

import textwrap
from pathlib import Path

import numpy as np
import pytest

from autosparse.data import resolve
from autosparse.data.raw import check_parts
from autosparse.errors import DataError, ExitCode

FACTORY = """
import numpy as np, torch
from PIL import Image
from torch.utils.data import TensorDataset
from autosparse.data import ImageData, Split

def tensors(count, seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, 6, 6, generator=generator), torch.arange(count) % 4

def parts():
    return [list(tensors(count, seed)) for seed, count in enumerate((40, 12, 8))]

def sets(parts):
    return tuple(TensorDataset(*part) for part in parts)

def spoilt(part, row, value):
    found = parts()
    found[part][0][row, 1, 2, 3] = value
    return found

def nan_in_train(): return sets(spoilt(0, 7, float("nan")))
def inf_in_validation(): return sets(spoilt(1, 5, float("-inf")))
def nan_in_test(): return sets(spoilt(2, 3, float("nan")))
def huge_in_test(): return sets(spoilt(2, 3, 1e30))

def sixteen_bits_as_floats():
    found = parts()
    for part in found:
        part[0] = part[0] * 65535
    return sets(found)

def white_test():
    found = parts()
    found[2][0][:] = 1.0
    return sets(found)

def one_class():
    found = parts()
    found[0][1][:] = 2
    return sets(found)

def negative_label():
    found = parts()
    found[1][1][4] = -1
    return sets(found)

def half_a_label():
    found = parts()
    found[0][1] = found[0][1] + 0.5
    return sets(found)

def nan_label():
    found = parts()
    found[2][1] = found[2][1].double()
    found[2][1][6] = float("nan")
    return sets(found)

def long_pixels():
    return sets([[(images * 255).long(), labels] for images, labels in parts()])

def mixed_types():
    found = parts()
    found[0][0] = (found[0][0] * 255).to(torch.uint8)
    return sets(found)

def ready(spoil):
    found = parts()
    spoil(found)
    train, validation, test = (Split(i, l, mean=(0.5,) * 3, std=(0.2,) * 3) for i, l in found)
    return ImageData(name="mine", id="mine", classes=4, channels=3, resolution=6, mean=(0.5,) * 3,
                     std=(0.2,) * 3, train=train, validation=validation, test=test)

def ready_nan_in_test():
    return ready(lambda p: p[2][0][6].fill_(float("nan")))

def ready_label():
    return ready(lambda p: p[1][1][2].fill_(9))

def ready_empty():
    return ready(lambda p: p.__setitem__(2, [p[2][0][:0], p[2][1][:0]]))

class Pictures:
    def __init__(self, count, mode):
        self.count, self.mode = count, mode
    def __len__(self):
        return self.count
    def __getitem__(self, row):
        if self.mode == "P":
            picture = Image.new("P", (4, 4), row)
            picture.putpalette([v for i in range(256) for v in (i, 255 - i, 7)])
            return picture, row % 2
        return np.full((4, 4), row * 257, np.uint16), row % 2

def palette(): return Pictures(8, "P"), Pictures(4, "P")
def sixteen_bits(): return Pictures(8, "I;16"), Pictures(4, "I;16")
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bad") / "mydata.py"
    path.write_text(textwrap.dedent(FACTORY))
    return path


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("nan_in_train", "the train images of .* row 7 has nan"),
        ("inf_in_validation", "the validation images of .* row 5 has -inf"),
        ("nan_in_test", "the test images of .* row 3 has nan"),
        ("huge_in_test", r"the test images of .* row 3 has 1e\+30"),
        ("sixteen_bits_as_floats", "within ±10000.* scale the images"),
        ("white_test", "the test images of .* must differ, .* rows 0 to 7, is 1"),
        ("one_class", "at least two classes, but all 40 are of class 2"),
        ("negative_label", "row 4 of its validation split.* whole number"),
        ("half_a_label", "row 0 of its train split.* whole number"),
        ("nan_label", "row 6 of its test split"),
        ("long_pixels", "row 0 of its train split.* uint8, uint16 or floats, but got int64"),
        ("mixed_types", "splits .* must be of one type, but got train uint8 .* test float32"),
        ("ready_nan_in_test", "the test images of .* row 6 has nan"),
        ("ready_label", "labels of the validation split .* first in row 2"),
        ("ready_empty", "the test images of .* there is none"),
    ],
)
def test_the_split_and_the_row_are_named(name: str, reason: str, file: Path) -> None:
    with pytest.raises(DataError, match=reason) as refused:
        resolve(f"{file}:{name}")
    assert refused.value.exit_code == ExitCode.USAGE


def test_palettes_of_users_are_looked_up(file: Path) -> None:
    images = resolve(f"{file}:palette").test.images
    assert images[:, :, 0, 0].tolist() == [[row, 255 - row, 7] for row in range(4)]


def test_sixteen_bits_of_users_are_used_in_zero_to_one(file: Path) -> None:
    images, _ = next(resolve(f"{file}:sixteen_bits").test.batches(4))
    np.testing.assert_allclose(images[:, 0, 0, 0].numpy(), np.arange(4) / 255, rtol=1e-6)


def test_a_fault_beyond_the_first_thousand_rows_is_found() -> None:
    images = np.random.default_rng(0).random((2500, 1, 2, 2), np.float32)
    images[2100, 0, 1, 1] = np.inf
    with pytest.raises(DataError, match="row 2100 has inf"):
        check_parts({"train": (images, np.arange(2500) % 3)}, "mine")


def test_single_images_of_one_colour_are_data() -> None:
    images = np.zeros((4, 1, 2, 2), np.uint8)
    images[3] = 1
    check_parts({"train": (images, np.arange(4))}, "mine")
