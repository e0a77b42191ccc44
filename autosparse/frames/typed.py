"""Columns of text that become numbers, moments and objects, or say which cell cannot be read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from autosparse.errors import RunError


def numbers(rows: Sequence[Mapping[str, str]], columns: Sequence[str], file: Path) -> pd.DataFrame:
    """Makes a frame of a CSV file's rows; cells of some columns are numbers, or missing if empty.

    Raises:
        RunError: one of them is no number.
    """
    frame = pd.DataFrame.from_records([dict(row) for row in rows])
    for name in columns:
        if name in frame:
            cells = frame[name].replace("", None)
            frame[name] = _read(cells, pd.to_numeric, "a number", f"{file}: column {name}")
    return frame


def moments(cells: pd.Series[Any], what: str) -> pd.Series[Any]:
    """Reads moments, UTC; empty cells are missing.

    Raises:
        RunError: a cell holds no moment.
    """

    def read(texts: pd.Series[Any], errors: Any = "raise") -> pd.Series[Any]:
        return pd.to_datetime(texts, utc=True, format="ISO8601", errors=errors)

    return _read(cells.replace("", None), read, "a moment", what)


def objects(rows: Sequence[Mapping[str, str]], column: str, file: Path) -> list[dict[str, Any]]:
    """Reads the JSON objects in a column of a CSV file; an empty cell holds an empty one.

    Raises:
        RunError: a cell holds something else.
    """
    found = []
    for row in rows:
        try:
            value = json.loads(row[column] or "{}")
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise _unreadable(f"{file}: column {column}", "a JSON object", row[column])
        found.append(value)
    return found


def _read(cells: pd.Series[Any], read: Callable[..., Any], kind: str, what: str) -> pd.Series[Any]:
    try:
        found: pd.Series[Any] = read(cells)
    except (ValueError, TypeError, OverflowError):
        strange = cells[read(cells, errors="coerce").isna() & cells.notna()]
        raise _unreadable(what, kind, strange.iloc[0] if len(strange) else "something else") from None
    return found


def _unreadable(what: str, kind: str, got: object) -> RunError:
    return RunError(f"{what} must hold {kind} in every row, but got {str(got)[:80]!r}; it is damaged")
