"""A small network, a small space, and one finished search that the tests look at.

Command lines run in this process, where torch is loaded, measuring sessions too, and on one Ray for all
of them. Only what is killed, and what takes up its work, has processes and a Ray of its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial

from autosparse import cli, hardware
from autosparse import database as tuning
from autosparse.kernels.spec import why_not_native
from autosparse.pipeline.measured import ledger, session
from autosparse.records import Measurement, MeasurementKey
from autosparse.searching.parallel import Pool
from autosparse.storage.backup import back_up

sys.path.insert(0, str(Path(__file__).parent))
from apart import run_apart, shorten

LAST_DTYPE = "f32" if why_not_native("bf16") else "bf16"
TIMEOUT_S = 1200  # a guard against a hang, on a busy machine too
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    ["apart", "autosparse.pipeline.verbs.search", "torch._dynamo", "torch._export"]
)

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
import dataclasses

from autosparse import data


def load(resolution, channels, seed):
    whole = data.resolve("digits", resolution=resolution, channels=channels, seed=seed)
    few = data.Split(
        whole.train.images[:384], whole.train.labels[:384], mean=whole.mean, std=whole.std,
        augmentation=whole.augmentation,
    )
    return dataclasses.replace(whole, id=f"{whole.id}-few", train=few)
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

    def words(self, *extra: str) -> list[str]:
        dtype = () if "--dtype" in extra else ("--dtype", "f32")
        return [
            "search", "--model", "net.py:build", "--data", "my_data.py:load", "--data-resolution", "12",
            "--input-shape", "3x96x96", "--space", "space.yaml", "--top-k", "2", "--out", "results",
            "-q", *dtype, *extra,
        ]  # fmt: skip

    def search(self, *extra: str) -> subprocess.CompletedProcess[str]:
        return self._called(self.folder, self.words(*extra))

    def verb(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self._called(self.home, [*words])

    def _called(self, folder: Path, words: list[str]) -> subprocess.CompletedProcess[str]:
        said, complained = io.StringIO(), io.StringIO()
        with (
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(complained),
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.chdir(folder)
            patch.setenv("AUTOSPARSE_HOME", str(self.home))
            shorten(patch.setattr)
            patch.setattr(
                ledger, "run_apart", lambda asked, told, host: session.run_session(asked, told)
            )
            code = cli.run(words)
        return subprocess.CompletedProcess(words, code, said.getvalue(), complained.getvalue())

    def start(self, words: list[str], *, one_process: bool = False) -> ForkServerProcess:
        """Starts a command line in a process of its own, which loads nothing anew; see `run_apart`."""
        process = SERVER.Process(
            target=run_apart,
            args=(self.folder, self.home, words),
            kwargs={"one_process": one_process},
        )
        process.start()
        return process

    def search_apart(self, *extra: str) -> subprocess.CompletedProcess[str]:
        """Runs a search as a shell does."""
        return subprocess.run(
            [sys.executable, "-m", "autosparse", *self.words(*extra)],
            env={**os.environ, "AUTOSPARSE_HOME": str(self.home)},
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )

    @property
    def latest(self) -> Path:
        return self.run or (self.folder / "results" / "latest").resolve()

    def trials(self) -> list[FrozenTrial]:
        """Gives the trials of the study, as its journal holds them."""
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        journals = [path for path in (self.latest / "study").iterdir() if "journal" in path.name]
        storage = JournalStorage(JournalFileBackend(str(journals[0])))
        studies = [storage.get_all_trials(study._study_id) for study in storage.get_all_studies()]
        return [trial for trials in studies for trial in trials]

    def document(self) -> dict[str, Any]:
        return dict(json.loads((self.latest / "pareto.json").read_text()))


def open_shop(folder: Path, home: Path) -> Shop:
    (folder / "net.py").write_text(MODEL)
    (folder / "my_data.py").write_text(DATA)
    (folder / "space.yaml").write_text(SPACE)
    return Shop(folder, home)


@pytest.fixture(scope="package", autouse=True)
def one_state() -> Iterator[None]:
    """Lets no row be missing because the host went into another of its states meanwhile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOSPARSE_HOST_STATES", "one")
        yield


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A place to work that one module's tests share, caches included."""
    return open_shop(tmp_path_factory.mktemp("shop"), tmp_path_factory.mktemp("shop-home"))


@pytest.fixture(scope="module")
def rows_known(shop: Shop, used_shop: Shop) -> None:
    """Lets searches in a module's own place find rows, so that nothing is timed once more."""
    back_up(str(used_shop.home / "tuning.db"), shop.home / "tuning.db", overwrite=True)


@pytest.fixture(scope="package")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """The one Ray of all command lines in this process: a pool started meanwhile is a part of it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTOSPARSE_HOME", str(tmp_path_factory.mktemp("workers-home")))
        pool = Pool(cores=hardware.describe().cpu.cores_usable)
    with pool:
        pool.wait([pool.submit(int)])
        yield pool


@pytest.fixture(scope="package")
def used_shop(tmp_path_factory: pytest.TempPathFactory, workers: Pool) -> Shop:
    """A place where the main job was done once: every type, no budget. Later runs find its rows."""
    shop = open_shop(tmp_path_factory.mktemp("used-shop"), tmp_path_factory.mktemp("used-shop-home"))
    done = shop.search("--dtype", "auto", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["exit_code"] == 0
    return shop


@pytest.fixture(scope="package")
def finished(used_shop: Shop) -> Shop:
    """That finished run, whatever is run there later."""
    runs = [path for path in (used_shop.folder / "results").glob("2*") if path.is_dir()]
    return dataclasses.replace(used_shop, run=min(runs))


@pytest.fixture(scope="package")
def untrained(used_shop: Shop) -> Shop:
    """A search in one type, bf16 where this host computes in it: all is known, nothing trained."""
    url = f"sqlite:///{used_shop.home}/tuning.db"
    before = _rows(url)
    done = used_shop.search("--dtype", LAST_DTYPE, "--fresh", "--train", "none", "--json")
    assert done.returncode == 0, done.stderr
    check_reused(before, url)
    return dataclasses.replace(used_shop, run=used_shop.latest)


def _rows(url: str) -> dict[MeasurementKey, Measurement]:
    return {row.key: row for row in tuning.list_rows(url)}


@pytest.fixture(name="check_reused", scope="session")
def check_reused_fixture() -> Callable[[Mapping[MeasurementKey, Measurement], str], None]:
    return check_reused


def check_reused(before: Mapping[MeasurementKey, Measurement], url: str) -> None:
    """Sees to it that nothing was measured again of what was known."""
    rows = _rows(url)
    assert all(rows[key] == row for key, row in before.items()), "known rows must not be measured again"
    assert rows.keys() == before.keys(), "what was tuned must not be measured again"


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


@pytest.fixture(scope="package")
def trained(untrained: Shop) -> Trained:
    """That search, its fastest configuration trained."""
    run = untrained.latest
    before, state = untrained.document(), (run / "state.json").read_bytes()
    command = ("train", str(run), "--pick", "fastest", "--kind", "short", "--epochs", "2", "--json")
    done = untrained.verb(*command)
    assert done.returncode == 0, done.stderr
    return Trained(untrained, before, state)
