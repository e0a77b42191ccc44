"""The tuning database as a DataFrame."""

from __future__ import annotations

from typing import Any

import pandas as pd

from autosparse.database.schema import MEASUREMENTS
from autosparse.database.table import TuningDatabase, to_values
from autosparse.frames.typed import moments


def tuning_rows(database: str | None = None, **filters: Any) -> pd.DataFrame:
    """Gives the rows of a tuning database in the order they were measured.

    Args:
        database: SQLAlchemy URL or path of an SQLite file; None is the default database.
        **filters: a column of the key, ``status`` or ``version``, to the value wanted, or to several:
            ``tuning_rows(dtype="f32", threads=[1, 2])``.

    Returns:
        One row per measurement: everything that it is keyed by, `status`, `median_us` with its 95 %
        interval, `flops_kept`, `measured_at` (UTC), and `is_current`, which is False where the kernel
        has changed since, or the microcode, driver or library that the row was taken under.

    Raises:
        DatabaseError: there is no such database.
        UsageError: an unknown filter.
        RunError: a row says that it was measured at something that is no moment.
    """
    with TuningDatabase(database, create=False) as opened:
        found = opened.rows(**filters)
        current = [opened.is_current(row) for row in found]
    columns = [column.name for column in MEASUREMENTS.columns if column.name != "id"]
    frame = pd.DataFrame.from_records([to_values(row) for row in found], columns=columns)
    frame["status"] = frame["status"].astype("string")
    frame["measured_at"] = moments(frame["measured_at"], "measured_at of the tuning database")
    frame["is_current"] = pd.array(current, dtype="bool")
    return frame
