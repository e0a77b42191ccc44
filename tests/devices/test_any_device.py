"""A kind of device that the project does not have, added by its one file, is tuned like any other."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from autosparse.config import resolve
from autosparse.database import TuningDatabase
from autosparse.database.current import kernel_hashes
from autosparse.devices import device as registry
from autosparse.devices import kind_names, kinds
from autosparse.devices.device import Device, find
from autosparse.errors import ConfigError, MissingDependency, UsageError
from autosparse.measuring.stopwatch import LAYERS
from autosparse.records import LayerInfo, LayerShape, Status, onexn
from autosparse.searching.space import SearchSpace
from autosparse.tuning.autotune import count, tune
from autosparse.tuning.request import TuneRequest
from autosparse.workers.worker import Worker

FOLDER = Path(__file__).parent
SHAPE = LayerShape(
    op="conv2d", batch_size=1, in_channels=8, out_channels=8, in_height=6, in_width=6,
    kernel=(3, 3), padding=(1, 1),
)  # fmt: skip
REQUEST = TuneRequest(
    layers=(LayerInfo(name="conv", shape=SHAPE),),
    patterns=(onexn(4),),
    sparsities=(0.5,),
    policy=LAYERS.for_model(1 << 16),
)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(FOLDER / "strangers")])
    kernel_hashes.cache_clear()
    yield find("toy")
    kernel_hashes.cache_clear()
    del registry._KINDS["toy"]
    del sys.modules["autosparse.devices.kinds.toy"]


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Worker("strange_runner:run", import_path=[FOLDER]) as worker:
        yield worker


def test_it_is_tuned_with_its_launch_parameters(toy: Device, worker: Worker, tmp_path: Path) -> None:
    database = TuningDatabase(f"sqlite:///{tmp_path}/t.db")
    result = tune(REQUEST, toy, database, worker=worker)
    assert result.considered == 6, "dense and one structure, three parameters each"
    assert {row.key.hardware_id for row in result.rows} == {"toy-0"}
    assert {row.key.config for row in result.rows} == {"repeats=8", "repeats=1", "repeats=0"}
    assert all((r.status is Status.WRONG) == (r.key.config == "repeats=0") for r in result.rows)
    dense, sparse = result.options["conv"]
    assert (dense.choice.kernel, dense.choice.label) == ("f32_toy[repeats=1]", "dense")
    assert (sparse.choice.kernel, sparse.choice.label) == ("f32_toy[repeats=1]", "1x4@0.5")
    assert sparse.flops_kept * 2 == dense.flops_kept == SHAPE.flops
    again = tune(REQUEST, toy, database, worker=worker)
    assert (again.timed, again.options) == (0, result.options)
    assert count(REQUEST, toy, database).reused == 6 - sum(skip.count for skip in result.skipped)


def test_rows_are_of_one_device_each(toy: Device, worker: Worker, tmp_path: Path) -> None:
    database = TuningDatabase(f"sqlite:///{tmp_path}/t.db")
    tune(REQUEST, toy, database, worker=worker)
    cpu = find("cpu")
    assert count(REQUEST, cpu, database).reused == 0
    assert {row.key.hardware_id for row in database.rows()} == {toy.id} != {cpu.id}
    assert not TuningDatabase(database.url).stale(), "its sources are known where it is"


def test_it_can_be_named(toy: Device) -> None:
    assert kind_names() == ("cpu", "cuda", "toy")
    assert resolve({"model": "resnet20", "device": "toy"}, {}).device == "toy"
    assert SearchSpace.parse({"version": 1, "device": "toy"}, "t").device == "toy"


def test_others_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="device must be auto or cpu or cuda, but got 'toy'"):
        resolve({"model": "resnet20", "device": "toy"}, {})
    with pytest.raises(ConfigError, match="device must be a kind of cpu, cuda"):
        SearchSpace.parse({"version": 1, "device": "toy"}, "t")
    with pytest.raises(UsageError, match="device must be a kind of cpu, cuda, but got 'toy'"):
        find("toy")
    cpu = registry.kind_of("cpu")
    monkeypatch.setattr(cpu, "of", lambda host: ())
    with pytest.raises(MissingDependency, match="device cpu was asked for, but this host has none"):
        find("cpu")


def test_it_refuses_more_threads_than_it_has(toy: Device, tmp_path: Path) -> None:
    with TuningDatabase(f"sqlite:///{tmp_path}/t.db") as database:
        with pytest.raises(UsageError, match="threads must not exceed the 1"):
            tune(replace(REQUEST, threads=2), toy, database)
