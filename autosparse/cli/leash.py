"""What ties a process to the daemon that began it: a folder of its job, and a leash.

The leash is a pipe on which the daemon gives word now and then. When it closes, because the daemon has
ended however it did, or when it is silent for longer than the daemon's lease, somebody else may be
about to begin the same job: then this process stops as on a request to terminate, and ends a while
later in any case. The lock on the job's folder is held until the process has ended, so that the next
one of the same job begins no sooner.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

from autosparse.errors import RunError
from autosparse.storage.for_job import LEASH, LOCK, job_folder
from autosparse.storage.locks import FileLock, Held

# Long enough for a process of an earlier attempt to notice that its leash is gone, and to end.
_PATIENCE_S = 60.0
_POLL_S = 0.1
# After which a process that was asked to stop is ended, with all that it has begun.
_LAST_S = 10.0

_held: list[FileLock] = []


def put_on() -> None:
    """Ties this process to the daemon that began it; does nothing in one that a person began.

    Raises:
        RunError: the process of an earlier attempt at the same job does not end.
    """
    leash = os.environ.pop(LEASH, "")
    if leash:
        number, _, silent_s = leash.partition(":")
        watching = threading.Thread(target=_watch, args=(int(number), float(silent_s)), daemon=True)
        watching.start()
    folder = job_folder()
    if folder is not None:
        _held.append(_locked(folder / LOCK))


def _locked(path: Path) -> FileLock:
    until_s = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return FileLock(path)
        except Held:
            if time.monotonic() > until_s:
                raise RunError(
                    f"one process at a time may work on a job, but that of an earlier attempt goes on "
                    f"after {_PATIENCE_S:g} s; end the process named in {path}"
                ) from None
            time.sleep(_POLL_S)


def _watch(number: int, silent_s: float) -> None:
    """Waits for the leash to close or to fall silent, and then ends this process."""
    while select.select([number], [], [], silent_s)[0]:
        if not os.read(number, 4096):
            break
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_LAST_S)
    with suppress(OSError):
        os.killpg(os.getpgrp(), signal.SIGKILL)
