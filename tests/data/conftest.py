from __future__ import annotations

import gzip
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

CASES = 40  # images per synthetic CIFAR file: four of each class


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    """A small set in the layout of CIFAR-10; every image is filled with its number in its file."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    random = np.random.default_rng(0)
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"):
        data = random.integers(0, 256, (CASES, 3072)).astype(np.uint8)
        record = {b"data": data, b"labels": [i % 10 for i in range(CASES)], b"batch_label": b"x"}
        (folder / name).write_bytes(pickle.dumps(record, protocol=4))
    meta = {b"num_cases_per_batch": CASES, b"num_vis": 3072, b"label_names": [b"a"] * 10}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    return folder


@pytest.fixture
def write_idx() -> Callable[[Path, np.ndarray], None]:
    def write(path: Path, array: np.ndarray) -> None:
        head = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
        content = head + array.astype(np.uint8).tobytes()
        path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)

    return write


@pytest.fixture(params=[".gz", ""], ids=["gzip", "plain"])
def fashion(
    request: pytest.FixtureRequest, tmp_path: Path, write_idx: Callable[[Path, np.ndarray], None]
) -> Path:
    """A small set in the layout of Fashion-MNIST."""
    folder = tmp_path / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    random = np.random.default_rng(1)
    for part, count in (("train", 60), ("t10k", 20)):
        images = random.integers(0, 256, (count, 28, 28))
        write_idx(folder / f"{part}-images-idx3-ubyte{request.param}", images)
        write_idx(folder / f"{part}-labels-idx1-ubyte{request.param}", np.arange(count) % 10)
    return folder
