"""Where autosparse keeps what outlives a run: one folder, `AUTOSPARSE_HOME` or the platform's own.

tuning.db       the tuning database (SQLite unless a URL says otherwise)
baselines/      dense weights trained for a model and data set, keyed by recipe
limits/         measured machine limits, one file per hardware_id
break-even/     break-even maps, one file per hardware_id, model, thread count and type
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from autosparse.errors import RunError


def home() -> Path:
    """Gives the folder for everything that outlives a run, and makes it.

    Raises:
        RunError: the folder cannot be made or written.
    """
    given = os.environ.get("AUTOSPARSE_HOME")
    folder = Path(given).expanduser() if given else Path(platformdirs.user_data_dir("autosparse"))
    return writable_folder(folder, "AUTOSPARSE_HOME")


def writable_folder(folder: Path, what: str) -> Path:
    """Makes a folder if need be and makes sure that files can be created in it.

    Raises:
        RunError: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-test-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise RunError(
            f"{what} must be a writable folder, but got {folder}: {error.strerror}; name another"
        ) from None
    return folder


def tuning_database_url() -> str:
    """Gives the URL of the default tuning database."""
    return f"sqlite:///{home() / 'tuning.db'}"
