"""A database that holds jobs and schedules, and what time it is there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from autosparse.closing import Closing
from autosparse.jobs.schema import LAYOUT
from autosparse.storage import paths, sql

Clock = Callable[[], float]


class Store(Closing):
    """The tables behind one database URL; safe for several threads and processes at once.

    Several daemons compare each other's times, so where the database is a server its clock counts, and
    the machines' own may differ. SQLite has only the machine's.

    Args:
        url: SQLAlchemy URL or path of an SQLite file; None is the user's default database.
        clock: gives seconds since the epoch, instead of the database's own clock.
        create: make an SQLite file that does not exist; otherwise refuse it.

    Raises:
        DatabaseError: the database cannot be opened or was made by a newer autosparse.
        MissingDependency: its driver is not installed.
    """

    def __init__(
        self, url: str | None = None, *, clock: Clock | None = None, create: bool = True
    ) -> None:
        self._url = sql.parse_url(paths.tuning_database_url() if url is None else url, LAYOUT.what)
        self._engine = sql.open_engine(self._url, LAYOUT, create=create)
        self._clock = clock

    def close(self) -> None:
        """Gives connections back; a later call opens them anew."""
        self._engine.dispose()

    @property
    def url(self) -> str:
        """The database's URL, without its password."""
        return self._url.render_as_string(hide_password=True)

    @property
    def full_url(self) -> str:
        """The database's URL as it was given, for processes of our own."""
        return self._url.render_as_string(hide_password=False)

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """Opens one transaction that only reads."""
        with sql.database_errors(self.url, LAYOUT), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """Opens one transaction that writes; it is committed when the block ends, or not at all."""
        with sql.database_errors(self.url, LAYOUT), sql.writing(self._engine) as connection:
            yield connection

    def now_s(self, connection: sa.Connection) -> float:
        """Gives the time, seconds since the epoch."""
        if self._clock is not None:
            return self._clock()
        if connection.dialect.name == "postgresql":
            now = sa.func.extract("epoch", sa.func.clock_timestamp())
            return float(connection.execute(sa.select(now)).scalar_one())
        return time.time()
