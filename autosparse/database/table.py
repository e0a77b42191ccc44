"""The table of measurements: one row per measurement, keyed by everything that can change a latency.

Rows are only ever added. Another host, kernel, policy or thread count has other keys, so nothing one
machine or version measures invalidates or overwrites what another did. A kernel whose sources change
has another `kernel_hash`: its old rows stay, but are no longer current, and no look-up of what is
fastest returns them. The same holds for rows that were taken under other facts of the day (microcode,
driver, libraries), until these are back.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from autosparse.closing import Closing
from autosparse.database.current import HardwareFacts, facts_here, former_ids_of, kernel_hashes
from autosparse.database.schema import (
    KEY,
    MEASUREMENTS,
    database_errors,
    open_engine,
    parse_url,
    writing,
)
from autosparse.errors import DatabaseError, UsageError
from autosparse.records import LayerShape, Measurement, MeasurementKey, Pattern, Status

CurrentHashes = Callable[[], Mapping[str, str]]
FormerIds = Callable[[str], tuple[str, ...]]

_FILTERS = (*KEY, "status", "version")
# Columns that exports of earlier versions lack.
_LATER = ("state", "facts")


class Stale(StrEnum):
    """Why a row is not current."""

    CHANGED = "changed"  # the kernel's sources, flags or compiler are others now
    GONE = "gone"  # there is no kernel of that name
    FACTS = "facts"  # microcode, driver or libraries are others now


class TuningDatabase(Closing):
    """The rows behind one database URL.

    Safe for several processes at once: every row is one transaction, readers never wait for writers.

    Args:
        url: SQLAlchemy URL or path of an SQLite file; None is the user's default database.
        create: make the database if it does not exist.
        current_hashes: gives the source hash of every kernel there is now.
        former_ids: gives the ids by which earlier versions named the CPU of an id.
        current_facts: gives the facts of the day by hardware id and kernel; of hosts that it does not
            know, rows are current under any.

    Raises:
        DatabaseError: the database cannot be opened or was made by a newer autosparse.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        create: bool = True,
        current_hashes: CurrentHashes = kernel_hashes,
        former_ids: FormerIds = former_ids_of,
        current_facts: HardwareFacts = facts_here,
    ) -> None:
        self._url = parse_url(url)
        self._engine = open_engine(self._url, create=create)
        self._current_hashes = current_hashes
        self._former_ids = former_ids
        self._current_facts = current_facts

    def close(self) -> None:
        """Gives connections back; a later call opens them anew."""
        self._engine.dispose()

    @property
    def url(self) -> str:
        """The database's URL, without its password."""
        return self._url.render_as_string(hide_password=True)

    @property
    def engine(self) -> sa.Engine:
        """The engine, for the modules that maintain the database."""
        return self._engine

    def current_hashes(self) -> Mapping[str, str]:
        """Gives kernel name to source hash of every kernel there is now."""
        return self._current_hashes()

    def get(self, key: MeasurementKey) -> Measurement | None:
        """Gives the row of exactly this key, or None."""
        found = self._select(*(MEASUREMENTS.c[name] == getattr(key, name) for name in KEY))
        return found[0] if found else None

    def put(self, measurement: Measurement, *, replace: bool = False) -> bool:
        """Adds a row and commits it.

        Args:
            measurement: the row.
            replace: overwrite a row with the very same key; otherwise that row is kept.

        Returns:
            Whether the row was stored.

        Raises:
            DatabaseError: the database cannot be written.
        """
        return self.put_all([measurement], replace=replace) == 1

    def put_all(self, measurements: Iterable[Measurement], *, replace: bool = False) -> int:
        """Adds rows, all or none of them; gives how many were stored."""
        stored = 0
        with database_errors(self.url), writing(self._engine) as connection:
            for measurement in measurements:
                values = to_values(measurement)
                same = sa.and_(*(MEASUREMENTS.c[name] == values[name] for name in KEY))
                exists = connection.execute(sa.select(MEASUREMENTS.c.id).where(same)).scalar()
                if exists is None:
                    connection.execute(sa.insert(MEASUREMENTS), values)
                elif replace:
                    connection.execute(sa.update(MEASUREMENTS).where(same).values(values))
                stored += exists is None or replace
        return stored

    def rows(self, **filters: Any) -> list[Measurement]:
        """Gives rows in the order they were measured.

        Rows of one `hardware_id` are also those that an earlier version stored under another one of the
        same CPU, unless they were measured again since.

        Args:
            filters: field of the key, ``status`` or ``version`` to a value, or to a collection of
                values of which one must match.

        Raises:
            UsageError: an unknown filter.
        """
        conditions = []
        for name, wanted in filters.items():
            if name not in _FILTERS:
                raise UsageError(f"rows are filtered by {', '.join(_FILTERS)}, but got {name!r}")
            column = MEASUREMENTS.c[name]
            several = isinstance(wanted, list | tuple | set | frozenset)
            if name == "hardware_id" and not several:
                conditions.append(column.in_((wanted, *self._former_ids(wanted))))
            else:
                conditions.append(column.in_(sorted(wanted)) if several else column == wanted)
        found = self._select(*conditions)
        host = filters.get("hardware_id")
        return _as_of(host, found) if isinstance(host, str) else found

    def current_facts(self, hardware_id: str, kernel: str) -> str:
        """Gives the facts of the day of a device and a kernel; empty where they are not known."""
        return self._current_facts(hardware_id, kernel)

    def why_stale(self, measurement: Measurement) -> Stale | None:
        """Says why a row is not of what there is now; None for one that is."""
        key = measurement.key
        present = self._current_hashes().get(key.kernel)
        if present != key.kernel_hash:
            return Stale.GONE if present is None else Stale.CHANGED
        if not key.facts or key.holds_under(self._current_facts(key.hardware_id, key.kernel)):
            return None
        return Stale.FACTS

    def is_current(self, measurement: Measurement) -> bool:
        """Whether the kernel that was measured is the kernel there is now, under today's facts."""
        return self.why_stale(measurement) is None

    def stale(self) -> list[Measurement]:
        """Gives the rows that are not current, of kernels that have gone among them."""
        return [row for row in self._select() if not self.is_current(row)]

    def best(
        self,
        hardware_id: str,
        shape: LayerShape | str,
        pattern: Pattern | str,
        kept: int,
        dtype: str,
        threads: int,
        policy: str | None = None,
        state: str | None = None,
    ) -> Measurement | None:
        """Gives the fastest current row of one layer and structure, by its median.

        Args:
            hardware_id: the host.
            shape: the layer.
            pattern: its pattern.
            kept: blocks kept per group; -1 when dense.
            dtype: arithmetic type.
            threads: worker threads.
            policy: only rows of this policy; None takes any, and then the newest of a kernel's rows.
            state: only rows of this state of the host; None likewise.
        """
        filters: dict[str, Any] = {
            "hardware_id": hardware_id,
            "shape": shape if isinstance(shape, str) else shape.key,
            "pattern": pattern if isinstance(pattern, str) else pattern.name,
            "kept": kept,
            "dtype": dtype,
            "threads": threads,
            "status": str(Status.OK),
        }
        filters |= {"policy": policy} if policy is not None else {}
        filters |= {"state": state} if state is not None else {}
        newest: dict[tuple[str, str], Measurement] = {}
        for row in sorted(self.rows(**filters), key=lambda row: row.measured_at):
            if self.is_current(row):
                newest[row.key.kernel, row.key.config] = row
        return min(newest.values(), key=lambda row: (row.median_us or 0, row.key.kernel), default=None)

    def _select(self, *conditions: sa.ColumnElement[bool]) -> list[Measurement]:
        query = sa.select(MEASUREMENTS).where(*conditions).order_by(MEASUREMENTS.c.id)
        with database_errors(self.url), self._engine.connect() as connection:
            found = connection.execute(query).mappings().all()
        return [from_values(dict(row)) for row in found]


def _as_of(hardware_id: str, rows: list[Measurement]) -> list[Measurement]:
    """Gives rows of one CPU under one id; of equal keys only the row that was stored under it."""
    own = {row.key for row in rows if row.key.hardware_id == hardware_id}
    found = []
    for row in rows:
        key = dataclasses.replace(row.key, hardware_id=hardware_id)
        if row.key == key:
            found.append(row)
        elif key not in own:
            found.append(dataclasses.replace(row, key=key))
    return found


def to_values(measurement: Measurement) -> dict[str, Any]:
    """Gives a row as one flat mapping of column to value."""
    values = measurement.to_json()
    return {**values.pop("key"), **values}


def from_values(values: Mapping[str, Any]) -> Measurement:
    """Rebuilds a row from `to_values`' output.

    Raises:
        DatabaseError: a value that no measurement can have.
    """
    flat = {name: value for name, value in values.items() if name != "id"}
    key = {name: flat.pop(name, None) for name in KEY if name in flat or name not in _LATER}
    try:
        return Measurement.from_json({"key": key, **flat})
    except (UsageError, ValueError) as error:
        raise DatabaseError(
            f"row {values.get('id', '')} of the tuning database is damaged: {error}"
        ) from None
