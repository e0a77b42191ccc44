"""One measurement at a time on a host, and work that makes way for it.

Two programs that measure at once slow each other down, and neither sees it. So whoever times something
holds the host's measuring lock meanwhile, whatever verb, run, user or home folder it belongs to; what
only computes, as training and evaluation do, shares it one batch at a time, and so pauses while
somebody measures. The locks die with their process.

The lock is a file in the folder of temporary files, so that all users find it. Containers that share a
host but no such folder can be given one in `AUTOSPARSE_MEASURING_LOCK`.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from autosparse.errors import RunError
from autosparse.progress import Progress
from autosparse.storage.locks import FileLock, Held, holder, open_lock, try_lock, unlock
from autosparse.storage.serial import Record

log = logging.getLogger(__name__)

_VARIABLE = "AUTOSPARSE_MEASURING_LOCK"
# A fixed place: two users whose TMPDIR differs are still on one host.
_USUAL = Path("/tmp/autosparse-measuring.lock")
_POLL_S = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder(Record):
    """Who measures.

    Attributes:
        pid: its process.
        what: what is timed.
        command: how the process was called.
        since: UTC, ISO 8601.
    """

    pid: int
    what: str
    command: str
    since: str

    def __str__(self) -> str:
        return f"process {self.pid} ({self.command}), which has timed {self.what} since {self.since}"


def lock_file(device: str = "") -> Path:
    """Gives the file of the host's measuring lock, or of a device that has one of its own."""
    path = Path(os.environ.get(_VARIABLE) or _USUAL)
    return path.with_name(f"{path.name}.{device.replace('/', '-')}") if device else path


def for_child(device: str) -> dict[str, str]:
    """Gives the environment of a process that measures on one device alone, with that device's lock."""
    return {_VARIABLE: str(lock_file(device))}


def who_measures(device: str = "") -> Holder | None:
    """Gives who holds the host's measuring lock, or a device's; None if nobody does."""
    said = holder(lock_file(device))
    if said is None:
        return None
    try:
        return Holder.from_json(json.loads(said))
    except (ValueError, TypeError):  # it has just been taken, or is another program's
        return Holder(pid=0, what="something", command="unknown", since="an unknown time")


class _Hold:
    """The hold of a process on the lock: threads take turns, and whoever has it may take it again."""

    def __init__(self) -> None:
        self.threads = threading.RLock()
        self.depth = 0
        self.thread = 0

    @property
    def is_mine(self) -> bool:
        """Whether this very thread measures."""
        return self.depth > 0 and self.thread == threading.get_ident()


_holds: dict[str, _Hold] = {}


def _hold(device: str = "") -> _Hold:
    return _holds.setdefault(device, _Hold())


@contextmanager
def measuring(what: str, progress: Progress | None = None, *, device: str = "") -> Iterator[None]:
    """Holds the host's measuring lock, waiting for whoever has it.

    A thread that holds it already just goes on, and so does a child of the process that holds it.

    Args:
        what: what is timed, for whoever waits.
        progress: told for whom we wait, and asked whether to stop meanwhile.
        device: one that is timed by a clock of its own, and so with a lock of its own: several GPUs
            are measured at once, each by one process. Empty is the host's.

    Raises:
        Stopped: a stop was requested while waiting.
    """
    hold, progress = _hold(device), progress or Progress()
    while not hold.threads.acquire(timeout=_POLL_S):
        progress.check()
    locked = None
    try:
        if not hold.depth:
            locked = _taken(what, progress, device)
            hold.thread = threading.get_ident()
        hold.depth += 1
        try:
            yield
        finally:
            hold.depth -= 1
    finally:
        if locked is not None:
            locked.close()
        hold.threads.release()


