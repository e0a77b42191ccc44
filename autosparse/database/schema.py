"""The tuning database's layout: an older one is brought up to date on opening, a newer one refused."""

from __future__ import annotations

from contextlib import AbstractContextManager

import sqlalchemy as sa
from sqlalchemy.engine import URL

from autosparse.records import MeasurementKey
from autosparse.storage import paths, sql
from autosparse.storage.sql import check_file, writing

__all__ = [
    "HEAD",
    "KEY",
    "KNOWN",
    "LAYOUT",
    "MEASUREMENTS",
    "METADATA",
    "check_file",
    "database_errors",
    "open_engine",
    "parse_url",
    "writing",
]

HEAD = "0003"
"""Revision of the layout that this code reads and writes."""

KNOWN = ("0001", "0002", "0003")
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
LAYOUT = sql.Layout(
    what="tuning database",
    head=HEAD,
    known=KNOWN,
    migrations="autosparse.database:migrations",
    remedy="check it with `autosparse db verify`, or name another",
)


def parse_url(url: str | None) -> URL:
    """Reads a database URL, or a path to an SQLite file; None gives the default database.

    Raises:
        DatabaseError: no URL.
        MissingDependency: its database's driver is not installed.
    """
    return sql.parse_url(paths.tuning_database_url() if url is None else url, LAYOUT.what)


def open_engine(url: URL, *, create: bool = True) -> sa.Engine:
    """Opens a tuning database and brings its layout up to date; see `storage.sql.open_engine`."""
    return sql.open_engine(url, LAYOUT, create=create)


def database_errors(url: object) -> AbstractContextManager[None]:
    """Turns what the database library raises into a `DatabaseError` that names the database."""
    return sql.database_errors(url, LAYOUT)
