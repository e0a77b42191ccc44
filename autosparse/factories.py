"""Functions that users write in files of their own: ``path/to/file.py:name``.

Models and data sets are named alike, so both read this spelling here. `check` looks without running
anything; `load` runs the file once, as an import would.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from autosparse.errors import UsageError
from autosparse.storage.files import read_bytes

_SPELLING = re.compile(r"(?P<path>.+\.py):(?P<name>[A-Za-z_]\w*)")


def is_factory(source: str) -> bool:
    """Whether a source is spelled ``path/to/file.py:name``, or looks as if that was meant."""
    return source.endswith(".py") or ".py:" in source


def absolute(source: str) -> str:
    """Gives a source whose file can be found from any folder; any other text as it is."""
    match = _SPELLING.fullmatch(source)
    return f"{Path(os.path.expanduser(match['path'])).absolute()}:{match['name']}" if match else source


def shown(source: str) -> str:
    """Gives a source as people know it: the file without its folder; any other text as it is."""
    match = _SPELLING.fullmatch(source)
    return f"{Path(match['path']).name}:{match['name']}" if match else source


def check(source: str, error: type[UsageError]) -> None:
    """Makes sure that the file exists, parses, and defines the name, without running it.

    Args:
        source: ``path/to/file.py:name``.
        error: what to raise.

    Raises:
        UsageError: as `error`, if any of this does not hold.
    """
    path, name = _split(source, error)
    try:
        tree = ast.parse(read_bytes(path), str(path))
    except (SyntaxError, ValueError, OSError, MemoryError, RecursionError) as problem:
        line = getattr(problem, "lineno", None)
        where = f"{path}:{line}" if line else f"{path}"
        raise error(f"{where} must be valid Python, but got: {problem}; correct the file") from None
    defined = _top_level_names(tree)
    if name not in defined and "*" not in defined:
        near = difflib.get_close_matches(name, defined, n=3) or sorted(defined)[:5]
        raise error(
            f"{path} must define the function after the colon, but got {name!r}; "
            f"it defines: {', '.join(near) or 'nothing'}"
        )


def load(source: str, error: type[UsageError]) -> Callable[..., object]:
    """Runs the file, unless it ran before as it is now, and gives the function.

    Args:
        source: ``path/to/file.py:name``.
        error: what to raise.

    Raises:
        UsageError: as `error`, if the file fails to run or the name is not callable.
    """
    check(source, error)
    path, name = _split(source, error)
    module = _module(path, error)
    factory = getattr(module, name, None)
    if not callable(factory):
        raise error(f"{source} must name a function, but got {type(factory).__name__}")
    return factory  # type: ignore[no-any-return]


def _module(path: Path, error: type[UsageError]) -> ModuleType:
    """Imports a file under a name of its own: once as long as its content is the same."""
    content = read_bytes(path)
    identity = hashlib.sha256(os.fsencode(path) + b"\0" + content).hexdigest()[:16]
    module_name = f"autosparse_user_{path.stem}_{identity}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise error(f"a factory must live in an importable Python file, but got {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module  # classes defined there must be found again by their module
    try:
        with _beside(path):
            spec.loader.exec_module(module)
    except KeyboardInterrupt:
        raise
    except BaseException as problem:  # a border to code that is not ours: anything may come
        sys.modules.pop(module_name, None)
        raise error(f"{path} must run, but it raised {_told(problem)}; correct the file") from problem
    return module


_folders: set[str] = set()


@contextmanager
def _beside(path: Path) -> Iterator[None]:
    """Lets what runs inside import files beside `path` first, as a script may.

    What the file does to ``sys.path`` stays. The folder stays too, at the end, where it hides nothing:
    code of the file may import when it runs later.
    """
    folder = str(path.parent)
    _folders.add(folder)
    _forget_namesakes(path.parent)
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
        if folder not in sys.path:
            sys.path.append(folder)


def _forget_namesakes(folder: Path) -> None:
    """Forgets modules of other files' folders whose names are also here: each file means its own."""
    here = {entry.name.removesuffix(".py") for entry in folder.iterdir()}
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] not in here or name.startswith("autosparse"):
            continue
        origin = getattr(module, "__file__", None)
        parents = () if origin is None else Path(origin).parents
        home = next((other for other in parents if str(other) in _folders), None)
        if home is not None and home != folder:
            del sys.modules[name]


def call(
    source: str, factory: Callable[..., object], error: type[UsageError], **offered: Any
) -> object:
    """Calls a user's function with those of the offered arguments that it takes.

    Raises:
        UsageError: as `error`, if the function raises.
    """
    try:
        taken = inspect.signature(factory).parameters
    except ValueError:  # some callables of extension modules tell nothing about themselves
        taken = {}  # type: ignore[assignment]
    open_ended = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in taken.values())
    chosen = {key: value for key, value in offered.items() if open_ended or key in taken}
    path, _ = _split(source, error)
    try:
        with _beside(path):
            made = factory(**chosen)
    except KeyboardInterrupt:
        raise
    except BaseException as problem:  # a border to code that is not ours: anything may come
        given = ", ".join(f"{key}={value!r}" for key, value in chosen.items())
        raise error(f"{source}({given}) must return, but it raised {_told(problem)}") from problem
    if inspect.iscoroutine(made):
        made.close()
        raise error(f"{source} must be a plain function, but it is async; call what it awaits itself")
    return made


def _told(problem: BaseException) -> str:
    return f"{type(problem).__name__}: {problem}" if str(problem) else type(problem).__name__


def _split(source: str, error: type[UsageError]) -> tuple[Path, str]:
    match = _SPELLING.fullmatch(source)
    if match is None:
        raise error(f"a factory must be spelled path/to/file.py:function, but got {source!r}")
    path = Path(os.path.expanduser(match["path"]))
    if not os.path.isfile(path):
        raise error(f"a factory's file must exist, but got {path}; name an existing file")
    return path.resolve(), match["name"]


def _top_level_names(tree: ast.Module) -> set[str]:
    """Collects what running the file would define, whichever branches it takes; ``*`` for anything."""
    names: set[str] = set()
    waiting: list[ast.AST] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        else:
            waiting += ast.iter_child_nodes(node)
    return names
