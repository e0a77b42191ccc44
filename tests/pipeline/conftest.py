"""A small network, a small space, and one finished search that the tests look at."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from autosparse.kernels.spec import why_not_native
from autosparse.tuning import database as tuning

LAST_DTYPE = "f32" if why_not_native("bf16") else "bf16"
TIMEOUT_S = 1200  # a guard against a hang, on a busy machine too

MODEL = '''
from torch import nn


class Net(nn.Module):
    """Three convolutions and a classifier."""

    input_shape = (3, 32, 32)

    def __init__(self, num_classes=10):
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 64, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        self.conv3 = nn.Conv2d(64, 64, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, num_classes)

    def forward(self, x):
        x = self.relu(self.bn1(self.stem(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        x = self.relu(self.bn3(self.conv3(x)) + x)
        return self.fc(self.pool(x).flatten(1))


def build(num_classes=10):
    return Net(num_classes)
'''

DATA = """
from autosparse import data


def load(resolution, channels, seed):
    return data.resolve("digits", resolution=resolution, channels=channels, seed=seed)
"""

SPACE = """
version: 1
device: cpu
block_n: [8, 16]
sparsity: [0.5, 0.75]
dense: [first, last]
study: {trials: 8, batch_size: 2, startup_trials: 3, seed_points: 3, uniform_sparsity: [0.5]}
"""


@dataclass(frozen=True)
class Shop:
    """Where a test's files are, and how it calls the command line.

    A search is called in their folder and names them relative to it, other verbs are called elsewhere.

    Attributes:
        folder: of the files, and of the runs.
        home: of the databases.
        run: the one to look at; None is the latest.
    """

    folder: Path
    home: Path
    run: Path | None = None

    def command(self, *extra: str) -> list[str]:
        dtype = () if "--dtype" in extra else ("--dtype", "f32")
        return [
            sys.executable, "-m", "autosparse", "search", "--model", "net.py:build",
            "--data", "my_data.py:load", "--input-shape", "3x96x96", "--space", "space.yaml",
            "--top-k", "2", "--out", "results", "-q", *dtype, *extra,
        ]  # fmt: skip

    def environment(self) -> dict[str, str]:
        return {**os.environ, "AUTOSPARSE_HOME": str(self.home)}

    def search(self, *extra: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*extra),
            env=self.environment(),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )

    def verb(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "autosparse", *words],
            env=self.environment(), cwd=self.home, capture_output=True, text=True, timeout=TIMEOUT_S,
        )  # fmt: skip

    @property
    def latest(self) -> Path:
        return self.run or (self.folder / "results" / "latest").resolve()

    def document(self) -> dict[str, Any]:
        return dict(json.loads((self.latest / "pareto.json").read_text()))


def open_shop(folder: Path, home: Path) -> Shop:
    (folder / "net.py").write_text(MODEL)
    (folder / "my_data.py").write_text(DATA)
    (folder / "space.yaml").write_text(SPACE)
    return Shop(folder, home)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A place to work that one module's tests share, caches included."""
    return open_shop(tmp_path_factory.mktemp("shop"), tmp_path_factory.mktemp("shop-home"))


@pytest.fixture(scope="session")
def used_shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A place where the main job was done once: every type, no budget. Later runs find its rows."""
    shop = open_shop(tmp_path_factory.mktemp("used-shop"), tmp_path_factory.mktemp("used-shop-home"))
    done = shop.search("--dtype", "auto", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["exit_code"] == 0
    return shop


@pytest.fixture(scope="session")
def finished(used_shop: Shop) -> Shop:
    """That finished run, whatever is run there later."""
    runs = [path for path in (used_shop.folder / "results").glob("2*") if path.is_dir()]
    return dataclasses.replace(used_shop, run=min(runs))


@pytest.fixture(scope="session")
def untrained(used_shop: Shop) -> Shop:
    """A search in one type, bf16 where this host computes in it: all is known, nothing trained."""
    url = f"sqlite:///{used_shop.home}/tuning.db"
    before = len(tuning.list_rows(url))
    done = used_shop.search("--dtype", LAST_DTYPE, "--fresh", "--train", "none", "--json")
    assert done.returncode == 0, done.stderr
    assert len(tuning.list_rows(url)) == before, "what was tuned must not be measured again"
    return dataclasses.replace(used_shop, run=used_shop.latest)


@dataclass(frozen=True)
class Trained:
    """A run whose fastest configuration was trained by `autosparse train`.

    Attributes:
        shop: where it is.
        before: its document before.
        state: its state file before.
    """

    shop: Shop
    before: dict[str, Any]
    state: bytes


@pytest.fixture(scope="session")
def trained(untrained: Shop) -> Trained:
    """That search, its fastest configuration trained."""
    run = untrained.latest
    before, state = untrained.document(), (run / "state.json").read_bytes()
    command = ("train", str(run), "--pick", "fastest", "--kind", "short", "--epochs", "2", "--json")
    done = untrained.verb(*command)
    assert done.returncode == 0, done.stderr
    return Trained(untrained, before, state)
