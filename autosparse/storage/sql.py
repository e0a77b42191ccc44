"""Databases by URL: opened, their layouts brought up to date, transactions that write.

An SQLite file serves one machine; a server such as PostgreSQL serves several. Several layouts may share
one database, each with its own tables and its own table of revisions. An older layout is brought up to
date on opening, a newer one refused.
"""

from __future__ import annotations

import functools
import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import alembic.command
import alembic.config
import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from autosparse.errors import ConfigError, DatabaseError, MissingDependency, RunError
from autosparse.storage import paths
from autosparse.storage.files import opened

log = logging.getLogger(__name__)

_MAGIC = b"SQLite format 3\0"
# How long a writer waits for another one before it gives up.
_BUSY_MS = 30_000
# Of a server's advisory locks: "autospar" in ASCII, so that no other program's is met by chance.
_MIGRATING = int.from_bytes(b"autospar")


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """Tables that belong together, and how they came to be what they are.

    Attributes:
        what: what such a database is called in messages, ``tuning database``.
        head: revision that the code reads and writes.
        known: every revision so far, oldest first.
        migrations: package of the steps from one to the next, ``package:folder`` as Alembic takes it.
        version_table: name of the table that holds the revision.
        remedy: what to do when it cannot be read or written.
    """

    what: str
    head: str
    known: tuple[str, ...]
    migrations: str
    version_table: str = "alembic_version"
    remedy: str = "name another"


@contextmanager
def database_errors(url: object, layout: Layout) -> Iterator[None]:
    """Turns what the database library raises into a `DatabaseError` that names the database."""
    try:
        yield
    except (sa.exc.SQLAlchemyError, sqlite3.Error, ArithmeticError, TypeError, ValueError) as error:
        # The last three come from drivers: names that no file has, and values that no column can hold.
        cause = getattr(error, "orig", None) or error
        raise DatabaseError(
            f"the {layout.what} must be readable and writable, but {url} gave: {_first_line(cause)}; "
            f"{layout.remedy}"
        ) from None


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def parse_url(text: str, what: str) -> URL:
    """Reads a database URL, or a path to an SQLite file.

    Args:
        text: the URL or path.
        what: what such a database is called in messages.

    Raises:
        DatabaseError: no URL.
        MissingDependency: its database's driver is not installed.
    """
    if "://" not in text:
        text = f"sqlite:///{Path(os.path.expanduser(text))}"
    try:
        text.encode()  # the drivers take names in UTF-8 alone
        parsed = make_url(text)
        dialect = parsed.get_dialect()
        dialect.import_dbapi()
        dialect().create_connect_args(parsed)  # a host that a file has not, options that are no numbers
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ValueError) as error:
        raise DatabaseError(
            f"a {what} must be a path or an SQLAlchemy URL such as sqlite:////tmp/t.db, "
            f"but got {text!r}: {error}"
        ) from None
    except ImportError as error:
        raise MissingDependency(
            f"the driver of {text!r} must be installed, but {error}; install it or use SQLite"
        ) from None
    return parsed


def open_engine(url: URL, layout: Layout, *, create: bool = True) -> sa.Engine:
    """Opens a database and brings a layout in it up to date.

    Args:
        url: from `parse_url`.
        layout: what it shall hold.
        create: make an SQLite file that does not exist; otherwise refuse it.

    Raises:
        DatabaseError: missing, unwritable, no database, or made by a newer autosparse.
    """
    _check_file(url, layout.what, create=create)
    engine = _engine(url, os.getpid())
    with database_errors(url, layout):
        found = revision(engine, layout)
        if found is not None and found not in layout.known:
            raise DatabaseError(
                f"the {layout.what} {url} must have a layout up to {layout.head}, but it has {found}: "
                "it was made by a newer autosparse; upgrade, or name another database"
            )
        if found != layout.head:
            _migrate(engine, layout)
    return engine


