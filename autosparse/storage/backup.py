"""A copy of a database in one file, consistent while others write; to restore is to put it back."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from autosparse.errors import DatabaseError, UsageError
from autosparse.storage.files import replacing
from autosparse.storage.serial import Record
from autosparse.storage.sql import parse_url

_WHAT = "database to back up"


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup(Record):
    """A copy that was made.

    Attributes:
        database: the file that was copied.
        file: the copy.
        bytes: its size.
        tables: how many rows each table has.
    """

    database: str
    file: str
    bytes: int
    tables: dict[str, int]


def back_up(url: str, target: Path, *, overwrite: bool = False) -> Backup:
    """Copies an SQLite database, as it is at one instant, and checks the copy.

    Args:
        url: of the database, or its path.
        target: the file to make; it appears when it is complete.
        overwrite: replaces an existing file.

    Raises:
        DatabaseError: no database is there, it is damaged, or it is a server's.
        UsageError: the file exists and must not be overwritten, or is the database itself.
        RunError: the file cannot be written.
    """
    source = _file_of(url)
    if os.path.exists(target) and os.path.samefile(target, source):
        raise UsageError(f"a backup must be another file than its database, but got {target}")
    if os.path.isdir(target):
        raise UsageError(f"a backup must be a file, but {target} is a folder; name a file in it")
    if os.path.exists(target) and not overwrite:
        raise UsageError(
            f"a backup's file must not exist, but {target} does; name another, or force it"
        )
    with replacing(target, mode=stat.S_IMODE(source.stat().st_mode)) as temporary:
        try:
            tables = _copy(source, temporary)
        except sqlite3.Error as error:
            raise DatabaseError(f"the {_WHAT} must be sound, but {source} gave: {error}") from None
    return Backup(database=str(source), file=str(target), bytes=target.stat().st_size, tables=tables)


def _file_of(url: str) -> Path:
    parsed = parse_url(url, _WHAT)
    if parsed.get_backend_name() != "sqlite":
        name = parsed.render_as_string(hide_password=True)
        raise DatabaseError(
            f"a {_WHAT} must be a file of SQLite, but {name} is a server's, which has its own tool; "
            f"run: pg_dump --format=custom --file=FILE {parsed.database or ''}".rstrip()
        )
    if parsed.database in (None, "", ":memory:"):
        raise DatabaseError(f"a {_WHAT} must be a file, but this one is in memory alone")
    source = Path(str(parsed.database))
    if not os.path.isfile(source):
        raise DatabaseError(f"the {_WHAT} must exist, but there is no file {source}")
    return source


def _copy(source: Path, target: Path) -> dict[str, int]:
    """Copies within one read transaction, so that others may write meanwhile; gives rows by table."""
    # Not opened for reading alone: the write-ahead log needs its file of shared memory written.
    name = f"file:{quote(str(source.absolute()))}?mode=rw"
    with (
        closing(sqlite3.connect(name, uri=True, timeout=30)) as live,
        closing(sqlite3.connect(target)) as copy,
    ):
        live.backup(copy)
        # Whoever restores it finds one file, and no log beside it that belongs to it.
        copy.execute("PRAGMA journal_mode = DELETE")
        found = [line for (line,) in copy.execute("PRAGMA integrity_check") if line != "ok"]
        if found:
            raise sqlite3.DatabaseError(f"it is damaged: {found[0]}")
        names = "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        tables = sorted(name for (name,) in copy.execute(names))
        return {table: _rows(copy, table) for table in tables}


def _rows(connection: sqlite3.Connection, table: str) -> int:
    quoted = table.replace('"', '""')
    return int(connection.execute(f'SELECT count(*) FROM "{quoted}"').fetchone()[0])
