"""Files that a job names, on a machine that does not have them: sent once, and kept by their content.

A node that has a file with the same content under the same path takes that. Any other is sent through
the cluster into a cache in the home folder there, up to `LARGEST_BYTES`; larger ones must lie on a
folder that both machines see.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autosparse.errors import DataError
from autosparse.storage import paths
from autosparse.storage.serial import Record

LARGEST_BYTES = 4 << 30
CACHE_BYTES = 32 << 30
PIECE_BYTES = 32 << 20
_FOLDER = "sent"


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedFile(Record):
    """A file as a job names it.

    Attributes:
        path: on the machine that asks.
        size_bytes: of it.
        sha256: of its content.
    """

    path: str
    size_bytes: int
    sha256: str


def named_files(value: Any, key: str = "") -> set[str]:
    """Gives the files of this machine that plain values name, a database aside."""
    if isinstance(value, Mapping):
        return {file for name, each in value.items() for file in named_files(each, str(name))}
    if isinstance(value, list | tuple):
        return {file for each in value for file in named_files(each, key)}
    file = _file_in(value, key)
    return {file} if file and os.path.isfile(file) else set()


def renamed(value: Any, where: Mapping[str, str], key: str = "") -> Any:
    """Gives plain values with other names for files.

    Args:
        value: what `named_files` was asked.
        where: file to its name now.
        key: that the value belongs to.
    """
    if isinstance(value, Mapping):
        return {name: renamed(each, where, str(name)) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [renamed(each, where, key) for each in value]
    file = _file_in(value, key)
    return value if file not in where else where[file] + value[len(file) :]


def _file_in(value: Any, key: str) -> str:
    """Gives the path that a value may be or begin with, as ``/path/to/file.py:factory`` does."""
    if not isinstance(value, str) or key == "database":
        return ""
    file = value.rpartition(":")[0] if ".py:" in value else value
    return file if Path(file).is_absolute() else ""


def identified(path: str) -> NamedFile:
    """Gives a file of this machine with its content's hash.

    Raises:
        DataError: it is too large to be sent.
    """
    status = os.stat(path)
    return NamedFile(
        path=path, size_bytes=status.st_size, sha256=_sha256(path, status.st_size, status.st_mtime_ns)
    )


def check_size(file: NamedFile, node: str) -> None:
    """Refuses a file that is too large to be sent.

    Raises:
        DataError: it is.
    """
    if file.size_bytes > LARGEST_BYTES:
        raise DataError(
            f"a file of at most {LARGEST_BYTES / 2**30:g} GiB is sent to the node {node}, but "
            f"{file.path} has {file.size_bytes / 2**30:.3g} GiB; put it on a folder that both machines "
            "have under the same path"
        )


def pieces(file: NamedFile) -> Iterator[bytes]:
    """Gives a file's content in pieces, one at least."""
    with open(file.path, "rb") as stream:
        yield stream.read(PIECE_BYTES)
        while piece := stream.read(PIECE_BYTES):
            yield piece


class Inbox:
    """The files that were sent to this machine."""

    def __init__(self) -> None:
        self._folder = paths.writable_folder(paths.home() / _FOLDER, "AUTOSPARSE_HOME")

    def find(self, file: NamedFile) -> str | None:
        """Gives where a file of this content is here; None if it has to be sent."""
        with suppress(OSError):
            status = os.stat(file.path)
            same = _sha256(file.path, status.st_size, status.st_mtime_ns)
            if status.st_size == file.size_bytes and same == file.sha256:
                return file.path
        kept = self._place(file)
        if not kept.is_file():
            return None
        with suppress(OSError):  # what is used last is removed last
            os.utime(kept.parent)
        return str(kept)

    def take(self, file: NamedFile, piece: bytes, offset: int) -> None:
        """Takes a piece; the last one makes the file.

        Raises:
            DataError: the content is not what was announced.
        """
        place = self._place(file)
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.parent / f".{os.getpid()}.part"
        with open(part, "r+b" if offset else "wb") as stream:
            stream.seek(offset)
            stream.write(piece)
        if offset + len(piece) < file.size_bytes:
            return
        found = hashlib.file_digest(open(part, "rb"), "sha256").hexdigest()
        if found != file.sha256:
            part.unlink()
            raise DataError(f"{file.path} must not change while it is sent, but did; try again")
        part.replace(place)
        self._make_room(place.parent)

    def _place(self, file: NamedFile) -> Path:
        # The name stays: that of a Python file is its module's, and suffixes tell of formats.
        return self._folder / file.sha256 / Path(file.path).name

    def _make_room(self, new: Path) -> None:
        """Removes what was not used for longest, until the rest is small enough."""
        kept = sorted((each for each in self._folder.iterdir() if each != new), key=_used, reverse=True)
        total = _size(new)
        for folder in kept:
            total += _size(folder)
            if total > CACHE_BYTES:
                shutil.rmtree(folder, ignore_errors=True)


def _used(folder: Path) -> float:
    with suppress(OSError):
        return folder.stat().st_mtime
    return 0.0


def _size(folder: Path) -> int:
    with suppress(OSError):
        return sum(file.stat().st_size for file in folder.iterdir())
    return 0


@functools.lru_cache(maxsize=1024)
def _sha256(path: str, size_bytes: int, changed_ns: int) -> str:
    """Hashes a file once as long as it does not change."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
