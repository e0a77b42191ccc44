"""Files that a job names, on a machine that does not have them: sent once, and kept by their content.

A machine that has a file with the same content under the same path takes that. Any other is sent
through the cluster into a cache in the home folder there, up to `LARGEST_BYTES`; larger ones must lie
on a folder that both machines see. A folder that is there under the same path is taken as it is.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import re
import shutil
import types
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
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


def named_paths(value: Any, key: str = "") -> set[str]:
    """Gives the files and folders of this machine that a value names, wherever in it.

    Args:
        value: plain values, records, or a method of one.
        key: that the value belongs to; what ``database`` and ``folder`` name is no input.
    """
    if isinstance(value, types.MethodType):
        return named_paths(value.__self__)
    if isinstance(value, str):
        found = _path_in(value)
        is_input = found and key not in ("database", "folder")
        return {found} if is_input and os.path.exists(found) else set()
    return {path for name, each in _parts(value, key) for path in named_paths(each, name)}


def named_folders(value: Any) -> set[str]:
    """Gives the folders that a value's ``folder`` names: what it stands for writes there."""
    return {each for name, each in _every(value) if name == "folder" and isinstance(each, str)}


def renamed(value: Any, where: Mapping[str, str]) -> Any:
    """Gives a value with other names for files and folders, and for what lies in such folders.

    Args:
        value: as for `named_paths`; sequences come back as they are, or as lists.
        where: path to its name now.
    """
    if not where:
        return value
    if isinstance(value, types.MethodType):
        return types.MethodType(value.__func__, renamed(value.__self__, where))
    if isinstance(value, str):
        return _renamed_text(value, where)
    if isinstance(value, Mapping):
        return {name: renamed(each, where) for name, each in value.items()}
    if isinstance(value, list | tuple):
        each_renamed = [renamed(each, where) for each in value]
        return tuple(each_renamed) if type(value) is tuple else each_renamed
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.init}
        changed = {name: renamed(each, where) for name, each in fields.items()}
        return value if changed == fields else dataclasses.replace(value, **changed)
    return value


def _parts(value: Any, key: str) -> Iterator[tuple[str, Any]]:
    """Gives what a value is made of, each part with the key that it belongs to."""
    if isinstance(value, Mapping):
        yield from ((str(name), each) for name, each in value.items())
    elif isinstance(value, list | tuple):
        yield from ((key, each) for each in value)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        yield from ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value))


def _every(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    yield key, value
    for name, each in _parts(value, key):
        yield from _every(each, name)


_TEXT = re.compile(r"(?P<kind>[a-z0-9-]+:)?(?P<path>/[^/].*?)(?P<factory>(?<=\.py):[^:/]+)?", re.DOTALL)


def _path_in(text: str) -> str:
    """Gives the absolute path that a text is or holds: ``kind:/path``, ``/file.py:factory``."""
    found = _TEXT.fullmatch(text)
    return "" if found is None else found["path"]


def _renamed_text(text: str, where: Mapping[str, str]) -> str:
    path = _path_in(text)
    for known in (path, *map(str, Path(path).parents)) if path else ():
        if known in where:
            start = text.index(path)
            return text[:start] + where[known] + text[start + len(known) :]
    return text


# Path on this machine to what it was called where work came from that runs here.
_at_home: dict[str, str] = {}


@contextmanager
def known_at_home_as(where: Mapping[str, str]) -> Iterator[None]:
    """Lets `as_at_home` know what files are called where work came from, while a block runs.

    Args:
        where: path there to path here.
    """
    names = {here: there for there, here in where.items()}
    _at_home.update(names)
    try:
        yield
    finally:
        for name in names:
            _at_home.pop(name, None)


def as_at_home(value: Any) -> Any:
    """Gives a value with paths as they are where work came from, so that no hash depends on a node."""
    return renamed(value, _at_home)


def identified(path: str) -> NamedFile:
    """Gives a file of this machine with its content's hash."""
    status = os.stat(path)
    return NamedFile(
        path=path, size_bytes=status.st_size, sha256=_sha256(path, status.st_size, status.st_mtime_ns)
    )


def check_size(path: str, size_bytes: int, node: str) -> None:
    """Refuses what is too large to be sent.

    Raises:
        DataError: it is.
    """
    if size_bytes > LARGEST_BYTES:
        raise DataError(
            f"what is sent to the node {node} must have at most {LARGEST_BYTES / 2**30:g} GiB, but "
            f"{path} has {size_bytes / 2**30:.3g} GiB; put it on a folder that both machines have "
            "under the same path"
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
        with open(part, "rb") as stream:
            found = hashlib.file_digest(stream, "sha256").hexdigest()
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
