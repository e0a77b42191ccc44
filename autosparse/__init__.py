"""How sparse, in which pattern, is this model fastest on this machine, and what accuracy does it keep?

The names below are the whole public interface. They load on first use, so that importing
`autosparse` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autosparse.deploy import LoadedModel, load
    from autosparse.engine import CompiledModel, compile, export
    from autosparse.errors import AutosparseError
    from autosparse.limits import profile
    from autosparse.patterns import sparsify
    from autosparse.pipeline import search
    from autosparse.plan import Plan

__version__ = "0.1.0"

_HOME = {
    "AutosparseError": "autosparse.errors",
    "CompiledModel": "autosparse.engine",
    "LoadedModel": "autosparse.deploy",
    "Plan": "autosparse.plan",
    "compile": "autosparse.engine",
    "export": "autosparse.engine",
    "load": "autosparse.deploy",
    "profile": "autosparse.limits",
    "search": "autosparse.pipeline",
    "sparsify": "autosparse.patterns",
}

__all__ = [
    "AutosparseError",
    "CompiledModel",
    "LoadedModel",
    "Plan",
    "compile",
    "export",
    "load",
    "profile",
    "search",
    "sparsify",
]


def __getattr__(name: str) -> Any:
    """Loads a public name from the module that defines it."""
    if name not in _HOME:
        raise AttributeError(f"module 'autosparse' has no attribute {name!r}; it has {__all__}")
    try:
        value = getattr(importlib.import_module(_HOME[name]), name)
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library == __name__:
            raise
        from autosparse.errors import MissingDependency

        raise MissingDependency(
            f"autosparse.{name} needs {library}, which a light install leaves out; "
            "run: pip install 'autosparse[search]'"
        ) from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Lists the public names, loaded or not."""
    return sorted([*globals(), *__all__])
