"""Program and manifest into a file."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from autosparse.deploy.container import write_container
from autosparse.deploy.manifest import FORMAT, FORMAT_VERSION, Manifest
from autosparse.deploy.recorded import SHARED, RecordedProgram
from autosparse.errors import UsageError
from autosparse.storage.paths import check_writable


def write_artifact(
    path: Path, program: RecordedProgram, manifest: Manifest, *, overwrite: bool = False
) -> Manifest:
    """Writes an artifact atomically; gives the manifest with the version that the file has.

    Raises:
        UsageError: the file exists and must not be overwritten.
        RunError: the file cannot be written.
    """
    check_target(path, overwrite)
    arrays = program.arrays()
    # A file in which nothing is shared is one that the first version reads too.
    version = FORMAT_VERSION if SHARED in arrays else 1
    written = dataclasses.replace(manifest, format_version=version)
    metadata = {
        "format": FORMAT,
        "format_version": str(version),
        "manifest": written.text(),
    }
    write_container(path, arrays, metadata)
    return written


def check_target(path: Path, overwrite: bool) -> None:
    """Refuses a file that exists or cannot be made, before any work is done for it.

    Raises:
        UsageError: it exists and must not be overwritten, or is a folder.
        RunError: its folder cannot be made or written.
    """
    if os.path.isdir(path):
        raise UsageError(f"the file to write must be no folder, but got {path}; name a file in it")
    if os.path.exists(path) and not overwrite:
        raise UsageError(
            f"the file to write must not exist, but {path} does; name another, or force it"
        )
    check_writable(path.parent, "the folder of the file to write")
