"""The verbs of the tuning database, on a database with a few rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autosparse.cli import run
from autosparse.database import TuningDatabase
from autosparse.records import Measurement, MeasurementKey, Status


def row(kernel: str, kept: int, status: Status = Status.OK) -> Measurement:
    is_ok = status is Status.OK
    return Measurement(
        key=MeasurementKey(
            hardware_id="a" * 12,
            kernel=kernel,
            kernel_hash="gone",
            shape="linear_b1_i64x1x1_o64",
            pattern="1x8",
            kept=kept,
            config="",
            dtype="f32",
            threads=1,
            policy="p",
        ),
        status=status,
        median_us=5.0 if is_ok else None,
        ci_low_us=4.9 if is_ok else None,
        ci_high_us=5.2 if is_ok else None,
        repeats=9,
        sparsity=0.5,
        flops_kept=4096,
        message="" if is_ok else "took too long",
        measured_at="2026-11-20T00:00:00+00:00",
        version="0.1.0",
    )


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "tuning.db"
    with TuningDatabase(str(path)) as store:
        store.put_all([row("one", 32), row("two", 32), row("two", 16, Status.TIMEOUT)])
    return path


@pytest.mark.smoke
def test_rows_are_listed_and_filtered(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["db", "list", "--database", str(database)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert run(["db", "list", "--database", str(database), "--kernel", "two", "--json"]) == 0
    found = [Measurement.from_json(values) for values in json.loads(capsys.readouterr().out)]
    assert {each.key.kept for each in found} == {16, 32}
    assert run(["db", "list", "--database", str(database), "--limit", "1"]) == 0
    assert "1 of 3 rows" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_rows_travel_through_a_file(
    suffix: str, database: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["db", "export", f"rows.{suffix}", "--database", str(database)]) == 0
    assert "3 rows" in capsys.readouterr().out
    other = str(database.with_name("other.db"))
    monkeypatch.setenv("AUTOSPARSE_DATABASE", other)
    assert run(["db", "import", f"rows.{suffix}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["added"] == 3
    assert run(["db", "import", f"rows.{suffix}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["added"] == 0
    assert TuningDatabase(other).rows() == TuningDatabase(str(database)).rows()


def test_databases_are_merged(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(
            ["db", "merge", str(database), "--database", str(database.with_name("target.db")), "--json"]
        )
        == 0
    )
    assert json.loads(capsys.readouterr().out) == {"read": 3, "added": 3, "kept": 0}


def test_rows_of_kernels_that_are_gone_are_collected(
    database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["db", "gc", "--dry-run", "--database", str(database)]) == 0
    assert "stale    3" in capsys.readouterr().out
    assert len(TuningDatabase(str(database)).rows()) == 3
    assert run(["db", "gc", "--database", str(database), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["removed"] == 3


def test_a_sound_database_verifies(database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["db", "verify", "--database", str(database)]) == 0
    assert "problems  none" in capsys.readouterr().out


def test_a_damaged_database_is_named_without_a_traceback(
    database: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
    assert run(["db", "list", "--database", str(database)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "tuning.db" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("line", ["import no.csv", "export rows.txt", "list", "merge no.db"])
def test_missing_files_are_refused(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["db", *line.split(), "--database", str(tmp_path / "none.db")]) == 2
    said = capsys.readouterr()
    assert said.err.startswith("autosparse: ")
    assert "Traceback" not in said.err
