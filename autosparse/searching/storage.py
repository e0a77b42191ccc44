"""Where a study is kept: a journal in its folder, or any Optuna storage URL. One writer at a time."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import optuna
import psutil
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy.exc import SQLAlchemyError

from autosparse.errors import UsageError
from autosparse.files import cut_torn_line

JOURNAL = "study.journal"
LOCK = "study.lock"
# A writer on another host cannot be asked whether it lives; it signs this often at least.
_LEASE_S = 900.0

# Optuna writes to stderr by itself otherwise; what it has to say goes the way of all log lines.
optuna.logging.disable_default_handler()
optuna.logging.enable_propagation()
optuna.logging.set_verbosity(optuna.logging.WARNING)


class OneWriterJournal(JournalFileBackend):
    """A journal file that only its folder's owner writes, so that appending needs no lock of its own.

    It does not wait for the disk either, which took most of a study's time: what was appended survives
    the death of the process, and a machine that dies costs the last seconds at most.
    """

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Appends one line per log."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with open(self._file_path, "ab") as file:
            file.write(lines.encode())


def open_storage(folder: Path, url: str | None) -> BaseStorage:
    """Opens the storage of a study. The caller holds the folder's lock.

    Args:
        folder: the study's folder; holds the journal if `url` is None.
        url: an SQLAlchemy URL, such as ``sqlite:///study.db``.

    Raises:
        UsageError: the URL means nothing to SQLAlchemy, or the database cannot be opened.
    """
    if url is None:
        path = folder / JOURNAL
        cut_torn_line(path)
        return JournalStorage(OneWriterJournal(str(path)))
    try:
        return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    except (SQLAlchemyError, ImportError, ValueError) as error:
        raise UsageError(
            f"a storage must be a database URL such as sqlite:///study.db, but got {url!r}: "
            f"{str(error).splitlines()[0]}"
        ) from None


def my_lease() -> dict[str, Any]:
    """Says who writes, for other processes that share the storage."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "seen_at": time.time(),
    }


def is_live(lease: dict[str, Any]) -> bool:
    """Whether the writer of a lease is another process that may still be at work."""
    if lease["host"] != socket.gethostname():
        return bool(time.time() - lease["seen_at"] < _LEASE_S)
    if lease["pid"] == os.getpid():
        return False
    try:
        started = psutil.Process(lease["pid"]).create_time()
    except psutil.Error:
        return False
    return abs(float(started) - float(lease["started"])) < 1.0
