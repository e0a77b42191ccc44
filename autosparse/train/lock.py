"""A lock on a file that dies with its holder, so that two processes never train the same thing."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from autosparse.errors import RunError
from autosparse.progress import Progress

_POLL_S = 0.2


@contextmanager
def exclusive(path: Path, progress: Progress) -> Iterator[None]:
    """Holds the lock on a file, waiting for whoever has it; the kernel frees it if we are killed.

    Args:
        path: created if need be, and left there: removing it would let two holders in.
        progress: told once that we wait, and asked whether to stop meanwhile.

    Raises:
        RunError: the file cannot be opened.
        Stopped: a stop was requested while waiting.
    """
    try:
        file = path.open("a")
    except OSError as error:
        raise RunError(f"a lock file must be writable, but got {path}: {error.strerror}") from None
    with file:
        waited = False
        while not _try(file.fileno()):
            if not waited:
                progress.log(f"waiting for another process to finish with {path.parent}")
                waited = True
            time.sleep(_POLL_S)
            progress.check()
        yield


def _try(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
