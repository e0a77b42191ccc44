"""All runs at one look."""

from __future__ import annotations

import os
from pathlib import Path

import pandas as pd

from autosparse.frames.typed import moments
from autosparse.run_folders import list_runs

_COLUMNS = ("name", "model", "created_at", "state", "stage", "budget_ms", "verdict", "path")


def runs(root: str | os.PathLike[str] = "results") -> pd.DataFrame:
    """Lists the runs under a folder, newest first, by name; `Run` opens one.

    Args:
        root: folder of all runs; one that does not exist has none.

    Returns:
        Columns `model`, `created_at` (UTC), `state`, `stage`, `budget_ms`, `verdict` and `path`.

    Raises:
        RunError: a run says that it was made at something that is no moment.
    """
    rows = [summary.to_json() for summary in list_runs(Path(root))]
    frame = pd.DataFrame.from_records(rows, columns=list(_COLUMNS))
    # A damaged run has no date.
    frame["created_at"] = moments(frame["created_at"], f"{root}: created_at of its runs")
    frame["budget_ms"] = frame["budget_ms"].astype("float64")
    return frame.set_index("name")
