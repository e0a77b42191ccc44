"""All runs, and the tuning database, as DataFrames; and the example that shows both."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import autosparse
from autosparse.database.table import TuningDatabase
from autosparse.errors import DatabaseError, UsageError
from autosparse.records import Measurement, MeasurementKey, Status

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "read_results.py"


def test_runs_are_listed_newest_first(root: Path) -> None:
    frame = autosparse.runs(root)
    assert frame["state"].tolist() == ["done", "stopped"]
    assert frame["created_at"].is_monotonic_decreasing
    assert str(frame["created_at"].dt.tz) == "UTC"
    assert frame["budget_ms"].tolist()[0] == 14.0
    assert frame["budget_ms"].isna().tolist() == [False, True]
    assert autosparse.Run(frame["path"].iloc[0]).name == frame.index[0]


def test_a_folder_without_runs_gives_an_empty_frame(tmp_path: Path) -> None:
    frame = autosparse.runs(tmp_path / "absent")
    assert frame.empty
    assert "verdict" in frame


def test_a_damaged_run_is_listed_as_damaged(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "state.json").write_text("{")
    frame = autosparse.runs(tmp_path)
    assert frame.loc["broken", "state"] == "damaged"
    assert frame["created_at"].isna().all()


@pytest.fixture
def database(tmp_path: Path) -> str:
    url = f"sqlite:///{tmp_path / 'tuning.db'}"
    key = dict(hardware_id="h", kernel_hash="1", shape="s", pattern="1x16", config="", policy="p")
    with TuningDatabase(url, current_hashes=lambda: {"a": "1"}) as opened:
        for index, (kernel, status) in enumerate((("a", Status.OK), ("b", Status.WRONG))):
            ok = status is Status.OK
            opened.put(
                Measurement(
                    key=MeasurementKey(kernel=kernel, kept=4, dtype="f32", threads=1 + index, **key),
                    status=status,
                    median_us=12.5 if ok else None,
                    flops_kept=1000,
                    measured_at="2026-03-04T12:00:00+00:00" if ok else "",
                )
            )
    return url


def test_tuning_rows_hold_keys_and_figures(database: str) -> None:
    frame = autosparse.tuning_rows(database)
    assert frame["kernel"].tolist() == ["a", "b"]
    assert frame["median_us"].tolist()[0] == 12.5
    assert frame["median_us"].isna().tolist() == [False, True]
    assert frame["status"].tolist() == ["ok", "wrong"]
    assert frame["measured_at"].dt.year.tolist()[0] == 2026
    # Neither kernel is in the library of this installation.
    assert frame["is_current"].tolist() == [False, False]


def test_tuning_rows_are_filtered(database: str) -> None:
    assert autosparse.tuning_rows(database, threads=[2, 3])["kernel"].tolist() == ["b"]
    assert autosparse.tuning_rows(database, status="ok")["kernel"].tolist() == ["a"]
    empty = autosparse.tuning_rows(database, threads=9)
    assert empty.empty and "median_us" in empty
    with pytest.raises(UsageError, match="filtered by"):
        autosparse.tuning_rows(database, colour="red")


def test_a_database_that_does_not_exist_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="must exist"):
        autosparse.tuning_rows(str(tmp_path / "none.db"))
    assert not (tmp_path / "none.db").exists()


def test_the_example_reads_a_run(root: Path, tmp_path: Path) -> None:
    run = autosparse.Run(root=root)
    done = subprocess.run(
        [sys.executable, str(EXAMPLE), str(run.path)], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for config in run.front.index:
        assert config in done.stdout
    assert {path.stem for path in tmp_path.glob("*.html")} == set(run.figures)
