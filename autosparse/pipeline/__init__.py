"""The stages wired together: what the command line and other programs call.

Every function takes typed arguments, reports through one `Progress`, can be stopped, and continues
where it stopped when called again.

subject   what a run is about, and what each stage is asked for
measured  tables of layers, whole models in sessions, finalists
trained   training jobs, accuracies side by side
results   what a run leaves behind
verbs     one file per verb that wires them
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autosparse.pipeline.results.checked import CheckOutcome
    from autosparse.pipeline.results.joint import JointOutcome
    from autosparse.pipeline.results.outcomes import (
        BreakEvenOutcome,
        ExportOutcome,
        Forecast,
        PruneOutcome,
        SearchOutcome,
        TrainOutcome,
        TuneOutcome,
    )
    from autosparse.pipeline.subject.arrangement import Arrangement
    from autosparse.pipeline.subject.pruning import PruneRequest
    from autosparse.pipeline.verbs.break_even import BreakEvenRequest, measure_break_even
    from autosparse.pipeline.verbs.check import check
    from autosparse.pipeline.verbs.export import export
    from autosparse.pipeline.verbs.forecast import forecast
    from autosparse.pipeline.verbs.prune import prune
    from autosparse.pipeline.verbs.search import search
    from autosparse.pipeline.verbs.search_hosts import search_hosts
    from autosparse.pipeline.verbs.train import train
    from autosparse.pipeline.verbs.tune import tune

_HOME = {
    "Arrangement": "subject.arrangement",
    "BreakEvenOutcome": "results.outcomes",
    "BreakEvenRequest": "verbs.break_even",
    "CheckOutcome": "results.checked",
    "ExportOutcome": "results.outcomes",
    "Forecast": "results.outcomes",
    "JointOutcome": "results.joint",
    "PruneOutcome": "results.outcomes",
    "PruneRequest": "subject.pruning",
    "SearchOutcome": "results.outcomes",
    "TrainOutcome": "results.outcomes",
    "TuneOutcome": "results.outcomes",
    "check": "verbs.check",
    "export": "verbs.export",
    "forecast": "verbs.forecast",
    "measure_break_even": "verbs.break_even",
    "prune": "verbs.prune",
    "search": "verbs.search",
    "search_hosts": "verbs.search_hosts",
    "train": "verbs.train",
    "tune": "verbs.tune",
}

__all__ = [
    "Arrangement",
    "BreakEvenOutcome",
    "BreakEvenRequest",
    "CheckOutcome",
    "ExportOutcome",
    "Forecast",
    "JointOutcome",
    "PruneOutcome",
    "PruneRequest",
    "SearchOutcome",
    "TrainOutcome",
    "TuneOutcome",
    "check",
    "export",
    "forecast",
    "measure_break_even",
    "prune",
    "search",
    "search_hosts",
    "train",
    "tune",
]


def __getattr__(name: str) -> Any:
    """Loads a name with the libraries it needs, when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
