"""Databases of earlier layouts are brought up to date, and what they hold is used as before."""

from __future__ import annotations

import dataclasses
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from autosparse.database import TuningDatabase, merge, schema, verify
from autosparse.database.migrations.versions import r0002_states, r0003_facts
from autosparse.database.table import to_values
from autosparse.errors import DatabaseError
from autosparse.records import Measurement, Status

sys.path.insert(0, str(Path(__file__).parent))
from tuning_bench import Bench
from tuning_rows import hashes, key, row

WITHOUT_FACTS = {"facts"}
WITHOUT_STATES = {"state", "handover_ns", "disturbed", *WITHOUT_FACTS}
LACKING = {"0001": WITHOUT_STATES, "0002": WITHOUT_FACTS}


def make_first_layout(path: Path, rows: Sequence[Measurement], monkeypatch: pytest.MonkeyPatch) -> None:
    make_layout("0001", path, rows, monkeypatch)


def make_layout(
    revision: str, path: Path, rows: Sequence[Measurement], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Makes a database as an earlier version did, and stores rows as it did, by SQL alone."""
    with monkeypatch.context() as patch:
        patch.setattr(schema, "LAYOUT", dataclasses.replace(schema.LAYOUT, head=revision))
        schema.open_engine(schema.parse_url(str(path))).dispose()
    with sqlite3.connect(path) as connection:
        for each in rows:
            values = {k: v for k, v in to_values(each).items() if k not in LACKING[revision]}
            names = ", ".join(values)
            marks = ", ".join("?" * len(values))
            connection.execute(
                f"INSERT INTO measurements ({names}) VALUES ({marks})", tuple(values.values())
            )
    connection.close()


def columns(path: Path) -> set[str]:
    connection = sqlite3.connect(path)
    found = {line[1] for line in connection.execute("PRAGMA table_info(measurements)")}
    connection.close()
    return found


def test_rows_of_the_first_layout_come_back_as_rows_without_a_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "old.db"
    rows = [row(10.0), row(None, kept=3, status=Status.TIMEOUT, message="killed"), row(30.0, threads=2)]
    make_first_layout(old, rows, monkeypatch)
    assert not WITHOUT_STATES & columns(old)
    with TuningDatabase(str(old), current_hashes=hashes, former_ids=lambda _: ()) as database:
        assert database.rows() == rows
        assert {(each.key.state, each.handover_ns, each.disturbed) for each in rows} == {("", None, "")}
        assert database.best("cpu-a", "conv2d_b1", "1x16", 16, "f32", 1) == rows[0]
        # A row of a state is another row, and one without is not stored twice.
        assert database.put(row(12.0, state="apart")) and not database.put(row(13.0))
        assert {found.median_us for found in database.rows(kept=16, threads=1)} == {10.0, 12.0}
    assert verify(str(old)).problems == ()
    with TuningDatabase(str(old), current_hashes=hashes) as again:
        assert len(again.rows()) == 4


def test_rows_of_the_second_layout_come_back_as_rows_of_whatever_there_is_today(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "old.db"
    rows = [row(10.0), row(12.0, state="apart"), row(11.0, state="shared")]
    make_layout("0002", old, rows, monkeypatch)
    assert "facts" not in columns(old)
    with TuningDatabase(
        str(old), current_hashes=hashes, current_facts=lambda device, kernel: "microcode 2"
    ) as database:
        assert database.rows() == rows
        assert database.stale() == []
        assert {each.key.facts for each in rows} == {""}
        # A row that tells its facts is another row, and one that does not is not stored twice.
        assert database.put(row(13.0, facts="microcode 2")) and not database.put(row(14.0))
        assert len(database.rows()) == 4
    assert verify(str(old)).problems == ()


def test_a_tuning_times_nothing_that_a_database_of_the_first_layout_holds(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = bench.tune()
    rows = bench.database().rows()
    old = Bench(bench.folder / "old", bench.control, bench.shared)
    old.folder.mkdir()
    make_first_layout(old.folder / "t.db", rows, monkeypatch)
    second = old.tune()
    assert (second.timed, second.reused) == (0, first.timed)
    assert second.options == first.options


def test_a_merge_takes_rows_of_the_first_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_first_layout(tmp_path / "old.db", [row(10.0)], monkeypatch)
    found = merge(str(tmp_path / "old.db"), str(tmp_path / "new.db"))
    assert found.added == 1
    with TuningDatabase(str(tmp_path / "new.db"), current_hashes=hashes) as database:
        assert database.get(key()) == row(10.0)


def test_a_change_of_layout_that_breaks_off_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "old.db"
    rows = [row(10.0), row(20.0, kept=4)]
    make_first_layout(old, rows, monkeypatch)
    with sqlite3.connect(old) as connection:  # what the new table is to be called is taken
        connection.execute("CREATE TABLE _alembic_tmp_measurements (id INTEGER)")
    connection.close()
    with pytest.raises(DatabaseError, match="_alembic_tmp_measurements"):
        TuningDatabase(str(old))
    assert not WITHOUT_STATES & columns(old)
    with sqlite3.connect(old) as connection:
        connection.execute("DROP TABLE _alembic_tmp_measurements")
    connection.close()
    with TuningDatabase(str(old), current_hashes=hashes) as database:
        assert database.rows() == rows


def test_rows_of_two_states_are_not_folded_into_one_by_going_back() -> None:
    with pytest.raises(DatabaseError, match="only if no row is lost"):
        r0002_states.downgrade()
    with pytest.raises(DatabaseError, match="only if no row is lost"):
        r0003_facts.downgrade()