def _taken(what: str, progress: Progress, device: str) -> FileLock | None:
    """Gives the lock; None where our parent has it or, and says so, where this host lets nobody."""
    path, told = lock_file(device), ""
    place = "device" if device else "host"
    says = Holder(pid=os.getpid(), what=what, command=_command(), since=_now())
    try:
        gate = open_lock(_gate(path), for_everyone=True)
    except RunError as error:
        progress.log(f"measuring without a lock: {error}")
        return None
    try:
        while True:
            # Asked first: a child of whoever measures comes here for every kernel.
            other = who_measures(device)
            if other is not None and other.pid == os.getppid():
                return None
            # Whoever wants to measure shuts the gate, so that work that shares the lock ends.
            if try_lock(gate, path):
                try:
                    return FileLock(path, says=json.dumps(says.to_json()), for_everyone=True)
                except Held:
                    pass
            if other is not None and str(other) != told:
                told = str(other)
                progress.log(f"waiting to measure: one at a time on a {place}, and now it is {told}")
            progress.check()
            time.sleep(_POLL_S)
    except RunError as error:
        progress.log(f"measuring without a lock: {error}")
        return None
    finally:
        os.close(gate)


def _gate(path: Path) -> Path:
    return path.with_name(f"{path.name}.gate")


def _command() -> str:
    name = Path(sys.argv[0] or "python").name
    return " ".join(["autosparse" if name == "__main__.py" else name, *sys.argv[1:2]])


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


# ------------------------------------------------------------------------------- work that makes way


class _Share:
    """The share of a process: the two files, kept open."""

    def __init__(self) -> None:
        self.path = lock_file()
        self.gate = open_lock(_gate(self.path), for_everyone=True)
        try:
            self.lock = open_lock(self.path, for_everyone=True)
        except RunError:
            os.close(self.gate)
            raise
        self.users = 0

    def enter(self) -> bool:
        """Takes part unless somebody measures or wants to; says whether it did."""
        if not try_lock(self.gate, self.path, shared=True):
            return False
        try:
            if not self.users and not try_lock(self.lock, self.path, shared=True):
                return False
        finally:
            unlock(self.gate)
        self.users += 1
        return True

    def leave(self) -> None:
        """Gives one part back."""
        self.users -= 1
        if not self.users:
            unlock(self.lock)

    def close(self) -> None:
        """Closes the files."""
        os.close(self.gate)
        os.close(self.lock)


_share: _Share | None = None
_share_threads = threading.Lock()
_working = threading.local()


@contextmanager
def making_way(check: Callable[[], None] | None = None) -> Iterator[None]:
    """Lets a piece of work run only while nobody measures on this host; keep it to a second or so.

    It does nothing within a measurement of the same thread, and within other work of it.

    Args:
        check: called again and again while somebody measures; what it raises ends the wait, as
            `Progress.check` does.
    """
    if _hold().is_mine or getattr(_working, "is_inside", False):
        yield
        return
    share = _entered(check)
    _working.is_inside = True
    try:
        yield
    finally:
        _working.is_inside = False
        if share is not None:
            with _share_threads:
                share.leave()


def _entered(check: Callable[[], None] | None) -> _Share | None:
    """Waits for a part of this process's share; None where this host lets nobody have one."""
    global _share
    while True:
        with _share_threads:
            try:
                if _share is not None and _share.path != lock_file() and not _share.users:
                    # Forgotten first: the numbers of closed files may soon be those of others.
                    outdated, _share = _share, None
                    outdated.close()
                if _share is None:
                    _share = _Share()
                if _share.enter():
                    return _share
            except RunError as error:
                log.debug("work cannot make way for measurements: %s", error)
                return None
        if check is not None:
            check()
        time.sleep(_POLL_S)


def _forget_in_child() -> None:
    """Starts anew after a fork: the locks stay with the parent."""
    global _holds, _share, _share_threads, _working
    if _share is not None:
        _share.close()
    _holds, _share, _share_threads, _working = {}, None, threading.Lock(), threading.local()


os.register_at_fork(after_in_child=_forget_in_child)
