"""The list of the zoo's models, read from the zoo's source files without running them.

A model is a function in a file of ``autosparse/models/zoo`` marked with `zoo_model`. The mark does two
things: its literal arguments are read from the syntax tree, so that listing and checking names costs
milliseconds and no torch; and when the file is imported it notes the function as the builder.
"""

from __future__ import annotations

import ast
import functools
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from autosparse.errors import ModelError
from autosparse.models import zoo

if TYPE_CHECKING:
    from torch import nn

_MARK = "zoo_model"
_Builder = TypeVar("_Builder", bound="Callable[[int], nn.Module]")
_builders: dict[str, Callable[[int], nn.Module]] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class ZooEntry:
    """What is known of a zoo model without building it.

    Attributes:
        name: what users call it; the builder's function name.
        module: dotted name of the module that builds it.
        input_shape: channels, height and width it is meant for.
        classes: outputs it has unless told otherwise.
        summary: first line of the builder's docstring.
    """

    name: str
    module: str
    input_shape: tuple[int, int, int]
    classes: int
    summary: str


def zoo_model(*, input_shape: tuple[int, int, int], classes: int) -> Callable[[_Builder], _Builder]:
    """Marks a function ``name(classes: int) -> nn.Module`` as the builder of the zoo model ``name``.

    Args:
        input_shape: channels, height and width the model is meant for; written as a literal.
        classes: outputs unless told otherwise; written as a literal.
    """
    del input_shape, classes  # read from the source by `entries`, see the head of this file

    def note(builder: _Builder) -> _Builder:
        _builders[builder.__name__] = builder
        return builder

    return note


@functools.cache
def entries() -> Mapping[str, ZooEntry]:
    """Gives every zoo model by name, in the order of files and of definitions in them."""
    found: dict[str, ZooEntry] = {}
    for file in sorted(path for folder in zoo.__path__ for path in Path(folder).glob("*.py")):
        for entry in _entries_in(file):
            if entry.name in found:
                raise ModelError(
                    f"a zoo model must have a name of its own, but got {entry.name!r} in "
                    f"{found[entry.name].module} and in {entry.module}; rename one"
                )
            found[entry.name] = entry
    return found


def names() -> tuple[str, ...]:
    """Gives the names of the zoo's models, without importing torch."""
    return tuple(entries())


def builder(name: str) -> Callable[[int], nn.Module]:
    """Gives the function that builds a zoo model; imports its file."""
    importlib.import_module(entries()[name].module)
    return _builders[name]


def _entries_in(path: Path) -> list[ZooEntry]:
    tree = ast.parse(path.read_bytes(), str(path))
    found = []
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef):
            continue
        for decorator in node.decorator_list:
            values = _mark_arguments(decorator)
            if values is not None:
                summary = (ast.get_docstring(node) or "").partition("\n")[0]
                module = f"{zoo.__name__}.{path.stem}"
                found.append(ZooEntry(name=node.name, module=module, summary=summary, **values))
    return found


def _mark_arguments(decorator: ast.expr) -> dict[str, Any] | None:
    if not (isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Name)):
        return None
    if decorator.func.id != _MARK:
        return None
    return {str(word.arg): ast.literal_eval(word.value) for word in decorator.keywords}
