from __future__ import annotations

import math
import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from autosparse.database import TuningDatabase, schema
from autosparse.database.upkeep import verify
from autosparse.errors import DatabaseError, MissingDependency, UsageError
from autosparse.records import MeasurementKey, Status
from autosparse.storage import paths

sys.path.insert(0, str(Path(__file__).parent))
from tuning_rows import hashes, key, row

WRITER = """
import sys
sys.path.insert(0, {folder!r})
from tuning_rows import hashes, row
from autosparse.database import TuningDatabase
database = TuningDatabase({url!r}, current_hashes=hashes)
print("ready", flush=True)
for number in range({count}):
    database.put(row(1.0 + number, shape="{prefix}%d" % number))
    print(number, flush=True)
"""


@pytest.fixture
def database(tmp_path: Path) -> TuningDatabase:
    return TuningDatabase(str(tmp_path / "tuning.db"), current_hashes=hashes)


def writer(url: Path, prefix: str, count: int) -> subprocess.Popen[str]:
    code = WRITER.format(folder=str(Path(__file__).parent), url=str(url), prefix=prefix, count=count)
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)


@pytest.mark.smoke
def test_a_row_comes_back_as_it_was(database: TuningDatabase) -> None:
    for measurement in (
        row(12.5),
        row(None, kernel="slow", message="signal 11", status=Status.CRASHED),
    ):
        assert database.put(measurement)
        assert database.get(measurement.key) == measurement
    assert database.get(key(threads=2)) is None


@pytest.mark.parametrize("field", list(MeasurementKey.__dataclass_fields__))
def test_every_field_of_the_key_makes_another_row(database: TuningDatabase, field: str) -> None:
    other = 7 if field in ("kept", "threads") else "other"
    assert database.put(row(10.0))
    assert database.put(row(20.0, **{field: other}))
    assert {found.median_us for found in database.rows()} == {10.0, 20.0}


def test_a_row_is_kept_unless_replacing_is_asked_for(database: TuningDatabase) -> None:
    database.put(row(10.0))
    assert not database.put(row(20.0))
    assert database.get(key()).median_us == 10.0
    assert database.put(row(30.0), replace=True)
    assert [found.median_us for found in database.rows()] == [30.0]


def test_the_table_itself_refuses_a_second_row_of_one_key(database: TuningDatabase) -> None:
    database.put(row(10.0))
    names = ", ".join(column.name for column in schema.MEASUREMENTS.columns if column.name != "id")
    insert = f"INSERT INTO measurements ({names}) SELECT {names}"
    with database.engine.connect() as connection, pytest.raises(sa.exc.IntegrityError):
        connection.exec_driver_sql(insert + " FROM measurements")


def test_filters(database: TuningDatabase) -> None:
    database.put_all([row(1.0), row(2.0, kept=4), row(3.0, hardware_id="cpu-b"), row(None, kept=2)])
    assert [found.median_us for found in database.rows(hardware_id="cpu-a", status="ok")] == [1.0, 2.0]
    assert [found.key.kept for found in database.rows(kept=[2, 4])] == [4, 2]
    with pytest.raises(UsageError, match="filtered by"):
        database.rows(hardware="cpu-a")


class TestBest:
    ASK = ("cpu-a", "conv2d_b1", "1x16", 16, "f32", 1)

    def test_fastest_median_wins(self, database: TuningDatabase) -> None:
        database.put_all([row(10.0), row(9.0, kernel="slow", kernel_hash="h-slow")])
        assert database.best(*self.ASK).key.kernel == "slow"
        assert database.best("cpu-a", "conv2d_b1", "1x16", 8, "f32", 1) is None

    def test_only_rows_of_this_host_threads_and_policy_count(self, database: TuningDatabase) -> None:
        others = [{"hardware_id": "cpu-b"}, {"threads": 2}, {"dtype": "bf16"}, {"kept": 3}]
        database.put_all([row(10.0), *(row(1.0, **other) for other in others)])
        assert database.best(*self.ASK).median_us == 10.0
        database.put(row(5.0, policy="q"))
        assert database.best(*self.ASK, policy="p").median_us == 10.0

    def test_failures_and_stale_rows_never_win(self, database: TuningDatabase) -> None:
        database.put_all([row(None), row(1.0, kernel_hash="before"), row(2.0, kernel="gone")])
        assert database.best(*self.ASK) is None
        assert [found.median_us for found in database.stale()] == [1.0, 2.0]

    def test_of_two_policies_the_newer_row_speaks_for_a_kernel(self, database: TuningDatabase) -> None:
        database.put(row(4.0, policy="old", measured_at="2026-01-01T00:00:00+00:00"))
        database.put(row(5.0, policy="new", measured_at="2026-02-01T00:00:00+00:00"))
        assert database.best(*self.ASK).median_us == 5.0


