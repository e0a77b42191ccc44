from __future__ import annotations

import json
import sqlite3
import sys
from pathlib import Path

import pytest

from autosparse.database import (
    TuningDatabase,
    collect_garbage,
    export_rows,
    import_rows,
    list_rows,
    merge,
    verify,
)
from autosparse.errors import DatabaseError, UsageError
from autosparse.records import Status

sys.path.insert(0, str(Path(__file__).parent))
from tuning_rows import hashes, row

ROWS = [
    row(10.123456789012345),
    row(20.0, kernel="slow", kernel_hash="h-slow", hardware_id="cpu-b"),
    row(None, kept=3, status=Status.TIMEOUT, message='killed, after "20 s"\nand more'),
    row(30.0, kernel_hash="before", sparsity=0.0, pattern="dense", kept=-1),
]


def make(path: Path, rows=ROWS) -> TuningDatabase:
    database = TuningDatabase(str(path), current_hashes=hashes)
    database.put_all(rows)
    return database


@pytest.mark.parametrize("suffix", ["csv", "json"])
def test_export_and_import_give_the_same_rows(tmp_path: Path, suffix: str) -> None:
    make(tmp_path / "a.db")
    file = tmp_path / f"rows.{suffix}"
    assert export_rows(str(tmp_path / "a.db"), file) == 4
    first = import_rows(file, str(tmp_path / "b.db"))
    assert (first.read, first.added, first.kept) == (4, 4, 0)
    assert list_rows(str(tmp_path / "b.db")) == ROWS
    again = import_rows(file, str(tmp_path / "b.db"))
    assert (again.added, again.kept) == (0, 4)


def test_export_takes_filters(tmp_path: Path) -> None:
    make(tmp_path / "a.db")
    assert export_rows(str(tmp_path / "a.db"), tmp_path / "x.json", hardware_id="cpu-b") == 1
    assert json.loads((tmp_path / "x.json").read_text())["measurements"][0]["kernel"] == "slow"


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    make(tmp_path / "a.db")
    with pytest.raises(UsageError, match=r"\.csv or \.json"):
        export_rows(str(tmp_path / "a.db"), tmp_path / "rows.xlsx")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", "{"),
        ("a.json", "[]"),
        ("a.json", '{"schema": 99, "measurements": []}'),
        ("a.json", '{"schema": 1, "measurements": [{"kernel": "x"}]}'),
        ("a.json", '{"schema": 1, "measurements": [1]}'),
        ("a.csv", "kernel,shape\nx,y\n"),
        ("missing.csv", None),
    ],
)
def test_a_damaged_export_stores_nothing(tmp_path: Path, name: str, content: str | None) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(DatabaseError, match="must be an export"):
        import_rows(tmp_path / name, str(tmp_path / "b.db"))
    assert not (tmp_path / "b.db").exists()


def test_one_bad_row_of_an_export_stores_none(tmp_path: Path) -> None:
    make(tmp_path / "a.db")
    export_rows(str(tmp_path / "a.db"), tmp_path / "rows.csv")
    text = (tmp_path / "rows.csv").read_text().replace("20.0", "fast")
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(DatabaseError):
        import_rows(tmp_path / "rows.csv", str(tmp_path / "b.db"))
    assert not (tmp_path / "b.db").exists()


def test_merge_is_idempotent_and_keeps_what_was_there(tmp_path: Path) -> None:
    make(tmp_path / "a.db")
    make(tmp_path / "b.db", [row(99.0), row(5.0, shape="other")])
    first = merge(str(tmp_path / "a.db"), str(tmp_path / "b.db"))
    assert (first.added, first.kept) == (3, 1)
    after = list_rows(str(tmp_path / "b.db"))
    assert after[:2] == [row(99.0), row(5.0, shape="other")]
    assert merge(str(tmp_path / "a.db"), str(tmp_path / "b.db")).added == 0
    assert list_rows(str(tmp_path / "b.db")) == after
    assert list_rows(str(tmp_path / "a.db")) == ROWS


def test_merge_needs_an_existing_source(tmp_path: Path) -> None:
    with pytest.raises(DatabaseError, match="no file"):
        merge(str(tmp_path / "none.db"), str(tmp_path / "b.db"))
    assert not (tmp_path / "none.db").exists()


class TestGarbage:
    def test_only_stale_rows_go(self, tmp_path: Path) -> None:
        database = make(tmp_path / "a.db")
        counted = collect_garbage(database=database, dry_run=True)
        assert (counted.rows, counted.stale, counted.removed) == (4, 1, 0)
        assert counted.kernels == {"fast": 1}
        assert database.rows() == ROWS
        assert collect_garbage(database=database).removed == 1
        assert database.rows() == ROWS[:3]
        assert collect_garbage(database=database).removed == 0

    def test_nothing_goes_without_kernels_to_compare_with(self, tmp_path: Path) -> None:
        make(tmp_path / "a.db")
        blind = TuningDatabase(str(tmp_path / "a.db"), current_hashes=dict)
        with pytest.raises(DatabaseError, match="there are none"):
            collect_garbage(database=blind)
        assert len(blind.rows()) == 4


class TestVerify:
    def test_a_sound_database(self, tmp_path: Path) -> None:
        found = verify(database=make(tmp_path / "a.db"))
        assert found.problems == ()
        assert (found.rows, found.stale) == (4, 1)
        assert found.statuses == {"ok": 3, "timeout": 1}
        assert found.hosts == {"cpu-a": 3, "cpu-b": 1}

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ("median_us = -1", "greater than zero"),
            ("median_us = 9e999", "must be finite"),
            ("ci_low_us = median_us * 2", "enclose"),
            ("ci_high_us = NULL", "greater than zero"),
            ("sparsity = 1.2", "sparsity"),
            ("repeats = 0", "sample"),
            ("threads = 0", "threads"),
            ("status = 'fine'", "damaged"),
            ("median_us = NULL", "damaged"),
        ],
    )
    def test_implausible_rows_are_named(self, tmp_path: Path, change: str, told: str) -> None:
        database = make(tmp_path / "a.db", ROWS[:1])
        with sqlite3.connect(tmp_path / "a.db") as connection:
            connection.execute(f"UPDATE measurements SET {change}")
        connection.close()
        problems = verify(database=database).problems
        assert len(problems) == 1
        assert told in problems[0]

    def test_a_damaged_file(self, tmp_path: Path) -> None:
        database = make(tmp_path / "a.db", [row(1.0 + n, shape=f"s{n}") for n in range(200)])
        database.close()
        with sqlite3.connect(tmp_path / "a.db") as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            root = connection.execute(
                "SELECT rootpage FROM sqlite_master WHERE name = 'by_layer'"
            ).fetchone()[0]
        connection.close()
        content = bytearray((tmp_path / "a.db").read_bytes())
        content[(root - 1) * 4096 : root * 4096] = bytes(4096)
        (tmp_path / "a.db").write_bytes(content)
        assert any("damaged" in line for line in verify(database=database).problems)