def _check_file(url: URL, what: str, *, create: bool) -> None:
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return
    file = Path(str(url.database))
    if not os.path.exists(file) and not create:
        raise DatabaseError(f"the {what} must exist, but there is no file {file}")
    try:
        paths.writable_folder(file.absolute().parent, f"the folder of a {what}")
    except RunError as error:
        raise DatabaseError(str(error)) from None
    # Asked, not tried: closing a second handle on the file would drop the locks that this process's
    # connections hold on it, and another process could then discard the write-ahead log in use.
    if os.path.exists(file) and not (os.path.isfile(file) and os.access(file, os.R_OK | os.W_OK)):
        raise DatabaseError(f"the {what} must be a writable file, but got {file}")


def check_file(url: URL, what: str) -> None:
    """Refuses the file of an SQLite URL that is no database or cannot be written, and writes nothing.

    Args:
        url: from `parse_url`.
        what: the setting that names it.

    Raises:
        ConfigError: the file is something else, or this user may not read and write it.
        RunError: its folder cannot be made or written.
    """
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return
    file = Path(str(url.database))
    paths.check_writable(file.absolute().parent, f"the folder of the {what}")
    if not os.path.exists(file):
        return
    if not (os.path.isfile(file) and os.access(file, os.R_OK | os.W_OK)):
        raise ConfigError(f"{what} must be a file that can be read and written, but got {file}")
    if _identity(file) in _held:  # see `_check_file`; what this process has open is a database
        return
    with opened(file) as stream:
        head = stream.read(len(_MAGIC))
    if head not in (b"", _MAGIC):
        raise ConfigError(f"{what} must be an SQLite database, but {file} is something else")


# Per process: an SQLite connection must not be carried over a fork. Kept open between rows, because
# closing the last connection folds the write-ahead log back into the file and syncs it.
@functools.lru_cache(maxsize=16)
def _engine(url: URL, process: int) -> sa.Engine:
    if url.get_backend_name() != "sqlite":
        # A server may be restarted between two uses of a connection.
        return sa.create_engine(url, pool_pre_ping=True)
    engine = sa.create_engine(url)
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


# Files that this process has, or had, connections to.
_held: set[tuple[int, int]] = set()


def _identity(file: str | Path) -> tuple[int, int]:
    """Gives what a file is, by whatever name."""
    found = os.stat(file)
    return found.st_dev, found.st_ino


def _prepare_sqlite(connection: Any, record: Any) -> None:
    """Lets readers go on while somebody writes, and hands transactions to SQLAlchemy alone."""
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
    connection.execute("PRAGMA journal_mode = WAL")
    # With a write-ahead log, NORMAL survives the death of the process without loss.
    connection.execute("PRAGMA synchronous = NORMAL")
    for _, _, file in connection.execute("PRAGMA database_list").fetchall():
        if file:  # empty for one in memory
            _held.add(_identity(file))


def _begin_sqlite(connection: sa.Connection) -> None:
    # A reader that turns into a writer half-way can be refused at once; so writers say so first.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Opens one transaction that writes; it is committed when the block ends, or not at all."""
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        yield connection


def revision(engine: sa.Engine, layout: Layout) -> str | None:
    """Gives the revision of a layout that a database has; None if it has none of its tables."""
    with engine.connect() as connection:
        return _revision_in(connection, layout)


def _revision_in(connection: sa.Connection, layout: Layout) -> str | None:
    if not sa.inspect(connection).has_table(layout.version_table):
        return None
    column = sa.column("version_num", sa.String)
    return connection.execute(sa.select(column).select_from(sa.table(layout.version_table))).scalar()


def _migrate(engine: sa.Engine, layout: Layout) -> None:
    config = alembic.config.Config()
    config.set_main_option("script_location", layout.migrations)
    with writing(engine) as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATING)))
        # Another process may have been faster while this one waited for the lock: then nothing is left.
        config.attributes["connection"] = connection
        config.attributes["version_table"] = layout.version_table
        alembic.command.upgrade(config, layout.head)
    log.info("the %s %s now has layout %s", layout.what, engine.url, layout.head)
