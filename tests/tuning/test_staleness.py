"""Rows are of the kernels and of the microcode, driver and libraries of their day: others are stale."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from autosparse import hardware
from autosparse.cli import run
from autosparse.database import (
    Stale,
    TuningDatabase,
    collect_garbage,
    current,
    export_rows,
    freshness,
    import_rows,
    merge,
    verify,
)
from autosparse.devices.device import find
from autosparse.records import Measurement
from autosparse.tuning.asker import of_today
from autosparse.tuning.autotune import count

sys.path.insert(0, str(Path(__file__).parent))
from tuning_bench import REQUEST, Bench
from tuning_layers import MadeUp
from tuning_rows import hashes, row

OLD, NEW = "microcode 1", "microcode 2"


class Today:
    """What a made-up host says of the day."""

    def __init__(self, facts: str = NEW) -> None:
        self.facts = facts

    def __call__(self, hardware_id: str, kernel: str) -> str:
        return self.facts if hardware_id == "cpu-a" else ""


def opened(path: Path, today: Today, rows: tuple[Measurement, ...] = ()) -> TuningDatabase:
    database = TuningDatabase(
        str(path), current_hashes=hashes, former_ids=lambda _: (), current_facts=today
    )
    database.put_all(rows)
    return database


@pytest.fixture
def days(monkeypatch: pytest.MonkeyPatch) -> Today:
    """Lets the tuner's made-up device have facts of the day."""
    today = Today(OLD)
    monkeypatch.setattr(MadeUp, "facts", lambda device, kernel: today.facts)
    return today


@pytest.mark.smoke
def test_rows_of_another_day_are_stale_until_it_is_back(tmp_path: Path) -> None:
    today = Today(NEW)
    rows = (row(10.0, facts=OLD), row(11.0, facts=NEW), row(12.0, kept=4))
    database = opened(tmp_path / "t.db", today, rows)
    assert [database.why_stale(each) for each in rows] == [Stale.FACTS, None, None]
    assert database.stale() == [rows[0]]
    today.facts = OLD
    assert database.stale() == [rows[1]]
    today.facts = ""  # what cannot be read cannot be said to differ
    assert database.stale() == []


def test_both_rows_of_two_days_are_kept(tmp_path: Path) -> None:
    database = opened(tmp_path / "t.db", Today(), (row(10.0, facts=OLD),))
    assert database.put(row(11.0, facts=NEW), replace=True)
    assert [each.median_us for each in database.rows()] == [10.0, 11.0]
    for found in database.rows():
        assert database.get(found.key) == found


def test_a_changed_kernel_is_stale_whatever_the_day(tmp_path: Path) -> None:
    database = opened(tmp_path / "t.db", Today(OLD))
    assert database.why_stale(row(1.0, kernel_hash="before", facts=OLD)) is Stale.CHANGED
    assert database.why_stale(row(1.0, kernel="no more", facts=OLD)) is Stale.GONE


def test_the_fastest_row_is_one_of_today(tmp_path: Path) -> None:
    today = Today(NEW)
    database = opened(tmp_path / "t.db", today, (row(5.0, facts=OLD), row(9.0, facts=NEW)))
    ask = ("cpu-a", "conv2d_b1", "1x16", 16, "f32", 1)
    best = database.best(*ask)
    assert best is not None and best.median_us == 9.0
    today.facts = "microcode 3"
    assert database.best(*ask) is None


def test_rows_of_hosts_that_are_not_here_are_current(tmp_path: Path) -> None:
    other = row(1.0, hardware_id="cpu-b", facts=OLD)
    assert opened(tmp_path / "t.db", Today(NEW), (other,)).is_current(other)


