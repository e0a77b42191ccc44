"""The end of a tuning: rows held to the dense model as a whole."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from autosparse.config import SearchConfig
from autosparse.database import TuningDatabase
from autosparse.pipeline.measured.held import hold_to_the_whole
from autosparse.pipeline.subject.survey import Survey, survey
from autosparse.pipeline.verbs import tune as verb
from autosparse.progress import Progress


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


def test_rows_of_another_host_are_not_held_and_that_is_told(subject: Survey) -> None:
    away: Any = SimpleNamespace(name="node:far")
    [told] = hold_to_the_whole(dataclasses.replace(subject, host=away), Progress())
    assert told.startswith("rows of node:far were not held to whole models")


def test_a_tuning_tells_what_was_found(subject: Survey, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = SimpleNamespace(considered=0, timed=0, reused=0, skipped=(), options={})
    monkeypatch.setattr(verb, "measure_options", lambda *asked: nothing)
    monkeypatch.setattr(verb, "survey", lambda config, progress, **more: subject)
    monkeypatch.setattr(verb, "hold_to_the_whole", lambda subject, progress: ("dense in f32: as said",))
    assert "dense in f32: as said" in verb.tune(subject.config).notes
