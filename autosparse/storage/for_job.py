"""The daemon's job that this process is for, if a daemon began it."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "AUTOSPARSE_JOB_FOLDER"
"""Environment variable that holds the folder of the job, whose name is the job's number."""


def job_folder() -> Path | None:
    """Gives the folder of the job that this process is for; None if a person began it."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else None


def job_number() -> str:
    """Gives the number of the job that this process is for; empty if a person began it."""
    folder = job_folder()
    return "" if folder is None else folder.name
