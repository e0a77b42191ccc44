"""The tuner's bench: a database, made-up kernels, and one measuring process per module."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autosparse.workers.worker import Worker

sys.path.insert(0, str(Path(__file__).parent))
from tuning_bench import FOLDER, Bench


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("control")


@pytest.fixture(scope="module")
def shared(control: Path) -> Iterator[Worker]:
    with Worker("fake_runners:synthetic", import_path=[control, FOLDER]) as worker:
        yield worker


@pytest.fixture
def bench(tmp_path: Path, control: Path, shared: Worker) -> Bench:
    bench = Bench(tmp_path, control, shared)
    bench.settings()
    return bench