@pytest.mark.smoke
def test_a_changed_kernel_makes_only_its_own_rows_stale(database: TuningDatabase) -> None:
    both = [row(1.0), row(2.0, kernel="slow", kernel_hash="h-slow")]
    database.put_all(both)
    changed = TuningDatabase(database.url, current_hashes=lambda: {**hashes(), "fast": "h-new"})
    assert changed.stale() == both[:1]
    assert [changed.is_current(found) for found in changed.rows()] == [False, True]
    assert changed.put(row(3.0, kernel_hash="h-new"))
    assert len(database.rows()) == 3


class TestOpening:
    def test_the_default_lies_in_the_home_folder(self, own_home: Path) -> None:
        TuningDatabase(current_hashes=hashes).put(row())
        assert (own_home / "tuning.db").exists()
        assert paths.tuning_database_url().endswith(f"{own_home}/tuning.db")

    def test_a_url_and_a_path_are_the_same_database(self, tmp_path: Path) -> None:
        TuningDatabase(str(tmp_path / "a.db"), current_hashes=hashes).put(row())
        assert len(TuningDatabase(f"sqlite:///{tmp_path}/a.db", current_hashes=hashes).rows()) == 1

    def test_missing_folders_are_made(self, tmp_path: Path) -> None:
        assert TuningDatabase(str(tmp_path / "x" / "y" / "a.db"), current_hashes=hashes).put(row())

    def test_a_missing_database_is_not_made_unasked(self, tmp_path: Path) -> None:
        with pytest.raises(DatabaseError, match="no file"):
            TuningDatabase(str(tmp_path / "a.db"), create=False, current_hashes=hashes)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        "url",
        [
            "nosuch://x",
            "sqlite://user:pw@host:notaport/x",
            "://",
            "sqlite://host/x",
            "sqlite:///x.db?timeout=abc",
        ],
    )
    def test_a_bad_url(self, url: str) -> None:
        with pytest.raises(DatabaseError):
            TuningDatabase(url, current_hashes=hashes)

    def test_a_missing_driver(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "psycopg2", None)
        with pytest.raises(MissingDependency, match="driver"):
            TuningDatabase("postgresql+psycopg2://localhost/x", current_hashes=hashes)

    @pytest.mark.parametrize(
        "content", [b"not a database, but a text of some length\n" * 100, b"x" * 10]
    )
    def test_a_file_that_is_no_database(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "a.db").write_bytes(content)
        with pytest.raises(DatabaseError, match="not a database"):
            TuningDatabase(str(tmp_path / "a.db"), current_hashes=hashes)
        assert (tmp_path / "a.db").read_bytes() == content

    def test_a_truncated_database(self, tmp_path: Path) -> None:
        file = tmp_path / "a.db"
        database = TuningDatabase(str(file), current_hashes=hashes)
        database.put_all([row(1.0 + n, shape=f"s{n}") for n in range(300)])
        database.close()
        with sqlite3.connect(file) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 3])
        with pytest.raises(DatabaseError, match="malformed"):
            TuningDatabase(str(file), current_hashes=hashes).rows()

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_an_unwritable_folder(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o500)
        with pytest.raises(DatabaseError, match="writable"):
            TuningDatabase(str(tmp_path / "a.db"), current_hashes=hashes)
        tmp_path.chmod(0o700)

    def test_a_folder_that_cannot_be(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(DatabaseError, match="writable"):
            TuningDatabase(str(tmp_path / "file" / "a.db"), current_hashes=hashes)

    def test_a_newer_layout_is_refused_and_left_alone(self, database: TuningDatabase) -> None:
        database.put(row())
        with sqlite3.connect(database.url.removeprefix("sqlite:///")) as connection:
            connection.execute("UPDATE alembic_version SET version_num = '0099'")
        connection.close()
        with pytest.raises(DatabaseError, match="newer autosparse"):
            TuningDatabase(database.url, current_hashes=hashes)

    def test_the_steps_lead_to_the_layout_that_the_code_reads(self, database: TuningDatabase) -> None:
        found = {column["name"] for column in sa.inspect(database.engine).get_columns("measurements")}
        assert found == {column.name for column in schema.MEASUREMENTS.columns}
        assert schema.KNOWN[-1] == schema.HEAD


class TestSeveralProcesses:
    def test_two_writers_and_a_reader(self, tmp_path: Path) -> None:
        url = tmp_path / "a.db"
        writers = [writer(url, prefix, 150) for prefix in "ab"]
        seen = 0
        while any(process.poll() is None for process in writers):
            if url.exists() and schema_is_there(url):
                now = len(TuningDatabase(str(url), current_hashes=hashes).rows())
                assert now >= seen
                seen = now
        assert [process.wait() for process in writers] == [0, 0]
        for process in writers:
            process.stdout.close()
        shapes = {found.key.shape for found in TuningDatabase(str(url), current_hashes=hashes).rows()}
        assert shapes == {f"{prefix}{number}" for prefix in "ab" for number in range(150)}

    @pytest.mark.parametrize("after", [3, 40])
    def test_a_killed_writer_loses_at_most_the_row_in_flight(self, tmp_path: Path, after: int) -> None:
        url = tmp_path / "a.db"
        process = writer(url, "k", 100_000)
        told = -1
        while told < after:
            line = process.stdout.readline()
            assert line, "the writer ended early"
            told = int(line) if line.strip().isdigit() else told
        process.send_signal(signal.SIGKILL)
        rest = [int(line) for line in process.stdout.read().split("\n")[:-1] if line.isdigit()]
        process.wait()
        process.stdout.close()
        told = max([told, *rest])
        database = TuningDatabase(str(url), current_hashes=hashes)
        numbers = sorted(int(found.key.shape[1:]) for found in database.rows())
        assert numbers == list(range(len(numbers)))
        assert told + 1 <= len(numbers) <= told + 2
        with database.engine.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA integrity_check").scalar() == "ok"
        assert database.put(row(shape="after"))


def schema_is_there(url: Path) -> bool:
    time.sleep(0.02)
    try:
        with sqlite3.connect(url) as connection:
            found = connection.execute("SELECT count(*) FROM alembic_version").fetchone()[0]
    except sqlite3.Error:
        return False
    finally:
        connection.close()
    return bool(found)


@pytest.mark.parametrize("column", ["median_us", "ci_low_us", "ci_high_us", "sparsity", "handover_ns"])
@pytest.mark.parametrize("figure", [math.inf, -math.inf])
def test_a_figure_that_no_json_can_hold_is_a_damaged_row(
    database: TuningDatabase, column: str, figure: float
) -> None:
    database.put(row())
    with sqlite3.connect(database.url.removeprefix("sqlite:///")) as connection:
        connection.execute(f"UPDATE measurements SET {column} = ?", (figure,))
    connection.close()
    with pytest.raises(DatabaseError, match=f"damaged: {column} must be finite"):
        database.rows()
    [problem] = verify(database=database).problems
    assert f"{column} must be finite" in problem


def test_an_update_of_one_row_changes_no_other(database: TuningDatabase) -> None:
    rows = [row(1.0 + n, shape=f"s{n}") for n in range(5)]
    database.put_all(rows)
    database.put(replace(rows[2], repeats=99), replace=True)
    assert [found.repeats for found in database.rows()] == [20, 20, 99, 20, 20]


def test_rows_of_a_cpus_former_ids_are_its_own(tmp_path: Path) -> None:
    former = {"cpu-a": ("cpu-a-with-gpu",)}
    names = {"current_hashes": hashes, "former_ids": lambda name: former.get(name, ())}
    with TuningDatabase(str(tmp_path / "t.db"), **names) as database:
        database.put_all(
            [
                row(1.0, hardware_id="cpu-a-with-gpu"),
                row(2.0, hardware_id="cpu-a-with-gpu", kept=4),
                row(3.0, kept=4),
                row(4.0, hardware_id="cpu-b"),
            ]
        )
        found = database.rows(hardware_id="cpu-a")
        assert [(each.key, each.median_us) for each in found] == [(key(), 1.0), (key(kept=4), 3.0)]
        assert database.best("cpu-a", "conv2d_b1", "1x16", 16, "f32", 1) == found[0]
        assert [each.median_us for each in database.rows(hardware_id="cpu-b")] == [4.0]
        # Nothing was moved: the other host's view and a listing of all stay as they were.
        assert len(database.rows()) == 4
        assert len(database.rows(hardware_id="cpu-a-with-gpu")) == 2
