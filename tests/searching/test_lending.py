"""Files that work names, found and named anew; what is sent, kept and made room for."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from autosparse.errors import DataError
from autosparse.storage import sending
from autosparse.storage.sending import (
    Inbox,
    NamedFile,
    as_at_home,
    check_size,
    identified,
    known_at_home_as,
    named_folders,
    named_paths,
    pieces,
    renamed,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    model: str
    weights: str | None = None
    data: str = "digits"
    folder: str = ""
    database: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, other: object) -> None: ...


@pytest.fixture
def work(tmp_path: Path) -> Work:
    for name in ("net.py", "weights.safetensors", "a b.py", "t.db"):
        (tmp_path / name).write_text(name)
    (tmp_path / "images").mkdir()
    (tmp_path / "run").mkdir()
    return Work(
        model=f"{tmp_path}/net.py:build",
        weights=f"{tmp_path}/weights.safetensors",
        data=f"imagefolder:{tmp_path}/images",
        folder=f"{tmp_path}/run",
        database=f"sqlite:///{tmp_path}/t.db",
        more={"all": [f"{tmp_path}/a b.py:f", f"{tmp_path}/absent", "hf:org/name", 3, None]},
    )


def test_paths_are_found_wherever_they_stand(work: Work, tmp_path: Path) -> None:
    expected = {f"{tmp_path}/{name}" for name in ("net.py", "weights.safetensors", "images", "a b.py")}
    for value in (work, [work], {"x": (work,)}, work.__call__):
        assert named_paths(value) == expected
    assert named_folders([{"x": work}]) == {f"{tmp_path}/run"}
    assert named_paths({"database": f"{tmp_path}/t.db"}) == set()
    assert named_paths(["relative", "/", "", "a:b", f"sqlite:///{tmp_path}/t.db", 1.0]) == set()


def test_a_value_is_named_anew_and_back(work: Work, tmp_path: Path) -> None:
    where = {f"{tmp_path}/net.py": "/n/other.py", f"{tmp_path}/images": "/i", f"{tmp_path}/run": "/r"}
    found = renamed(work, where)
    assert (found.model, found.data, found.folder) == ("/n/other.py:build", "imagefolder:/i", "/r")
    assert (found.weights, found.more) == (work.weights, work.more)
    assert renamed(f"{tmp_path}/run/train/weights", where) == "/r/train/weights"
    assert renamed(f"{tmp_path}/runner", where) == f"{tmp_path}/runner"
    assert renamed(found, {here: there for there, here in where.items()}) == work
    assert renamed(work.__call__, where).__self__ == found
    assert renamed((work, 1), where) == (found, 1)
    assert renamed(work, {}) is work
    with known_at_home_as(where):
        assert as_at_home(found) == work
    assert as_at_home(found) == found


def test_a_file_is_kept_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "PIECE_BYTES", 4)
    source = tmp_path / "there" / "net.py"
    source.parent.mkdir()
    for content in (b"0123456789", b"", b"0123"):
        source.write_bytes(content)
        file, inbox = identified(str(source)), Inbox()
        assert inbox.find(file) == str(source)  # where it is there as well, nothing is sent
        sent = list(pieces(file))
        source.unlink()
        assert inbox.find(file) is None
        offset = 0
        for piece in sent:
            assert inbox.find(file) is None
            inbox.take(file, piece, offset)
            offset += len(piece)
        kept = inbox.find(file)
        assert kept is not None and Path(kept).read_bytes() == content
        assert Path(kept).name == "net.py"
        source.write_bytes(b"something else here")
        assert inbox.find(file) == kept


def test_what_changes_while_it_is_sent_is_refused(tmp_path: Path) -> None:
    file = NamedFile(path=str(tmp_path / "gone"), size_bytes=3, sha256="0" * 64)
    with pytest.raises(DataError, match=r"must not change while it is sent"):
        Inbox().take(file, b"abc", 0)
    assert Inbox().find(file) is None


def test_the_cache_keeps_what_was_used_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "CACHE_BYTES", 25)
    inbox, files = Inbox(), []
    for age, content in enumerate((b"a" * 10, b"b" * 10, b"c" * 10)):
        source = tmp_path / "one"
        source.write_bytes(content)
        files.append(identified(str(source)))
        source.unlink()
        inbox.take(files[-1], content, 0)
        kept = inbox.find(files[-1])
        assert kept is not None
        os.utime(Path(kept).parent, (age, age))
    assert [inbox.find(file) is not None for file in files] == [False, True, True]


def test_what_is_too_large_is_refused() -> None:
    check_size("/x", sending.LARGEST_BYTES, "n")
    with pytest.raises(DataError, match=r"at most 4 GiB, but /x has .* both machines have"):
        check_size("/x", sending.LARGEST_BYTES + 1, "n")
