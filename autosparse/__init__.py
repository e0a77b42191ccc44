"""How sparse, in which pattern, is this model fastest on this machine, and what accuracy does it keep?

The names below are the whole public interface. They load on first use, so that importing
`autosparse` costs next to nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

from autosparse.version import __version__ as __version__

if TYPE_CHECKING:
    from autosparse.deploy import LoadedModel, load
    from autosparse.engine import CompiledModel, compile, export
    from autosparse.errors import AutosparseError
    from autosparse.frames import Run, runs, tuning_rows
    from autosparse.measuring.limits import profile
    from autosparse.pipeline import prune, search
    from autosparse.plans.plan import Plan
    from autosparse.plans.pruning import sparsify

if importlib.util.find_spec("autosparse.kernels") is None:
    from autosparse import source_tree

    source_tree.use_installed()

_HOME = {
    "AutosparseError": "autosparse.errors",
    "CompiledModel": "autosparse.engine",
    "LoadedModel": "autosparse.deploy",
    "Plan": "autosparse.plans.plan",
    "Run": "autosparse.frames",
    "compile": "autosparse.engine",
    "export": "autosparse.engine",
    "load": "autosparse.deploy",
    "profile": "autosparse.measuring.limits",
    "prune": "autosparse.pipeline",
    "runs": "autosparse.frames",
    "search": "autosparse.pipeline",
    "sparsify": "autosparse.plans.pruning",
    "tuning_rows": "autosparse.frames",
}

__all__ = [
    "AutosparseError",
    "CompiledModel",
    "LoadedModel",
    "Plan",
    "Run",
    "compile",
    "export",
    "load",
    "profile",
    "prune",
    "runs",
    "search",
    "sparsify",
    "tuning_rows",
]


def __getattr__(name: str) -> Any:
    """Loads a public name from the module that defines it."""
    if name not in _HOME:
        raise AttributeError(f"module 'autosparse' has no attribute {name!r}; it has {__all__}")
    try:
        value = getattr(importlib.import_module(_HOME[name]), name)
    except ModuleNotFoundError as error:
        from autosparse.errors import missing_library

        raise missing_library(error, f"autosparse.{name}") from error
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Lists the public names, loaded or not."""
    return sorted([*globals(), *__all__])
