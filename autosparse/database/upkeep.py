"""Keeping a tuning database sound: rows of kernels that are gone, and a check of all others.

Rows that were taken under another microcode, driver or library stay: they count again when it is back.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import sqlalchemy as sa

from autosparse.database.schema import HEAD, KEY, MEASUREMENTS, database_errors, writing
from autosparse.database.table import Stale, TuningDatabase, from_values
from autosparse.errors import DatabaseError
from autosparse.records import Measurement
from autosparse.storage.serial import Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Garbage(Record):
    """What a garbage collection found.

    Attributes:
        rows: rows before.
        stale: rows of kernels that have since changed or gone.
        removed: rows deleted; 0 in a dry run.
        kernels: stale rows per kernel name.
    """

    rows: int
    stale: int
    removed: int
    kernels: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification(Record):
    """What a check of a database found.

    Attributes:
        url: the database.
        schema: revision of its layout.
        rows: rows in all.
        stale: rows of kernels that have since changed or gone, or taken under another microcode, driver
            or library; not a fault.
        statuses: rows per status.
        hosts: rows per hardware_id.
        problems: faults, one sentence each; empty if the database is sound.
    """

    url: str
    schema: str
    rows: int
    stale: int
    statuses: Mapping[str, int]
    hosts: Mapping[str, int]
    problems: tuple[str, ...]


def collect_garbage(
    url: str | None = None, *, dry_run: bool = False, database: TuningDatabase | None = None
) -> Garbage:
    """Deletes the rows whose kernel has since changed or gone; those of other hosts too.

    Args:
        url: the database.
        dry_run: count, but delete nothing.
        database: an open database to use instead of `url`.

    Raises:
        DatabaseError: it cannot be read or written, or there are no kernels to compare with.
    """
    store = database or TuningDatabase(url, create=False)
    if not store.current_hashes():
        raise DatabaseError("rows are compared with the kernels there are now, but there are none")
    stale = [row for row in store.stale() if store.why_stale(row) is not Stale.FACTS]
    total = len(store.rows())
    removed = 0 if dry_run else _delete(store, stale)
    kernels = Counter(row.key.kernel for row in stale)
    return Garbage(rows=total, stale=len(stale), removed=removed, kernels=dict(sorted(kernels.items())))


def _delete(store: TuningDatabase, rows: list[Measurement]) -> int:
    # By name and hash, not by row number: a row added meanwhile under another hash is never touched.
    pairs = sorted({(row.key.kernel, row.key.kernel_hash) for row in rows})
    removed = 0
    with database_errors(store.url), writing(store.engine) as connection:
        for kernel, kernel_hash in pairs:
            gone = sa.delete(MEASUREMENTS).where(
                MEASUREMENTS.c.kernel == kernel, MEASUREMENTS.c.kernel_hash == kernel_hash
            )
            removed += connection.execute(gone).rowcount
    return removed


def verify(url: str | None = None, *, database: TuningDatabase | None = None) -> Verification:
    """Checks the file, the uniqueness of keys, and that every row can be a measurement.

    Raises:
        DatabaseError: the database cannot be opened at all.
    """
    store = database or TuningDatabase(url, create=False)
    problems = _file_problems(store) or _duplicates(store)
    rows: list[Measurement] = []
    if not problems:
        rows, damaged = _read_rows(store)
        problems += damaged
    for row in rows:
        problems += [f"{_label(row)}: {reason}" for reason in why_implausible(row)]
    return Verification(
        url=store.url,
        schema=HEAD,
        rows=len(rows),
        stale=sum(not store.is_current(row) for row in rows),
        statuses=_counts(str(row.status) for row in rows),
        hosts=_counts(row.key.hardware_id for row in rows),
        problems=tuple(problems),
    )


def why_implausible(row: Measurement) -> list[str]:
    """Gives the reasons why a row cannot be a true measurement; empty if it can."""
    reasons = []
    if not 0 <= row.sparsity <= 1:
        reasons.append(f"sparsity must lie in [0, 1], but is {row.sparsity}")
    if row.key.threads < 1:
        reasons.append(f"threads must be at least 1, but are {row.key.threads}")
    if row.flops_kept < 0 or row.repeats < 0:
        reasons.append("counts must not be negative")
    if row.median_us is None:
        return reasons
    figures = (row.ci_low_us, row.median_us, row.ci_high_us)
    if any(value is None or not math.isfinite(value) or value <= 0 for value in figures):
        reasons.append(f"median and interval must be greater than zero, but are {figures}")
    elif not (row.ci_low_us or 0) <= row.median_us <= (row.ci_high_us or 0):
        reasons.append(f"the interval must enclose the median, but they are {figures}")
    if row.repeats < 1:
        reasons.append("a median needs at least one sample, but repeats is 0")
    return reasons


def _file_problems(store: TuningDatabase) -> list[str]:
    if store.engine.dialect.name != "sqlite":
        return []
    try:
        with database_errors(store.url), store.engine.connect() as connection:
            found = connection.exec_driver_sql("PRAGMA integrity_check").scalars().all()
    except DatabaseError as error:  # so damaged that even the check cannot read it
        return [f"the file is damaged: {error}"]
    return [f"the file is damaged: {line}" for line in found if line != "ok"]


def _duplicates(store: TuningDatabase) -> list[str]:
    columns = [MEASUREMENTS.c[name] for name in KEY]
    query = sa.select(*columns, sa.func.count()).group_by(*columns).having(sa.func.count() > 1)
    with database_errors(store.url), store.engine.connect() as connection:
        found = connection.execute(query).all()
    return [f"{row[1]} on {row[3]} has {row[-1]} rows of one key" for row in found]


def _read_rows(store: TuningDatabase) -> tuple[list[Measurement], list[str]]:
    with database_errors(store.url), store.engine.connect() as connection:
        found = connection.execute(sa.select(MEASUREMENTS)).mappings().all()
    rows, damaged = [], []
    for values in found:
        try:
            rows.append(from_values(dict(values)))
        except DatabaseError as error:
            damaged.append(str(error))
    return rows, damaged


def _label(row: Measurement) -> str:
    return f"{row.key.kernel} on {row.key.shape} {row.key.pattern} kept {row.key.kept}"


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))
