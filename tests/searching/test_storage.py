"""A storage of another study, or of none, is refused before any work and left as it is."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import optuna
import psutil
import pytest

from autosparse.errors import RunError, UsageError
from autosparse.searching.storage import check_study, my_lease, open_storage

ASKED = {"model": "resnet18", "the space's sparsity": "[0.5]", "threads": "2"}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'study.db'}"


def start(url: str, name: str = "mine", **notes: object) -> None:
    study = optuna.create_study(storage=url, study_name=name)
    for key, value in notes.items():
        study.set_user_attr(key, value)


def test_what_changed_is_named_with_both_values(url: str) -> None:
    start(url, asked=ASKED)
    check_study(url, "mine", ASKED)
    check_study(url, "another", {"model": "vgg16"})
    with pytest.raises(RunError) as caught:
        check_study(url, "mine", {**ASKED, "the space's sparsity": "[0.75]", "threads": "1"})
    said = str(caught.value)
    assert "the space's sparsity was [0.5] and is [0.75]; threads was 2 and is 1" in said
    assert "model was" not in said
    assert "choose another study name, or change it back" in said


def test_a_study_that_noted_less_is_judged_by_what_it_noted(url: str) -> None:
    start(url, "silent")
    start(url, "older", asked={"model": "resnet18"})
    check_study(url, "silent", ASKED)
    check_study(url, "older", ASKED)
    with pytest.raises(RunError, match="model was resnet18 and is vgg16"):
        check_study(url, "older", {**ASKED, "model": "vgg16"})


def test_a_study_at_work_is_left_alone(url: str) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as worker:
        lease = {**my_lease(), "pid": worker.pid, "started": psutil.Process(worker.pid).create_time()}
        start(url, writer=lease)
        with pytest.raises(RunError, match=rf"process {worker.pid} on .* is working on 'mine'"):
            check_study(url, "mine", ASKED)
        worker.communicate(b"\n")
    check_study(url, "mine", ASKED)
    start(url, "own", writer=my_lease())
    check_study(url, "own", ASKED)
    start(url, "far", writer={**my_lease(), "host": "far", "seen_at": time.time() - 10_000})
    check_study(url, "far", ASKED)


def test_looking_writes_nothing(url: str, tmp_path: Path) -> None:
    file = tmp_path / "study.db"
    check_study(url, "mine", ASKED)
    check_study(None, "mine", ASKED)
    check_study(url, None, ASKED)
    assert not file.exists()
    for content in (b"", sqlite_of("CREATE TABLE rows (x)", tmp_path / "other.db")):
        file.write_bytes(content)
        check_study(url, "mine", ASKED)
        assert file.read_bytes() == content
    file.unlink()
    start(url, asked=ASKED)
    before = file.read_bytes()
    check_study(url, "mine", ASKED)
    assert file.read_bytes() == before


def sqlite_of(statement: str, file: Path) -> bytes:
    with sqlite3.connect(file) as connection:
        connection.execute(statement)
    connection.close()
    return file.read_bytes()


@pytest.mark.parametrize(
    "damage",
    [
        "DROP TABLE trials",
        "ALTER TABLE studies RENAME COLUMN study_name TO title",
        "UPDATE study_user_attributes SET value_json = '{'",
        "UPDATE study_user_attributes SET value_json = '3'",
        "UPDATE study_user_attributes SET key = 'writer'",
    ],
)
def test_databases_of_another_layout_are_named(damage: str, url: str, tmp_path: Path) -> None:
    start(url, asked=ASKED)
    sqlite_of(damage, tmp_path / "study.db")
    try:
        check_study(url, "mine", ASKED)
    except UsageError as error:
        assert str(tmp_path) in str(error) or "'mine'" in str(error)
        assert "\n" not in str(error)
    else:
        assert damage == "DROP TABLE trials", "which looking does not need"


@pytest.mark.parametrize("content", [b"no database", b"SQLite format 3\0" + b"\xff" * 4096])
def test_files_that_are_no_database_are_named(content: bytes, url: str, tmp_path: Path) -> None:
    (tmp_path / "study.db").write_bytes(content)
    for use in (lambda: check_study(url, "mine", ASKED), lambda: open_storage(tmp_path, url)):
        with pytest.raises(UsageError, match=r"a storage must be a database URL.*study\.db") as caught:
            use()
        assert "\n" not in str(caught.value)
        assert caught.value.exit_code == 2
    assert os.path.getsize(tmp_path / "study.db") == len(content)
