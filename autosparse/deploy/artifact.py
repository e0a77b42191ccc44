"""Program and manifest into a file."""

from __future__ import annotations

from pathlib import Path

from autosparse.deploy.container import write_container
from autosparse.deploy.manifest import FORMAT, FORMAT_VERSION, Manifest
from autosparse.deploy.recorded import RecordedProgram
from autosparse.errors import UsageError


def write_artifact(
    path: Path, program: RecordedProgram, manifest: Manifest, *, overwrite: bool = False
) -> None:
    """Writes an artifact atomically.

    Raises:
        UsageError: the file exists and must not be overwritten.
        RunError: the file cannot be written.
    """
    check_target(path, overwrite)
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "manifest": manifest.text(),
    }
    write_container(path, program.arrays(), metadata)


def check_target(path: Path, overwrite: bool) -> None:
    """Refuses a file that exists, before any work is done for it.

    Raises:
        UsageError: it exists and must not be overwritten, or is a folder.
    """
    if path.is_dir():
        raise UsageError(f"the file to write must be no folder, but got {path}; name a file in it")
    if path.exists() and not overwrite:
        raise UsageError(
            f"the file to write must not exist, but {path} does; name another, or force it"
        )
