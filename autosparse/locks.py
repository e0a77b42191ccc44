"""Locks on files that die with their holder: the kernel lets go when the process ends, however it ends.

A lock's file stays where it is: removing it would let two holders in.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autosparse.closing import Closing
from autosparse.errors import RunError
from autosparse.progress import Progress

# `holder` takes the lock for an instant to see whether it is free; a claim that meets it tries again.
_ATTEMPTS = 10
_PAUSE_S = 0.02

_taken: set[FileLock] = set()


class Held(RunError):
    """Another process holds a lock."""


class FileLock(Closing):
    """An exclusive lock on one file, held from construction until it is closed.

    The file holds the pid of the holder. Forked children drop the lock, so that a child that outlives
    its parent does not keep it.

    Args:
        path: the file, made if need be.

    Raises:
        Held: another process holds it (named by its pid).
        RunError: the file cannot be opened, or its file system has no locks.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._handle: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise RunError(f"{path} must be writable, but: {error.strerror}") from None
        try:
            self._take(self._handle)
        except RunError:
            self.close()
            raise

    def _take(self, handle: int) -> None:
        if not _try_lock(handle, self.path, _ATTEMPTS):
            raise Held(
                f"one process at a time may work on {self.path.parent}, but process "
                f"{_pid(self.path)} does; wait for it or stop it"
            )
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        _taken.add(self)

    def close(self) -> None:
        """Lets go; does nothing if that was done before."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
        _taken.discard(self)


@contextmanager
def exclusive(path: Path, progress: Progress) -> Iterator[None]:
    """Holds the lock on a file, waiting for whoever has it.

    Args:
        path: the file, made if need be.
        progress: told once that we wait, and asked whether to stop meanwhile.

    Raises:
        RunError: the file cannot be opened, or its file system has no locks.
        Stopped: a stop was requested while waiting.
    """
    lock = None
    waited = False
    while lock is None:
        try:
            lock = FileLock(path)
        except Held:
            if not waited:
                progress.log(f"waiting for another process to finish with {path.parent}")
                waited = True
            progress.check()
    with lock:
        yield


def holder(path: Path) -> str | None:
    """Gives the pid of the process that holds a lock file, or None if nobody does."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return None if _try_lock(handle, path, 1, fcntl.LOCK_SH) else _pid(path)
    finally:
        os.close(handle)


def _try_lock(handle: int, path: Path, attempts: int, mode: int = fcntl.LOCK_EX) -> bool:
    for attempt in range(attempts):
        if attempt:
            time.sleep(_PAUSE_S)
        try:
            fcntl.flock(handle, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            continue
        except OSError as error:
            raise RunError(f"{path.parent} must allow file locks, but: {error.strerror}") from None
        return True
    return False


def _pid(path: Path) -> str:
    try:
        return path.read_text().strip() or "unknown"
    except OSError:
        return "unknown"


def _forget_in_child() -> None:
    for lock in list(_taken):
        lock.close()


os.register_at_fork(after_in_child=_forget_in_child)
