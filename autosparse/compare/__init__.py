"""Whole models on our engine and on others, in turn, in one process: what is faster, by how much.

    compare(asked, progress) -> Comparison

records      what was asked, who took part, what came of it
checks       what can be refused before any work
task         the model that all run: module, input, zeros, file for engines that read files
peer         what another engine must offer; peers/ holds one file per engine
own          our plans: the fastest measured kernel, and N, of every layer; own_engine runs them
verify       is a contestant's output right
session      one thread count: build, verify, run in turn
memory       what an engine adds to a process of its own
layer_sums   layers inside the whole run, and alone as the tuner times them
rates        operations per second, and their share of what the machine can do
comparison   all sessions together
table, picture   the result for a terminal, and as a figure
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autosparse.compare.checks import check
    from autosparse.compare.comparison import compare
    from autosparse.compare.records import Asked, Comparison

_HOME = {
    "Asked": "records",
    "Comparison": "records",
    "check": "checks",
    "compare": "comparison",
}

__all__ = ["Asked", "Comparison", "check", "compare"]


def __getattr__(name: str) -> Any:
    """Loads a name with the libraries it needs, when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
