"""Names and texts beyond ASCII, whatever locale the shell has."""

from __future__ import annotations

import os
import sys

_SWITCH = "PYTHONUTF8"


def settle() -> None:
    """Has this process and its children read and write names as UTF-8, and lets print never fail.

    Where the locale says otherwise the same command is started in its place in Python's UTF-8 mode
    (PEP 540), which cannot be entered later. An output that cannot show a character shows its code.
    """
    if not _is_utf8(sys.getfilesystemencoding()) and os.environ.get(_SWITCH) != "1":
        sys.stdout.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, _SWITCH: "1"})
    for stream in (sys.stdout, sys.stderr):
        # Anything may stand in its place, in tests and notebooks.
        if getattr(stream, "errors", None) == "strict" and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _is_utf8(encoding: str) -> bool:
    return encoding.lower().replace("-", "").replace("_", "") == "utf8"
