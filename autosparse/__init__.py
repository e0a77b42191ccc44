"""How sparse, in which pattern, is this model fastest on this machine, and what accuracy does it keep?

The names below are the whole public interface. They load on first use, so that importing
`autosparse` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autosparse.engine import CompiledModel, compile
    from autosparse.errors import AutosparseError
    from autosparse.limits import profile
    from autosparse.patterns import sparsify
    from autosparse.pipeline import search
    from autosparse.plan import Plan

__version__ = "0.1.0"

_HOME = {
    "AutosparseError": "autosparse.errors",
    "CompiledModel": "autosparse.engine",
    "Plan": "autosparse.plan",
    "compile": "autosparse.engine",
    "profile": "autosparse.limits",
    "search": "autosparse.pipeline",
    "sparsify": "autosparse.patterns",
}

__all__ = [
    "AutosparseError",
    "CompiledModel",
    "Plan",
    "compile",
    "profile",
    "search",
    "sparsify",
]


def __getattr__(name: str) -> Any:
    """Loads a public name from the module that defines it."""
    if name not in _HOME:
        raise AttributeError(f"module 'autosparse' has no attribute {name!r}; it has {__all__}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Lists the public names, loaded or not."""
    return sorted([*globals(), *__all__])
