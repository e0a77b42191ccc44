"""What is stale is found out beside the daemon: right, never waited for, and told when it cannot be."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from autosparse.daemon.stale import StaleRows
from autosparse.database import TuningDatabase
from autosparse.database.staleness import freshness
from autosparse.hardware import affinity


@pytest.fixture
def database(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'tuning.db'}"
    with TuningDatabase(url):
        pass
    return url


def test_an_empty_database_has_no_stale_rows(database: str) -> None:
    rows = StaleRows(database)
    assert rows.known() is None
    begun_s = time.time()
    rows.look()
    rows.wait()
    found = rows.known()
    assert found is not None and found.at_s >= begun_s
    assert (found.devices, found.stale, found.problem) == (freshness(database), 0, "")


def test_a_look_is_not_repeated_at_once_unless_asked(database: str) -> None:
    rows = StaleRows(database)
    rows.look()
    rows.wait()
    first = rows.known()
    rows.look()
    assert not rows.is_looking and rows.known() is first
    rows.look(again=True)
    rows.wait()
    assert rows.known() is not first


@pytest.mark.parametrize("cores", [None, (affinity()[0],)])
def test_a_database_that_cannot_be_read_is_told(tmp_path: Path, cores: tuple[int, ...] | None) -> None:
    file = tmp_path / "no.db"
    file.write_text("this is none")
    rows = StaleRows(f"sqlite:///{file}", cores)
    rows.look()
    rows.wait()
    found = rows.known()
    assert found is not None and "no.db" in found.problem and not found.devices
