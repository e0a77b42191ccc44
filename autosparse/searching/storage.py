"""Where a study is kept: a journal in its folder, or any Optuna storage URL. One writer at a time."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import psutil
from optuna.exceptions import OptunaError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from sqlalchemy import create_engine, inspect
from sqlalchemy.exc import SQLAlchemyError

from autosparse.errors import RunError, UsageError
from autosparse.storage.files import cut_torn_line

JOURNAL = "study.journal"
LOCK = "study.lock"
# A writer on another host cannot be asked whether it lives; it signs this often at least.
_LEASE_S = 900.0

# From Optuna, SQLAlchemy and drivers: URLs that mean nothing, other layouts, notes of another kind.
_UNUSABLE = (
    *(OptunaError, SQLAlchemyError, ImportError, OSError),
    *(ArithmeticError, AttributeError, LookupError, TypeError, ValueError),
)

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
    with _usable(url):
        return RDBStorage(url, engine_kwargs={"pool_pre_ping": True})


def check_study(url: str | None, name: str | None, asked: Mapping[str, str]) -> None:
    """Refuses a study in a storage that cannot be continued, before any work; writes nothing.

    Args:
        url: an SQLAlchemy URL; None for a storage of the run's own, which holds no other study.
        name: the study; None for one of the run's own.
        asked: what the study would be continued with, as `StudySettings.asked`.

    Raises:
        UsageError: the storage cannot be opened.
        RunError: the study was started with something else, or another process works on it.
    """
    if url is None or name is None or not _exists(url):
        return
    with _usable(url):
        if not _holds_studies(url):  # a database of other things, or an empty one
            return
        storage = RDBStorage(url, skip_compatibility_check=True, skip_table_creation=True)
        studies = {study.study_name: study for study in storage.get_all_studies()}
        if name in studies:
            check_same(name, studies[name].user_attrs, asked)


def check_same(name: str, notes: Mapping[str, Any], asked: Mapping[str, str]) -> None:
    """Refuses to continue a study that was started with something else, or that is at work.

    Args:
        name: the study.
        notes: its attributes.
        asked: what it would be continued with.

    Raises:
        RunError: names the process at work, or what has changed, with both values.
    """
    writer = notes.get("writer")
    if writer and is_live(writer):
        raise RunError(
            f"a study must have one writer, but process {writer['pid']} on {writer['host']} is "
            f"working on {name!r}; wait for it or choose another study name"
        )
    before = notes.get("asked", {})
    changed = [key for key in asked if before.get(key, asked[key]) != asked[key]]
    if changed:
        words = "; ".join(f"{key} was {before[key]} and is {asked[key]}" for key in changed)
        raise RunError(
            f"a study must be continued with what it was started with, but of {name!r} {words}; "
            "choose another study name, or change it back"
        )


def _exists(url: str) -> bool:
    """Whether a database is there to look into; one in a file may have to be made yet."""
    file = url.removeprefix("sqlite:///")
    return file == url or os.path.isfile(Path(file))


def _holds_studies(url: str) -> bool:
    engine = create_engine(url)
    try:
        return {"studies", "version_info"} <= set(inspect(engine).get_table_names())
    finally:
        engine.dispose()


@contextmanager
def _usable(url: str) -> Iterator[None]:
    """Turns whatever a storage raises that is no study's database into an error that names it.

    Raises:
        UsageError: it cannot be used.
    """
    try:
        yield
    except _UNUSABLE as error:
        cause = getattr(error, "orig", None) or error.__cause__ or error
        why = next(iter(str(cause).splitlines()), type(cause).__name__)
        raise UsageError(
            f"a storage must be a database URL such as sqlite:///study.db, but got {url!r}: {why}"
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
