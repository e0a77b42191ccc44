"""The daemon's job that this process is for, if a daemon began it; names that both sides use."""

from __future__ import annotations

import os
from pathlib import Path

VARIABLE = "AUTOSPARSE_JOB_FOLDER"
"""Environment variable that holds the folder of the job, whose name is the job's number."""

LEASH = "AUTOSPARSE_LEASH"
"""Environment variable that holds the leash: a descriptor, and how many seconds it may be silent."""

EVENTS = "events.jsonl"
"""File in the folder of a job that holds how far it is, one event a line."""

LOCK = "lock"
"""File in the folder of a job that its process locks."""


def job_folder() -> Path | None:
    """Gives the folder of the job that this process is for; None if a person began it."""
    named = os.environ.get(VARIABLE)
    return Path(named) if named else None


def job_number() -> str:
    """Gives the number of the job that this process is for; empty if a person began it."""
    folder = job_folder()
    return "" if folder is None else folder.name
