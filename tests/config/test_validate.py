"""Bad input is refused before any work, with the error of its kind, and without importing torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from autosparse.config import SearchConfig, validate
from autosparse.errors import (
    AutosparseError,
    ConfigError,
    DatabaseError,
    DataError,
    ModelError,
    RunError,
)
from autosparse.run_folders import RunFolder


def good(tmp_path: Path, **changes: Any) -> SearchConfig:
    return SearchConfig(**({"model": "resnet18", "out": tmp_path / "results"} | changes))


def test_a_good_config_passes_and_its_folder_exists(tmp_path: Path) -> None:
    validate(good(tmp_path))
    assert (tmp_path / "results").is_dir()


def test_without_writing_nothing_is_made(tmp_path: Path) -> None:
    validate(good(tmp_path, out=tmp_path / "deep" / "results"), writing=False)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="must be a writable folder"):
        validate(good(tmp_path, out=tmp_path / "file" / "results"), writing=False)


@pytest.mark.parametrize("writing", [True, False])
@pytest.mark.parametrize("home", ["file/home", "file", "/proc/home", "/dev/null/home", "n" * 300])
def test_a_home_that_cannot_be_used_is_refused_before_any_work(
    home: str, writing: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if home == "/proc/home" and not writing:
        pytest.skip("to root every folder looks writable until something is written")
    (tmp_path / "file").touch()
    monkeypatch.setenv("AUTOSPARSE_HOME", str(tmp_path / home))
    with pytest.raises(RunError, match="AUTOSPARSE_HOME must be a writable folder"):
        validate(good(tmp_path), writing=writing)
    assert [path.name for path in tmp_path.iterdir()] == ["file"], "and no folder of runs"


def run_of(tmp_path: Path, status: str) -> Path:
    with RunFolder.create(
        tmp_path / "results", model="m", hardware_id="h", config_yaml="", fingerprint="f"
    ) as run:
        run.finish(status, 0)  # type: ignore[arg-type]
    return run.path


@pytest.mark.parametrize("writing", [True, False])
@pytest.mark.parametrize("since", ["never", "no/such/folder", "n" * 5000, "a\0b", "../..", "/dev/null"])
def test_a_run_to_take_over_from_that_is_not_there_is_refused_before_any_work(
    tmp_path: Path, since: str, writing: bool
) -> None:
    with pytest.raises(RunError, match="a run must be a name or folder"):
        validate(good(tmp_path, since=since), writing=writing)
    assert not (tmp_path / "results").exists()


def test_so_is_an_unfinished_one(tmp_path: Path) -> None:
    validate(good(tmp_path, since=run_of(tmp_path, "infeasible").name))
    validate(good(tmp_path, since=str(run_of(tmp_path, "done"))))
    for status in ("failed", "stopped", "running"):
        run = run_of(tmp_path, status)
        if status == "running":
            text = (run / "state.json").read_text()
            (run / "state.json").write_text(text.replace('"done"', '"running"'))
        with pytest.raises(RunError, match=f"must be a finished run, but .* is {status}"):
            validate(good(tmp_path, since=run.name))


def test_of_the_latest_there_may_be_none_yet(tmp_path: Path) -> None:
    validate(good(tmp_path, since="latest"))


@pytest.mark.parametrize("key", ["database", "storage"])
def test_a_database_that_is_none_is_refused_before_any_work(key: str, tmp_path: Path) -> None:
    text, folder, damaged = tmp_path / "text.db", tmp_path / "folder.db", tmp_path / "damaged.db"
    text.write_text("no database, whatever its name says")
    folder.mkdir()
    damaged.write_bytes(b"SQLite format 3")
    for file, part in (
        (text, "must be an SQLite database"),
        (damaged, "must be an SQLite database"),
        (folder, "must be a file that can be read and written"),
        (text / "below.db", "must be a writable folder"),
    ):
        for writing in (True, False):
            with pytest.raises(AutosparseError, match=part) as caught:
                validate(good(tmp_path, **{key: f"sqlite:///{file}"}), writing=writing)
            assert caught.value.exit_code == 2
    assert text.read_text() == "no database, whatever its name says"
    assert not (tmp_path / "results").exists()


def test_a_database_that_may_be_made_is_not_made_by_looking(tmp_path: Path) -> None:
    new = {"database": str(tmp_path / "a" / "t.db"), "storage": f"sqlite:///{tmp_path}/b/s.db"}
    validate(good(tmp_path, **new), writing=False)
    (tmp_path / "empty.db").touch()
    validate(good(tmp_path, database=str(tmp_path / "empty.db")), writing=False)
    assert [path.name for path in tmp_path.iterdir()] == ["empty.db"]


@pytest.mark.parametrize(
    ("changes", "kind", "part"),
    [
        ({"model": "resnet81"}, ModelError, "resnet18"),
        ({"model": "nowhere.py:make"}, ModelError, "nowhere.py"),
        ({"weights": "nowhere.pt"}, ModelError, "No such file"),
        ({"data": "digitz"}, DataError, "digits"),
        ({"data": "cifar10:/nowhere"}, DataError, "/nowhere"),
        ({"space": "cpuu"}, ConfigError, "cpu"),
        ({"space": "nowhere.yaml"}, ConfigError, "nowhere.yaml"),
        ({"threads": 4096}, ConfigError, "threads"),
        ({"storage": "not a url"}, ConfigError, "sqlite:///"),
        ({"database": "nosuchdb://host/x"}, DatabaseError, "nosuchdb"),
        ({"out": "/proc/nowhere"}, RunError, "/proc/nowhere"),
    ],
)
def test_bad_input_is_refused(
    changes: dict[str, Any], kind: type[AutosparseError], part: str, tmp_path: Path
) -> None:
    with pytest.raises(kind) as caught:
        validate(good(tmp_path, **changes))
    assert part in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_space_that_breaks_a_rule_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    for text, part in (
        ("sparsity: [1.2]", "sparsity"),
        ("block_n: [3]", "block_n"),
        ("blok_n: 8", "block_n"),
    ):
        file.write_text(f"version: 1\n{text}\n")
        with pytest.raises(ConfigError, match=part):
            validate(good(tmp_path, space=str(file)))


def test_corrupt_weights_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "w.pt"
    file.write_text("<html>not found</html>")
    with pytest.raises(ModelError, match="web page"):
        validate(good(tmp_path, weights=file))


def test_heavy_libraries_stay_out(tmp_path: Path) -> None:
    code = (
        "import sys; from autosparse.config import SearchConfig, validate;"
        f"validate(SearchConfig(model='resnet18', out={str(tmp_path)!r}));"
        "print([m for m in ('torch', 'ray', 'optuna', 'pandas', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
