"""The smallest file that says it is an artifact; it has no program, so that nothing can run it."""

from __future__ import annotations

from pathlib import Path

from autosparse.deploy import Manifest, Provenance
from autosparse.deploy.container import write_container
from autosparse.deploy.manifest import FORMAT


def headed(path: Path, *, version: str = "1", manifest: str | None = None) -> Path:
    """Writes one; gives its path."""
    made = Provenance(autosparse="1", created_at="", hardware_id="a", cpu="a", torch="2")
    told = Manifest(
        model="net",
        dtype="f32",
        inputs=(),
        outputs=(),
        sources=(),
        result={"tuple": []},
        operators=(),
        layers=(),
        layer_operators=(),
        provenance=made,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    text = told.text() if manifest is None else manifest
    write_container(path, {}, {"format": FORMAT, "format_version": version, "manifest": text})
    return path