class TestUpkeep:
    ROWS = (
        row(10.0, facts=OLD),
        row(11.0, facts=NEW),
        row(12.0),
        row(13.0, kernel_hash="before", facts=NEW),
    )

    def test_garbage_is_what_never_comes_back(self, tmp_path: Path) -> None:
        database = opened(tmp_path / "t.db", Today(), self.ROWS)
        found = collect_garbage(database=database)
        assert (found.rows, found.stale, found.removed) == (4, 1, 1)
        assert database.rows() == list(self.ROWS[:3])

    def test_a_check_counts_all_that_is_stale(self, tmp_path: Path) -> None:
        found = verify(database=opened(tmp_path / "t.db", Today(), self.ROWS))
        assert (found.rows, found.stale, found.problems) == (4, 2, ())

    @pytest.mark.parametrize("suffix", ["csv", "json"])
    def test_facts_travel(self, tmp_path: Path, suffix: str) -> None:
        opened(tmp_path / "a.db", Today(), self.ROWS)
        export_rows(str(tmp_path / "a.db"), tmp_path / f"rows.{suffix}")
        assert import_rows(tmp_path / f"rows.{suffix}", str(tmp_path / "b.db")).added == 4
        assert merge(str(tmp_path / "a.db"), str(tmp_path / "b.db")).added == 0
        assert opened(tmp_path / "b.db", Today()).rows() == list(self.ROWS)

    @pytest.mark.parametrize("suffix", ["csv", "json"])
    def test_exports_of_earlier_versions_have_none(self, tmp_path: Path, suffix: str) -> None:
        opened(tmp_path / "a.db", Today(), (row(12.0),))
        file = tmp_path / f"rows.{suffix}"
        export_rows(str(tmp_path / "a.db"), file)
        if suffix == "json":
            values = json.loads(file.read_text())
            del values["measurements"][0]["facts"]
            file.write_text(json.dumps(values))
        else:
            lines = [line.split(",") for line in file.read_text().splitlines()]
            place = lines[0].index("facts")
            cut = [",".join([*cells[:place], *cells[place + 1 :]]) for cells in lines]
            file.write_text("\n".join(cut) + "\n")
        assert import_rows(file, str(tmp_path / "b.db")).added == 1
        assert opened(tmp_path / "b.db", Today()).rows() == [row(12.0)]

    def test_every_device_is_told_of(self, tmp_path: Path) -> None:
        more = (
            row(1.0, hardware_id="cpu-b", facts=OLD),
            row(1.0, hardware_id="cpu-b", kernel="no more"),
        )
        database = opened(tmp_path / "t.db", Today(), (*self.ROWS, *more))
        first, second = freshness(database=database)
        assert (first.hardware_id, first.rows, first.current, first.stale) == ("cpu-a", 4, 2, 2)
        assert (first.changed, first.gone, first.facts) == ({"fast": 1}, {}, {OLD: 1})
        assert (first.today, first.is_here) == (NEW, False)
        assert (second.hardware_id, second.rows, second.current) == ("cpu-b", 2, 1)
        assert (second.changed, second.gone, second.facts) == ({}, {"no more": 1}, {})
        assert second.today == ""

    def test_an_empty_database_has_no_device(self, tmp_path: Path) -> None:
        assert freshness(database=opened(tmp_path / "t.db", Today())) == ()

    def test_the_command_line_tells_it(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        opened(tmp_path / "t.db", Today(), self.ROWS)
        assert run(["db", "stale", "--database", str(tmp_path / "t.db"), "--json"]) == 0
        [values] = json.loads(capsys.readouterr().out)
        assert (values["hardware_id"], values["rows"], values["gone"]) == ("cpu-a", 4, {"fast": 4})
        assert run(["db", "stale", "--database", str(tmp_path / "t.db")]) == 0
        assert "cpu-a" in capsys.readouterr().out
        assert run(["db", "stale", "--database", str(tmp_path / "none.db")]) != 0


class TestTuning:
    def test_another_day_has_every_row_taken_again_and_the_first_one_back_none(
        self, bench: Bench, days: Today
    ) -> None:
        first = bench.tune()
        assert first.timed > 0 and {each.key.facts for each in first.rows} == {OLD}
        assert bench.tune().timed == 0
        days.facts = NEW
        assert count(REQUEST, bench.device, bench.database()).reused == 0
        second = bench.tune()
        assert (second.timed, second.reused) == (first.timed, 0)
        assert {each.key.facts for each in second.rows} == {NEW}
        days.facts = OLD
        third = bench.tune()
        assert (third.timed, third.options) == (0, first.options)
        assert len(bench.database().rows()) == 2 * first.timed

    def test_rows_that_say_nothing_of_their_day_are_reused(self, bench: Bench, days: Today) -> None:
        days.facts = ""
        first = bench.tune()
        days.facts = NEW
        again = bench.tune()
        assert (again.timed, again.options) == (0, first.options)
        assert {each.key.facts for each in bench.database().rows()} == {""}

    def test_a_row_of_today_wins_over_one_that_says_nothing(self, bench: Bench, days: Today) -> None:
        days.facts = NEW
        unknown, own, other = row(1.0), row(2.0, facts=NEW), row(3.0, facts=OLD, kept=3)
        assert of_today([unknown, own, other], bench.device) == [own]
        assert of_today([own, unknown], bench.device) == [own]
        assert of_today([unknown], bench.device) == [row(1.0, facts=NEW)]


class TestHere:
    def test_a_processor_tells_its_microcode(self) -> None:
        cpu, microcode = find("cpu"), hardware.describe().cpu.microcode
        told = cpu.facts("any kernel")
        assert told == ("" if microcode is None else f"microcode {microcode}")
        assert current.facts_here(cpu.id, "any kernel") == told
        assert current.facts_here("another host", "any kernel") == ""

    def test_rows_under_a_former_id_are_of_this_processor(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(current, "former_ids_of", lambda name: ("once",))
        assert current.facts_here("once", "any kernel") == find("cpu").facts("any kernel")
