"""How a process ends that was told to stop: at once, and with all that it has started."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from typing import NoReturn

import psutil

from autosparse.errors import ExitCode
from autosparse.progress import STOPPED

_SHOW_CURSOR = "\x1b[?25h"


def leave_stopped(code: int) -> NoReturn:
    """Ends this process without what is usually done at the end.

    Libraries that were interrupted, as a Ray that was about to start, may hang or crash there; whatever
    needs to be closed has been by then. Processes that a library started in vain end as well.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody listens any more
            stream.flush()
    _end_children()
    os._exit(code)


def leave_midway() -> NoReturn:
    """Ends this process wherever its work is; the runs that it works on can be continued."""
    if "autosparse.run_folders.folder" in sys.modules:  # else there is no run; help must not load it
        from autosparse.run_folders.folder import record_stop

        record_stop()
    cursor = _SHOW_CURSOR if sys.stderr.isatty() else ""
    with suppress(OSError, ValueError):
        print(f"{cursor}autosparse: {STOPPED}", file=sys.stderr)
    leave_stopped(ExitCode.STOPPED)


def _end_children() -> None:
    """Kills all that this process has started; some of it notices its end only seconds later."""
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            child.kill()
