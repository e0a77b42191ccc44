from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from autosparse.errors import RunError
from autosparse.storage import files


@pytest.mark.smoke
def test_writes_are_whole_or_absent(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "a.json"
    files.write_json(target, {"a": 1})
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(target, {"a": float("nan")})
    with pytest.raises(TypeError):
        files.write_json(target, {"a": object()})
    assert json.loads(target.read_text()) == {"a": 1}
    assert [p.name for p in target.parent.iterdir()] == ["a.json"]


def test_a_failed_rename_leaves_the_old_file_and_no_debris(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "a.txt"
    files.write_text(target, "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(RunError, match="No space left"):
        files.write_text(target, "new")
    assert target.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == 1


def test_unwritable_places_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    target = tmp_path / "file" / "a"
    for write in (
        lambda: files.write_text(target, "x"),
        lambda: files.append_jsonl(target, {}),
        lambda: files.write_rows_csv(target, [], ["a"]),
    ):
        with pytest.raises(RunError, match=str(target)):
            write()


def test_written_files_are_readable_by_others(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a", "x")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_csv_keeps_every_digit(tmp_path_factory: pytest.TempPathFactory, values: list[float]) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    files.write_rows_csv(path, [{"v": v} for v in values], ["v"])
    assert [float(row["v"]) for row in files.read_rows_csv(path, ["v"])] == values


def test_csv_cells(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    row = {"a": None, "b": True, "c": {"x": [1, 2]}, "d": 'say "hi", then\nleave'}
    files.write_rows_csv(path, [row, {}], ["a", "b", "c", "d"])
    with path.open(newline="") as stream:
        first, second = csv.DictReader(stream)
    assert first == {"a": "", "b": "true", "c": '{"x": [1, 2]}', "d": 'say "hi", then\nleave'}
    assert set(second.values()) == {""}
    with pytest.raises(ValueError, match="z"):
        files.write_rows_csv(path, [{"z": 1}], ["a"])


def test_damaged_csv_is_named(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("a,b\n1,2\n3")
    with pytest.raises(RunError, match="row 3"):
        files.read_rows_csv(path)
    path.write_text("a,b\n1,2,3\n")
    with pytest.raises(RunError, match="row 2"):
        files.read_rows_csv(path)
    path.write_text("a,b\n")
    with pytest.raises(RunError, match="lacks 'c'"):
        files.read_rows_csv(path, ["a", "c"])
    assert files.read_rows_csv(path) == []


def test_every_cut_of_a_log_reads_as_its_whole_lines_and_can_be_continued(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    rows = [{"n": n, "text": "ü" * n} for n in range(4)]
    for row in rows:
        files.append_jsonl(path, row)
    whole = path.read_bytes()
    assert files.read_jsonl(path) == rows
    for length in range(len(whole) + 1):
        path.write_bytes(whole[:length])
        kept = rows[: whole[:length].count(b"\n")]
        assert files.read_jsonl(path) == kept
        files.append_jsonl(path, {"n": "next"})
        assert files.read_jsonl(path) == [*kept, {"n": "next"}]


def test_logs_absent_and_damaged(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    assert files.read_jsonl(path) == []
    path.write_text('{"a": 1}\n{"a"\n{"a": 3}\n')
    with pytest.raises(RunError, match="line 2"):
        files.read_jsonl(path)


def test_damaged_lines_of_what_can_be_made_again_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"a": 1}\n{"a"\n{"a": 3}\n{"a": 4')
    assert files.read_jsonl(path, strict=False) == [{"a": 1}, {"a": 3}]
    assert "line 2" in caplog.text and "left out" in caplog.text


def test_a_log_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("old")
    files.write_jsonl(path, [files.finite({"a": float("nan"), "b": 1.5, "c": "x"}), {"a": 2}])
    assert files.read_jsonl(path) == [{"a": None, "b": 1.5, "c": "x"}, {"a": 2}]
    with pytest.raises(ValueError, match="JSON"):
        files.write_jsonl(path, [{"a": float("inf")}])
    assert len(files.read_jsonl(path)) == 2


def test_a_file_is_replaced_only_by_a_block_that_ends_well(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    path.write_text("old")
    with pytest.raises(KeyError), files.replacing(path) as temporary:
        temporary.write_text("half")
        raise KeyError
    assert path.read_text() == "old"
    with files.replacing(path) as temporary:
        temporary.unlink()  # as a writer does that has a temporary file of its own
        temporary.write_text("new")
    assert path.read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["weights"]
    assert path.stat().st_mode & 0o777 == 0o644


def test_unreadable_json_and_text(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with pytest.raises(RunError, match="No such file"):
        files.read_json(path)
    path.write_text('{"a": [1, 2')
    with pytest.raises(RunError, match="damaged or truncated"):
        files.read_json(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(RunError, match="byte 0"):
        files.read_text(path)
    path.write_text("[" * 100_000)
    with pytest.raises(RunError, match="damaged"):
        files.read_json(path)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_does_not_have_are_refused(tmp_path: Path, number: str) -> None:
    path = tmp_path / "x"
    path.write_text(f'{{"a": {number}}}\n')
    with pytest.raises(RunError, match=f"damaged .*{number} is no number of JSON"):
        files.read_json(path)
    with pytest.raises(RunError, match=f"line 1 .*{number} is no number of JSON"):
        files.read_jsonl(path)


def test_yaml_keeps_order(tmp_path: Path) -> None:
    files.write_yaml(tmp_path / "a.yaml", {"b": 1, "a": [1, "ü"]})
    text = (tmp_path / "a.yaml").read_text()
    assert text.index("b:") < text.index("a:")
    assert yaml.safe_load(text) == {"b": 1, "a": [1, "ü"]}
