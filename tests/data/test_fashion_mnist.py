"""Idx files, gzipped and plain: read, and refused when header and size disagree."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from autosparse.data import check_source, resolve
from autosparse.errors import DataError


def named(folder: Path, stem: str) -> Path:
    return next(folder.glob(f"{stem}*"))


@pytest.mark.parametrize("above", [0, 1, 2])
def test_the_folder_or_one_above_is_read(above: int, fashion: Path) -> None:
    folder = (fashion, *fashion.parents)[above]
    check_source(f"fashion-mnist:{folder}")
    data = resolve(f"fashion-mnist:{folder}")
    assert (len(data.train), len(data.validation), len(data.test)) == (50, 10, 20)
    assert (data.name, data.classes, data.resolution) == ("fashion-mnist", 10, 28)
    assert data.augmentation.flip


def test_pixels_and_labels_come_through(fashion: Path) -> None:
    path = named(fashion, "t10k-images")
    content = gzip.open(path).read() if path.suffix == ".gz" else path.read_bytes()
    expected = np.frombuffer(content, np.uint8)[16:].reshape(20, 1, 28, 28)
    data = resolve(f"fashion-mnist:{fashion}")
    np.testing.assert_array_equal(data.test.images.numpy(), expected)
    assert data.test.labels.tolist() == [i % 10 for i in range(20)]


@pytest.mark.parametrize("share", [0.0, 0.2, 0.7, 0.999])
@pytest.mark.parametrize("stem", ["train-images", "t10k-labels"])
def test_truncated_files_are_refused_by_the_check(stem: str, share: float, fashion: Path) -> None:
    path = named(fashion, stem)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    for call in (check_source, resolve):
        with pytest.raises(DataError, match=stem):
            call(f"fashion-mnist:{fashion}")


@pytest.mark.parametrize("fashion", [".gz"], indirect=True)  # a plain file carries no checksum
def test_a_damaged_middle_is_refused_when_read(fashion: Path) -> None:
    path = named(fashion, "train-images")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match="train-images"):
        resolve(f"fashion-mnist:{fashion}")


def test_another_format_is_refused(fashion: Path) -> None:
    named(fashion, "train-images").write_bytes(b"<html>not found</html>" * 10)
    with pytest.raises(DataError, match="train-images"):
        check_source(f"fashion-mnist:{fashion}")


def test_swapped_files_are_refused(fashion: Path) -> None:
    images, labels = named(fashion, "train-images"), named(fashion, "train-labels")
    images.write_bytes(labels.read_bytes())
    with pytest.raises(DataError, match="3 dimensions"):
        check_source(f"fashion-mnist:{fashion}")


def test_a_missing_file_is_named(fashion: Path) -> None:
    named(fashion, "t10k-labels").unlink()
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte"):
        check_source(f"fashion-mnist:{fashion}")


def test_unequal_counts_are_refused(
    fashion: Path, write_idx: Callable[[Path, np.ndarray], None]
) -> None:
    write_idx(named(fashion, "train-labels"), np.arange(59) % 10)
    with pytest.raises(DataError, match="60 and 59"):
        check_source(f"fashion-mnist:{fashion}")


def test_labels_out_of_range_are_refused(
    fashion: Path, write_idx: Callable[[Path, np.ndarray], None]
) -> None:
    write_idx(named(fashion, "train-labels"), np.full(60, 11))
    with pytest.raises(DataError, match=r"0\.\.9"):
        resolve(f"fashion-mnist:{fashion}")


def test_the_real_set_is_read(real_data: Path) -> None:
    data = resolve(f"fashion-mnist:{real_data}", channels=1)
    assert (len(data.train), len(data.validation), len(data.test)) == (54_000, 6_000, 10_000)
    images, _ = next(data.test.batches(10_000))
    assert abs(images.mean().item()) < 0.02
    assert images.std().item() == pytest.approx(1, abs=0.02)
