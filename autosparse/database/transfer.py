"""Rows out of a tuning database and into another: list, export, import, merge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autosparse.database.schema import KEY
from autosparse.database.table import TuningDatabase, from_values, to_values
from autosparse.errors import DatabaseError, RunError, UsageError
from autosparse.records import Measurement
from autosparse.storage import files
from autosparse.storage.serial import Record

EXPORT_SCHEMA = 1
COLUMNS = (
    *KEY,
    *(name for name in Measurement.__dataclass_fields__ if name != "key"),
)
_NUMBERS: Mapping[str, type] = {
    "kept": int,
    "threads": int,
    "repeats": int,
    "flops_kept": int,
    "median_us": float,
    "ci_low_us": float,
    "ci_high_us": float,
    "sparsity": float,
    "handover_ns": float,
}
# What exports of earlier versions lack.
_LATER = ("state", "facts", "handover_ns", "disturbed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer(Record):
    """What came of putting rows into a database.

    Attributes:
        read: rows offered.
        added: rows stored.
        kept: rows left as they were, because the database had one of the same key.
    """

    read: int
    added: int
    kept: int


def list_rows(url: str | None = None, **filters: Any) -> list[Measurement]:
    """Gives the rows of an existing database, as `TuningDatabase.rows` filters them."""
    return TuningDatabase(url, create=False).rows(**filters)


def export_rows(url: str | None, path: Path | str, **filters: Any) -> int:
    """Writes rows to a file: CSV or JSON, as its suffix says.

    Returns:
        Number of rows written.

    Raises:
        UsageError: another suffix.
        DatabaseError: the database cannot be read.
        RunError: the file cannot be written.
    """
    target = Path(path)
    suffix = _suffix(target)
    rows = [to_values(row) for row in list_rows(url, **filters)]
    if suffix == ".csv":
        files.write_rows_csv(target, rows, COLUMNS)
    else:
        files.write_json(target, {"schema": EXPORT_SCHEMA, "measurements": rows})
    return len(rows)


def import_rows(path: Path | str, url: str | None = None) -> Transfer:
    """Adds the rows of an exported file. All are checked before one is stored.

    Raises:
        UsageError: another suffix than .csv or .json.
        DatabaseError: the file is no export, or the database cannot be written.
    """
    source = Path(path)
    suffix = _suffix(source)
    try:
        found = _read_csv(source) if suffix == ".csv" else _read_json(source)
        rows = [from_values(values) for values in found]
    except (RunError, DatabaseError, ValueError) as error:
        raise DatabaseError(f"{source} must be an export of a tuning database: {error}") from None
    return _put(TuningDatabase(url), rows)


def merge(source_url: str, target_url: str | None = None) -> Transfer:
    """Copies the rows that the target lacks; doing it twice changes nothing."""
    source = TuningDatabase(source_url, create=False)
    return _put(TuningDatabase(target_url), source.rows())


def _put(database: TuningDatabase, rows: list[Measurement]) -> Transfer:
    added = database.put_all(rows)
    return Transfer(read=len(rows), added=added, kept=len(rows) - added)


def _suffix(path: Path) -> str:
    if path.suffix not in (".csv", ".json"):
        raise UsageError(f"rows are exported as .csv or .json, but got {str(path)!r}; name such a file")
    return path.suffix


def _read_csv(path: Path) -> Iterator[dict[str, Any]]:
    for row in files.read_rows_csv(path, [name for name in COLUMNS if name not in _LATER]):
        yield {name: _cell(name, text) for name, text in row.items()}


def _cell(name: str, text: str) -> Any:
    kind = _NUMBERS.get(name)
    if kind is None:
        return text
    return None if text == "" else kind(text)


def _read_json(path: Path) -> list[dict[str, Any]]:
    content = files.read_json(path)
    if not isinstance(content, dict) or content.get("schema") != EXPORT_SCHEMA:
        raise DatabaseError(f"it must be a mapping with schema {EXPORT_SCHEMA}")
    rows = content.get("measurements")
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DatabaseError("its 'measurements' must be a list of mappings")
    return rows
