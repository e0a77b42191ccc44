"""The end of a tuning: rows held to the dense model as a whole."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autosparse.config import SearchConfig
from autosparse.database import TuningDatabase
from autosparse.pipeline.measured import held
from autosparse.pipeline.measured.held import hold_to_the_whole
from autosparse.pipeline.subject.survey import Survey, survey
from autosparse.pipeline.verbs import tune as verb
from autosparse.progress import Progress
from autosparse.records import Measurement, MeasurementKey, Status


@pytest.fixture(name="subject", scope="module")
def subject_fixture(tmp_path_factory: pytest.TempPathFactory) -> Survey:
    database = tmp_path_factory.mktemp("held") / "rows.db"
    config = SearchConfig(model="resnet20", dtype="f32", threads=1, database=str(database))
    return survey(config, Progress())


def test_without_rows_the_rule_is_all_there_is(subject: Survey) -> None:
    [told] = hold_to_the_whole(subject, Progress())
    assert told == "dense in f32: the measured rows choose what the executor's rule chooses"
    with TuningDatabase(subject.database) as database:
        assert database.rows() == []


def test_rows_of_another_host_are_held_there_and_come_back(subject: Survey, tmp_path: Path) -> None:
    """With a database of its own there, into which a row comes that is news to this one."""
    shape = next(layer.shape for layer in subject.layers if layer.shape)
    key = MeasurementKey(
        hardware_id="0123456789ab", kernel="k", kernel_hash="h", shape=shape.key, pattern="dense",
        kept=-1, config="", dtype="f32", threads=1, policy="p",
    )  # fmt: skip
    row = Measurement(
        key=key, status=Status.OK, median_us=2.0, ci_low_us=1.0, ci_high_us=3.0, repeats=9
    )
    theirs = str(tmp_path / "theirs.db")

    def time_whole(runner: str, request: Any, **_: Any) -> Any:
        assert runner == held.RUNNER and request["database"] == subject.database
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(held, "_hold", lambda asked, progress: (put(asked.database), ("as said",))[1])
            return held.run({**request, "database": theirs}, Progress())

    def put(database: str) -> None:
        with TuningDatabase(database) as opened:
            opened.put(row)

    away: Any = SimpleNamespace(name="node:far", time_whole=time_whole)
    mine = dataclasses.replace(subject, host=away, database=str(tmp_path / "mine.db"))
    subject = dataclasses.replace(subject, database=mine.database)
    assert hold_to_the_whole(mine, Progress()) == ("as said",)
    with TuningDatabase(mine.database) as database:
        assert database.rows() == [row]


def test_a_tuning_tells_what_was_found(subject: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = SimpleNamespace(considered=0, timed=0, reused=0, skipped=(), options={})
    monkeypatch.setattr(verb, "measure_options", lambda *asked: nothing)
    monkeypatch.setattr(verb, "survey", lambda config, progress, **more: subject)
    monkeypatch.setattr(verb, "hold_to_the_whole", lambda subject, progress: ("dense in f32: as said",))
    assert "dense in f32: as said" in verb.tune(subject.config).notes
