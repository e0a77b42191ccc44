"""A lock file that dies with its holder: the kernel lets go when the process ends, however it ends."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from autosparse.errors import RunError

# `holder` takes the lock for an instant to see whether it is free; a claim that meets it tries again.
_ATTEMPTS = 10
_PAUSE_S = 0.02

_held: set[FileLock] = set()


class FileLock:
    """An exclusive lock on one file, held from construction to `release`.

    Forked children drop it, so that a child that outlives its parent does not keep the lock.

    Raises:
        RunError: another process holds it (named by its pid), or the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._handle: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise RunError(f"{path} must be writable, but: {error.strerror}") from None
        if not _try_lock(self._handle, _ATTEMPTS):
            self._drop()
            raise RunError(
                f"one process at a time may work on {path.parent}, but process {_pid(path)} does; "
                "wait for it or stop it"
            )
        os.ftruncate(self._handle, 0)
        os.pwrite(self._handle, str(os.getpid()).encode(), 0)
        _held.add(self)

    def release(self) -> None:
        """Lets go; does nothing if already released."""
        self._drop()

    def _drop(self) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None
        _held.discard(self)


def holder(path: Path) -> str | None:
    """Gives the pid of the process that holds a lock file, or None if nobody does."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return None if _try_lock(handle, 1, fcntl.LOCK_SH) else _pid(path)
    finally:
        os.close(handle)


def _try_lock(handle: int, attempts: int, mode: int = fcntl.LOCK_EX) -> bool:
    for attempt in range(attempts):
        try:
            fcntl.flock(handle, mode | fcntl.LOCK_NB)
        except OSError:
            if attempt + 1 < attempts:
                time.sleep(_PAUSE_S)
        else:
            return True
    return False


def _pid(path: Path) -> str:
    try:
        return path.read_text().strip() or "unknown"
    except OSError:
        return "unknown"


def _forget_in_child() -> None:
    for lock in list(_held):
        lock._drop()


os.register_at_fork(after_in_child=_forget_in_child)
