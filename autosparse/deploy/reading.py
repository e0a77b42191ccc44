"""What a file says of itself as an artifact, without its program being unpacked or run."""

from __future__ import annotations

from pathlib import Path

import safetensors

from autosparse.deploy.manifest import FORMAT, FORMAT_VERSION, Manifest
from autosparse.errors import ArtifactError, got

_EXPORT = "export one: autosparse export"


def read_manifest(path: Path) -> Manifest:
    """Reads an artifact's manifest from the head of its file.

    The rest is not looked at: whether it is whole and unchanged says `load`, which hashes all of it.

    Raises:
        ArtifactError: the file cannot be read, is no artifact, or is too new.
    """
    try:
        with safetensors.safe_open(path, framework="numpy") as opened:
            metadata = opened.metadata() or {}
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise ArtifactError(
            f"artifact must be a file that autosparse wrote, but {path} cannot be read as one: "
            f"{error}; {_EXPORT}"
        ) from None
    if metadata.get("format") != FORMAT:
        raise ArtifactError(
            f"artifact must be a file that autosparse wrote, but {path} is of format "
            f"{got(metadata.get('format', 'unknown'))}; {_EXPORT}"
        )
    version = metadata.get("format_version", "")
    if not (version.isascii() and version.isdecimal()) or not 1 <= int(version) <= FORMAT_VERSION:
        raise ArtifactError(
            f"artifact must be of a format version up to {FORMAT_VERSION}, but that of {path} is "
            f"{got(version)}; update autosparse, or export again"
        )
    return Manifest.parse(metadata.get("manifest", ""))
