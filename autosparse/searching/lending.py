"""Files and folders of this machine, lent to work that runs where they are not.

Inputs are fetched by whoever lacks them. A folder that work writes to has a mirror there: what it holds
already is fetched before, and what changes comes back every second and in the end, so that it can be
followed, and taken up again on another node. Machines that share their disks do nothing of that kind.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from autosparse.storage import paths
from autosparse.storage.sending import (
    PIECE_BYTES,
    Inbox,
    NamedFile,
    check_size,
    identified,
    known_at_home_as,
)
from autosparse.storage.serial import Record, short_hash

_PUSH_S = 1.0
_MIRRORS = "mirrors"
# Who a folder belongs to is written at home: on a node the same job's files have other names.
_STAY = ("job.json",)


@dataclass(frozen=True, slots=True)
class Loan:
    """What a piece of work may use of the machine that asked for it.

    Attributes:
        lender: actor on that machine.
        names: files and folders that it reads.
        folders: that it writes to.
    """

    lender: Any
    names: tuple[str, ...]
    folders: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Named(Record):
    """A file, or a folder's files.

    Attributes:
        is_folder: which of the two.
        files: path below the folder to file; of a file alone, with an empty path.
    """

    is_folder: bool
    files: Mapping[str, NamedFile]


class Lender:
    """An actor on the machine that asks: gives and takes what was announced to it alone."""

    def __init__(self) -> None:
        self._names: set[str] = set()
        self._folders: set[str] = set()

    def announce(self, names: tuple[str, ...], folders: tuple[str, ...]) -> None:
        """Lets others have files and folders, and write to folders."""
        self._names.update(names)
        self._folders.update(folders)

    def sees(self, path: str) -> bool:
        """Whether a path is there: one that another machine has just made, on a disk that both see."""
        return os.path.exists(path)

    def name(self, path: str) -> Named:
        """Gives what a name stands for, each file with the hash of its content."""
        self._check(path in self._names, path)
        if os.path.isfile(path):
            return Named(is_folder=False, files={"": identified(path)})
        files = {str(each.relative_to(path)): each for each in _files_below(Path(path))}
        check_size(path, sum(each.stat().st_size for each in files.values()), "of a cluster")
        return Named(is_folder=True, files={rel: identified(str(each)) for rel, each in files.items()})

    def listing(self, folder: str) -> dict[str, int]:
        """Gives path below a folder to size in bytes, of the files there."""
        self._check(folder in self._folders, folder)
        root = Path(folder)
        return {str(each.relative_to(root)): each.stat().st_size for each in _files_below(root)}

    def read(self, path: str, offset: int) -> bytes:
        """Gives a piece of a file."""
        lent = {*self._names, *self._folders}
        self._check(path in lent or not lent.isdisjoint(map(str, Path(path).parents)), path)
        with open(path, "rb") as stream:
            stream.seek(offset)
            return stream.read(PIECE_BYTES)

    def write(self, folder: str, name: str, piece: bytes, offset: int, is_last: bool) -> None:
        """Takes a piece of a file; the last one puts it in the place of what was there."""
        place = self._inside(folder, name)
        place.parent.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f".{place.name}.part")
        with open(part, "r+b" if offset else "wb") as stream:
            stream.seek(offset)
            stream.write(piece)
        if is_last:
            part.replace(place)

    def remove(self, folder: str, name: str) -> None:
        """Removes a file that is no more at the mirror."""
        self._inside(folder, name).unlink(missing_ok=True)

    def _inside(self, folder: str, name: str) -> Path:
        self._check(folder in self._folders and ".." not in Path(name).parts, f"{folder}/{name}")
        return Path(folder) / name

    def _check(self, is_announced: bool, path: str) -> None:
        if not is_announced:
            raise PermissionError(f"only what was announced is lent, but got {path}")


@contextmanager
def borrowing(loan: Loan | None) -> Iterator[Mapping[str, str]]:
    """Has all that a piece of work uses on this machine while a block runs.

    Yields:
        Path there to path here, where they differ.

    Raises:
        DataError: something is too large to be sent.
    """
    if loan is None:
        yield {}
        return
    where = {path: _here(loan.lender, path) for path in loan.names}
    mirrors = {folder: Mirror(loan.lender, folder) for folder in loan.folders}
    mirrors = {folder: mirror for folder, mirror in mirrors.items() if not mirror.is_shared}
    where |= {folder: str(mirror.fetched()) for folder, mirror in mirrors.items()}
    where = {there: here for there, here in where.items() if there != here}
    over = threading.Event()
    pushing = threading.Thread(target=_push, args=(tuple(mirrors.values()), over), daemon=True)
    pushing.start()
    try:
        with known_at_home_as(where):
            yield where
    finally:
        over.set()
        pushing.join()
        for mirror in mirrors.values():
            mirror.close()


def _push(mirrors: tuple[Mirror, ...], over: threading.Event) -> None:
    while mirrors and not over.wait(_PUSH_S):
        for mirror in mirrors:
            mirror.push()


# Lender's path to here: what a run reads does not change meanwhile.
_found: dict[str, str] = {}


def _here(lender: Any, path: str) -> str:
    """Gives where a file or folder of the lender is on this machine; fetches what is not."""
    if path not in _found or not os.path.exists(_found[path]):
        _found[path] = path if os.path.isdir(path) else _fetched(lender, path)
    return _found[path]


def _fetched(lender: Any, path: str) -> str:
    inbox = Inbox()
    named: Named = ray.get(lender.name.remote(path))
    if not named.is_folder:
        return _taken(lender, inbox, named.files[""])
    key = short_hash({rel: file.sha256 for rel, file in named.files.items()}, 16)
    folder = paths.home() / "sent-folders" / key / Path(path).name
    if not folder.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        nursery = Path(tempfile.mkdtemp(dir=folder.parent))
        for rel, file in named.files.items():
            (nursery / rel).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(_taken(lender, inbox, file), nursery / rel)
        try:
            nursery.rename(folder)
        except OSError:  # another process was faster
            shutil.rmtree(nursery)
    return str(folder)


def _taken(lender: Any, inbox: Inbox, file: NamedFile) -> str:
    found = inbox.find(file)
    if found is None:
        check_size(file.path, file.size_bytes, "of a cluster")
        offset = 0
        while True:
            piece: bytes = ray.get(lender.read.remote(file.path, offset))
            inbox.take(file, piece, offset)
            offset += len(piece)
            if offset >= file.size_bytes or not piece:
                break
        found = inbox.find(file)
        assert found is not None
    return found


class Mirror:
    """A folder here in the place of one on the lender's machine.

    Attributes:
        is_shared: whether the very folder is on this machine as well, so that no mirror is needed.
    """

    def __init__(self, lender: Any, folder: str) -> None:
        self._lender, self._folder = lender, folder
        self.is_shared = _is_shared(lender, Path(folder))
        self._here = paths.home() / _MIRRORS / short_hash([folder, str(lender)], 16)
        self._pushed: dict[str, tuple[int, int]] = {}
        self._turns = threading.Lock()

    def fetched(self) -> Path:
        """Makes the mirror, with what the folder holds."""
        shutil.rmtree(self._here, ignore_errors=True)
        self._here.mkdir(parents=True)
        for name, size in ray.get(self._lender.listing.remote(self._folder)).items():
            if name in _STAY:
                continue
            place = self._here / name
            place.parent.mkdir(parents=True, exist_ok=True)
            with open(place, "wb") as stream:
                while stream.tell() < size:
                    read = self._lender.read.remote(f"{self._folder}/{name}", stream.tell())
                    stream.write(ray.get(read))
        self._pushed = self._state()
        return self._here

    def push(self) -> None:
        """Brings what has changed since the last time to the lender, a result last of all."""
        with self._turns:
            state = self._state()
            for name in sorted(self._pushed.keys() - state.keys()):
                ray.get(self._lender.remove.remote(self._folder, name))
            for name in sorted(
                state, key=lambda name: (name.endswith(".json"), ".jsonl" in name, name)
            ):
                if state[name] != self._pushed.get(name):
                    self._push_file(name)
            self._pushed = state

    def close(self) -> None:
        """Brings all that has changed, and removes the mirror."""
        self.push()
        shutil.rmtree(self._here, ignore_errors=True)

    def _push_file(self, name: str) -> None:
        offset = 0
        try:
            with open(self._here / name, "rb") as stream:
                size = os.fstat(stream.fileno()).st_size
                while True:
                    piece = stream.read(min(PIECE_BYTES, size - offset))
                    is_last = offset + len(piece) >= size or not piece
                    ray.get(self._lender.write.remote(self._folder, name, piece, offset, is_last))
                    offset += len(piece)
                    if is_last:
                        return
        except FileNotFoundError:  # it was removed meanwhile, which the next push tells
            return

    def _state(self) -> dict[str, tuple[int, int]]:
        found = {}
        for file in _files_below(self._here):
            name = str(file.relative_to(self._here))
            try:
                status = file.stat()
            except FileNotFoundError:
                continue
            if name not in _STAY:
                found[name] = (status.st_size, status.st_mtime_ns)
        return found


def _is_shared(lender: Any, folder: Path) -> bool:
    """Whether what is made in a folder here is seen there."""
    parent = next(path for path in (folder, *folder.parents) if path.is_dir())
    probe = parent / f".seen-{uuid.uuid4().hex}"
    try:
        probe.touch()
    except OSError:
        return False
    try:
        return bool(ray.get(lender.sees.remote(str(probe))))
    finally:
        probe.unlink(missing_ok=True)


def _files_below(folder: Path) -> Iterator[Path]:
    """Yields the files in and below a folder; those that are just being written are hidden ones."""
    if folder.is_dir():
        yield from (
            file
            for file in sorted(folder.rglob("*"))
            if not any(part.startswith(".") for part in file.relative_to(folder).parts)
            and file.suffix != ".lock"
            and file.name != "lock"
            and file.is_file()
        )
