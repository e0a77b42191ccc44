"""The page's style sheets, its script and its icon: nothing is asked of any other host."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Response

import autosparse.report as report
from autosparse.errors import got
from autosparse.web.problems import NotThere

router = APIRouter()

_OWN = Path(__file__).parent / "static"
_KEPT_S = 365 * 86400
# Name to folder and kind. A page looks like a run's report, and so shares its style sheet.
_FILES = {
    "report.css": (Path(report.__file__).parent / "templates", "text/css"),
    "page.css": (_OWN, "text/css"),
    "page.js": (_OWN, "text/javascript"),
    "icon.svg": (_OWN, "image/svg+xml"),
}
OPEN_PATHS = frozenset(f"/static/{name}" for name in _FILES)
"""What whoever is about to log in may read."""


@dataclass(frozen=True, slots=True)
class _File:
    content: bytes
    kind: str
    version: str


@cache
def _files() -> dict[str, _File]:
    found = {}
    for name, (folder, kind) in _FILES.items():
        content = (folder / name).read_bytes()
        found[name] = _File(content, kind, hashlib.sha256(content).hexdigest()[:12])
    return found


def address_of(name: str) -> str:
    """Gives the path of a file, another one with each version of it."""
    return f"/static/{name}?v={_files()[name].version}"


@router.get("/static/{name}")
def get_file(name: str) -> Response:
    """Gives a file of the page."""
    if name not in _files():
        raise NotThere(f"a file of the page must be one of {', '.join(_FILES)}, but got {got(name)}")
    found = _files()[name]
    headers = {"Cache-Control": f"public, max-age={_KEPT_S}, immutable"}
    return Response(found.content, media_type=found.kind, headers=headers)
