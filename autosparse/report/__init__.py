"""From a run folder to something a person reads: report.html, pareto.csv, a summary on a terminal.

Everything comes from the run's files, so a report can be built anywhere, any number of times, and the
same files give the same bytes. What draws is loaded on first use: words and moves need none of it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autosparse.report.page import build
    from autosparse.report.text import summary

_HOME = {"build": "page", "summary": "text"}

__all__ = ["build", "summary"]


def __getattr__(name: str) -> Any:
    """Loads a name with the libraries it needs, when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
