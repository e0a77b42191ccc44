"""Where autosparse keeps what outlives a run: one folder, `AUTOSPARSE_HOME` or the platform's own.

tuning.db       the tuning database (SQLite unless a URL says otherwise)
baselines/      dense weights trained for a model and data set, keyed by recipe
reconstructions/ layers reconstructed alone, keyed by all that decides them
prunings/       trainings of `autosparse prune`, keyed by all that decides them
shards/         indexes of tar shards, one file per set of shards
sent/           files that other machines sent for jobs, by their content's hash
limits/         measured machine limits, one file per hardware_id
cubins/         machine code of kernels for GPUs, keyed by source, variant and compiler
break-even/     break-even maps, one file per hardware_id, model, thread count and type
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from autosparse.errors import RunError


def home_folder() -> Path:
    """Gives the folder for everything that outlives a run, whether it exists or not."""
    given = os.environ.get("AUTOSPARSE_HOME")
    return Path(os.path.expanduser(given)) if given else Path(platformdirs.user_data_dir("autosparse"))


def home() -> Path:
    """Gives the folder for everything that outlives a run, and makes it.

    Raises:
        RunError: the folder cannot be made or written.
    """
    return writable_folder(home_folder(), "AUTOSPARSE_HOME")


def writable_folder(folder: Path, what: str) -> Path:
    """Makes a folder if need be and makes sure that files can be created in it.

    Raises:
        RunError: it cannot be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".write-test-{os.getpid()}"
        probe.touch()
        probe.unlink(missing_ok=True)  # two threads may probe at once
    except OSError as error:
        raise RunError(
            f"{what} must be a writable folder, but got {folder}: {error.strerror}; name another"
        ) from None
    return folder


def check_writable(folder: Path, what: str) -> Path:
    """Refuses a folder that cannot be made or written, as far as that shows without writing.

    Raises:
        RunError: what exists of its path is no folder, or this user may not write there.
    """
    try:
        os.stat(folder)
    except FileNotFoundError:
        pass  # it can be made
    except (OSError, ValueError) as error:  # of a name that no folder has, or below a file
        why = getattr(error, "strerror", None) or error
        raise RunError(
            f"{what} must be a writable folder, but got {folder}: {why}; name another"
        ) from None
    nearest = next(path for path in (folder, *folder.absolute().parents) if os.path.exists(path))
    if not os.path.isdir(nearest) or not os.access(nearest, os.W_OK | os.X_OK):
        raise RunError(f"{what} must be a writable folder, but got {folder}; name another")
    return folder


def tuning_database_url() -> str:
    """Gives the URL of the default tuning database."""
    return f"sqlite:///{home_folder() / 'tuning.db'}"
