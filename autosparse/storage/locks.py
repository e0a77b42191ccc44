"""Locks on files that die with their holder: the kernel lets go when the process ends, however it ends.

A lock's file stays where it is: removing it would let two holders in.
"""

from __future__ import annotations

import fcntl
import os
import stat
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
_LONGEST = 4096  # of what a holder says of itself

_taken: set[FileLock] = set()


class Held(RunError):
    """Another process holds a lock."""


class FileLock(Closing):
    """An exclusive lock on one file, held from construction until it is closed.

    The file holds the pid of the holder, or what it says of itself. Forked children drop the lock, so
    that a child that outlives its parent does not keep it.

    Args:
        path: the file, made if need be.
        says: what the file shall hold instead of the pid.
        for_everyone: lets every user of the host take the lock.

    Raises:
        Held: another process holds it (named by its pid).
        RunError: the file cannot be opened, or its file system has no locks.
    """

    def __init__(self, path: Path, *, says: str = "", for_everyone: bool = False) -> None:
        self.path = path
        self._handle: int | None = open_lock(path, for_everyone=for_everyone)
        try:
            self._take(self._handle, says)
        except RunError:
            self.close()
            raise

    def _take(self, handle: int, says: str) -> None:
        if not try_lock(handle, self.path, attempts=_ATTEMPTS):
            raise Held(
                f"one process at a time may work on {self.path.parent}, but process "
                f"{_text(self.path)} does; wait for it or stop it"
            )
        os.ftruncate(handle, 0)
        os.pwrite(handle, (says or str(os.getpid())).encode(), 0)
        _taken.add(self)

    def close(self) -> None:
        """Lets go; does nothing if that was done before."""
        # Forgotten before it is closed: a handler's exception between the two must not leave a number
        # here that the next file to be opened gets, and that a forked child would then close.
        handle, self._handle = self._handle, None
        _taken.discard(self)
        if handle is not None:
            os.close(handle)


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
    """Gives what the holder of a lock file says, its pid by default; None if nobody holds it."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        if not _is_file(handle):
            return None
        return None if try_lock(handle, path, shared=True) else _text(path)
    finally:
        os.close(handle)


def open_lock(path: Path, *, for_everyone: bool = False) -> int:
    """Opens a lock's file, made if need be; gives its descriptor.

    Raises:
        RunError: it cannot be opened, or is a pipe or another thing that holds no text.
    """
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        try:
            # Where anybody may make files, the kernel refuses to "make" one that another user has made.
            handle = os.open(path, flags)
        except FileNotFoundError:
            handle = os.open(path, flags | os.O_CREAT, 0o644)
            if for_everyone:
                os.fchmod(handle, 0o666)
    except OSError as error:
        raise RunError(f"{path} must be writable, but: {error.strerror}") from None
    if not _is_file(handle):
        os.close(handle)
        raise RunError(f"{path} must be a regular file, but is another kind of thing; remove it")
    return handle


def _is_file(handle: int) -> bool:
    return stat.S_ISREG(os.fstat(handle).st_mode)


def try_lock(handle: int, path: Path, *, attempts: int = 1, shared: bool = False) -> bool:
    """Tries to lock an open file, alone or beside others that share it; says whether it is locked.

    Raises:
        RunError: its file system has no locks.
    """
    mode = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
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


def unlock(handle: int) -> None:
    """Lets go of a lock without closing its file."""
    fcntl.flock(handle, fcntl.LOCK_UN)


def _text(path: Path) -> str:
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as stream:
            content = stream.read(_LONGEST) or b""  # a pipe that nobody writes into gives None
            return content.decode().strip() or "unknown"
    except (OSError, UnicodeDecodeError):
        return "unknown"


def _forget_in_child() -> None:
    for lock in list(_taken):
        lock.close()


os.register_at_fork(after_in_child=_forget_in_child)
