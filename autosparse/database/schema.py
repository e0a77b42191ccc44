"""The tuning database's layout: an older one is brought up to date on opening, a newer one refused."""

from __future__ import annotations

import functools
import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import alembic.command
import alembic.config
import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from autosparse.errors import ConfigError, DatabaseError, MissingDependency, RunError
from autosparse.records import MeasurementKey
from autosparse.storage import paths
from autosparse.storage.files import opened

log = logging.getLogger(__name__)

HEAD = "0002"
"""Revision of the layout that this code reads and writes."""

KNOWN = ("0001", "0002")
"""Every revision so far, oldest first."""

KEY = tuple(MeasurementKey.__dataclass_fields__)
"""The columns that make a row unique."""

METADATA = sa.MetaData()
# The layout at HEAD. How an existing file gets there is told by migrations/.
MEASUREMENTS = sa.Table(
    "measurements",
    METADATA,
    sa.Column("id", sa.Integer, primary_key=True),
    *(sa.Column(name, sa.Integer if name in ("kept", "threads") else sa.String) for name in KEY),
    sa.Column("status", sa.String),
    sa.Column("median_us", sa.Float),
    sa.Column("ci_low_us", sa.Float),
    sa.Column("ci_high_us", sa.Float),
    sa.Column("repeats", sa.Integer),
    sa.Column("sparsity", sa.Float),
    sa.Column("flops_kept", sa.BigInteger),
    sa.Column("message", sa.Text),
    sa.Column("measured_at", sa.String),
    sa.Column("version", sa.String),
    sa.Column("handover_ns", sa.Float),
    sa.Column("disturbed", sa.Text),
)
_VERSION = sa.Table("alembic_version", sa.MetaData(), sa.Column("version_num", sa.String))

_MAGIC = b"SQLite format 3\0"
# How long a writer waits for another one before it gives up.
_BUSY_MS = 30_000


@contextmanager
def database_errors(url: object) -> Iterator[None]:
    """Turns what the database library raises into a `DatabaseError` that names the database."""
    try:
        yield
    except (sa.exc.SQLAlchemyError, sqlite3.Error, ArithmeticError, TypeError, ValueError) as error:
        # The last three come from drivers: names that no file has, and values that no column can hold.
        cause = getattr(error, "orig", None) or error
        raise DatabaseError(
            f"the tuning database must be readable and writable, but {url} gave: {_first_line(cause)}; "
            "check it with `autosparse db verify`, or name another"
        ) from None


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def parse_url(url: str | None) -> URL:
    """Reads a database URL, or a path to an SQLite file; None gives the default database.

    Raises:
        DatabaseError: no URL.
        MissingDependency: its database's driver is not installed.
    """
    text = paths.tuning_database_url() if url is None else url
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
            f"a tuning database must be a path or an SQLAlchemy URL such as sqlite:////tmp/t.db, "
            f"but got {text!r}: {error}"
        ) from None
    except ImportError as error:
        raise MissingDependency(
            f"the driver of {text!r} must be installed, but {error}; install it or use SQLite"
        ) from None
    return parsed


def open_engine(url: URL, *, create: bool = True) -> sa.Engine:
    """Opens a database and brings its layout up to date.

    Args:
        url: from `parse_url`.
        create: make an SQLite file that does not exist; otherwise refuse it.

    Raises:
        DatabaseError: missing, unwritable, no database, or made by a newer autosparse.
    """
    _check_file(url, create=create)
    engine = _engine(url, os.getpid())
    with database_errors(url):
        found = _revision(engine)
        if found is not None and found not in KNOWN:
            raise DatabaseError(
                f"the tuning database {url} must have a layout up to {HEAD}, but it has {found}: "
                "it was made by a newer autosparse; upgrade, or name another database"
            )
        if found != HEAD:
            _migrate(engine)
    return engine


def _check_file(url: URL, *, create: bool) -> None:
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return
    file = Path(str(url.database))
    if not os.path.exists(file) and not create:
        raise DatabaseError(f"the tuning database must exist, but there is no file {file}")
    try:
        paths.writable_folder(file.absolute().parent, "the folder of a tuning database")
    except RunError as error:
        raise DatabaseError(str(error)) from None
    # Asked, not tried: closing a second handle on the file would drop the locks that this process's
    # connections hold on it, and another process could then discard the write-ahead log in use.
    if os.path.exists(file) and not (os.path.isfile(file) and os.access(file, os.R_OK | os.W_OK)):
        raise DatabaseError(f"the tuning database must be a writable file, but got {file}")


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
    with opened(file) as stream:
        head = stream.read(len(_MAGIC))
    if head not in (b"", _MAGIC):
        raise ConfigError(f"{what} must be an SQLite database, but {file} is something else")


# Per process: an SQLite connection must not be carried over a fork. Kept open between rows, because
# closing the last connection folds the write-ahead log back into the file and syncs it.
@functools.lru_cache(maxsize=16)
def _engine(url: URL, process: int) -> sa.Engine:
    engine = sa.create_engine(url)
    if url.get_backend_name() != "sqlite":
        return engine
    sa.event.listen(engine, "connect", _prepare_sqlite)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, record: Any) -> None:
    """Lets readers go on while somebody writes, and hands transactions to SQLAlchemy alone."""
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
    connection.execute("PRAGMA journal_mode = WAL")
    # With a write-ahead log, NORMAL survives the death of the process without loss.
    connection.execute("PRAGMA synchronous = NORMAL")


def _begin_sqlite(connection: sa.Connection) -> None:
    # A reader that turns into a writer half-way can be refused at once; so writers say so first.
    writes = connection.get_execution_options().get("writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Opens one transaction that writes; it is committed when the block ends, or not at all."""
    with engine.connect().execution_options(writes=True) as connection, connection.begin():
        yield connection


def _revision(engine: sa.Engine) -> str | None:
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table(_VERSION.name):
            return None
        return connection.execute(sa.select(_VERSION.c.version_num)).scalar()


def _migrate(engine: sa.Engine) -> None:
    config = alembic.config.Config()
    config.set_main_option("script_location", "autosparse.database:migrations")
    with writing(engine) as connection:
        # Another process may have been faster while this one waited for the lock: then nothing is left.
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, HEAD)
    log.info("the tuning database %s now has layout %s", engine.url, HEAD)
