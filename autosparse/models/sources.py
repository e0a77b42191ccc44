"""How a model is named, and the cheap checks of a name: no torch, a few milliseconds."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from autosparse import factories
from autosparse.errors import MissingDependency, ModelError
from autosparse.models.registry import names

# prefix: (module that must be importable, what pip calls it)
_LIBRARIES = {
    "torchvision": ("torchvision", "torchvision"),
    "timm": ("timm", "timm"),
    "hf": ("transformers", "transformers"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A model's name, taken apart.

    Attributes:
        kind: where it comes from.
        name: zoo name, name within the library, or the whole ``file.py:factory``.
    """

    kind: Literal["zoo", "file", "torchvision", "timm", "hf"]
    name: str


def parse(source: str) -> Source:
    """Takes a model's name apart.

    Raises:
        ModelError: it follows none of the spellings, or no zoo model has this name.
    """
    if source in names():
        return Source(kind="zoo", name=source)
    if factories.is_factory(source):
        return Source(kind="file", name=source)
    prefix, colon, rest = source.partition(":")
    if colon and rest and prefix in _LIBRARIES:
        return Source(kind=prefix, name=rest)  # type: ignore[arg-type]
    raise unknown(source, names())


def check_source(source: str) -> None:
    """Refuses a model that cannot be had, without importing torch.

    Args:
        source: zoo name, ``path/to/file.py:factory``, ``torchvision:NAME``, ``timm:NAME`` or ``hf:ID``.

    Raises:
        ModelError: an unknown name, or a file that is missing or does not define the factory.
        MissingDependency: the library it names is not installed.
    """
    parsed = parse(source)
    if parsed.kind == "file":
        factories.check(parsed.name, ModelError)
    elif parsed.kind != "zoo":
        module, distribution = _LIBRARIES[parsed.kind]
        if importlib.util.find_spec(module) is None:
            raise MissingDependency(
                f"{source} needs {module}, which is not installed; run: pip install {distribution}"
            )


def unknown(source: str, known: Iterable[str], what: str = "a model") -> ModelError:
    """Makes the error for a name that nobody knows, naming the nearest ones."""
    choices = tuple(known)
    near = difflib.get_close_matches(source.lower(), choices, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(choices[:20])}"
    others = ""
    if what == "a model":
        others = "; or path/to/file.py:factory, torchvision:NAME, timm:NAME, hf:ID"
        if Path(source).suffix in (".pt", ".pth", ".th", ".safetensors"):
            others = "; a weight file goes with --weights"
    return ModelError(f"{what} must have a known name, but got {source!r}; {hint}{others}")
