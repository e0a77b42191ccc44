"""How a data set is named, and the cheap checks of a name: no torch, a few milliseconds."""

from __future__ import annotations

import difflib
import importlib
import os
import pkgutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autosparse import factories
from autosparse.data import kinds
from autosparse.errors import DataError

if TYPE_CHECKING:
    from autosparse.data.raw import Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A data set's name, taken apart.

    Attributes:
        kind: one of `kind_names`, or None for a user's factory.
        path: what follows the colon, None if nothing does.
    """

    kind: str | None
    path: Path | None


def kind_names() -> tuple[str, ...]:
    """Gives the kinds of data set, one per file of the folder ``kinds``."""
    files = sorted(module.name for module in pkgutil.iter_modules(kinds.__path__))
    return tuple(file.replace("_", "-") for file in files)


def kind_named(name: str) -> Kind:
    """Gives what can check and read one kind of data set."""
    module = importlib.import_module(f"{kinds.__name__}.{name.replace('-', '_')}")
    return module.KIND  # type: ignore[no-any-return]


def parse(spec: str) -> Source:
    """Takes a data set's name apart.

    Raises:
        DataError: it is of no known kind.
    """
    if factories.is_factory(spec):
        return Source(kind=None, path=None)
    name, _, rest = spec.partition(":")
    if name not in kind_names():
        raise DataError(_unknown(spec, name))
    return Source(kind=name, path=Path(os.path.expanduser(rest)) if rest else None)


def check_source(spec: str) -> None:
    """Refuses a data set that cannot be read, from the names, sizes and first bytes of its files.

    Args:
        spec: ``digits``, ``KIND:PATH`` or ``path/to/file.py:factory``.

    Raises:
        DataError: an unknown kind, or files that are missing, truncated or of another format.
        MissingDependency: the library that reads this kind is not installed.
    """
    source = parse(spec)
    if source.kind is None:
        factories.check(spec, DataError)
        return
    kind = kind_named(source.kind)
    if source.path is None and kind.takes_path:
        raise DataError(
            f"{source.kind} must name its folder, but got {spec!r}; write {source.kind}:PATH"
        )
    if source.path is not None and not kind.takes_path:
        raise DataError(f"{source.kind} takes no path, but got {spec!r}; write {source.kind}")
    if source.path is not None and not os.path.isdir(source.path):
        what = "a file" if os.path.exists(source.path) else "nothing"
        raise DataError(
            f"{source.kind} must name an existing folder, but there is {what} at {source.path}; "
            "name the folder its files were unpacked to"
        )
    kind.check(source.path)


def _unknown(spec: str, name: str) -> str:
    near = difflib.get_close_matches(name.lower(), kind_names(), n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(kind_names())}"
    if spec and os.path.isdir(os.path.expanduser(spec)):
        hint = f"say what the folder holds, for example imagefolder:{spec}"
    return (
        f"a data set must have a known kind, but got {spec!r}; {hint}; "
        "or path/to/file.py:factory for your own"
    )
