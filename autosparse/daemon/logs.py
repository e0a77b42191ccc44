"""A daemon's log: one JSON object a line for machines, or lines of text for people."""

from __future__ import annotations

import logging
import sys
from typing import Literal

from pythonjsonlogger.json import JsonFormatter

Format = Literal["json", "text"]

_TEXT = "%(asctime)s %(levelname)-7s %(message)s"
_FIELDS = "%(asctime)s %(levelname)s %(name)s %(message)s"
_NAMES = {"asctime": "time", "levelname": "level", "name": "logger"}


def start_log(format_: Format, level: int) -> None:
    """Sends the daemon's log lines, and what its libraries warn of, to stderr.

    Args:
        format_: how lines look.
        level: of the daemon's own lines that are shown.
    """
    handler = logging.StreamHandler(sys.stderr)
    if format_ == "json":
        formatter: logging.Formatter = JsonFormatter(_FIELDS, rename_fields=_NAMES)
    else:
        formatter = logging.Formatter(_TEXT)
    handler.setFormatter(formatter)
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    own = logging.getLogger("autosparse")
    own.handlers.clear()  # those of a command line, which would say it twice
    own.setLevel(level)
