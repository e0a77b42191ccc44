"""The stages wired together: what the command line and other programs call.

Every function takes typed arguments, reports through one `Progress`, can be stopped, and continues
where it stopped when called again.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autosparse.pipeline.break_even_run import BreakEvenRequest, measure_break_even
    from autosparse.pipeline.export_run import export
    from autosparse.pipeline.forecasting import forecast
    from autosparse.pipeline.outcomes import (
        BreakEvenOutcome,
        ExportOutcome,
        Forecast,
        SearchOutcome,
        TrainOutcome,
        TuneOutcome,
    )
    from autosparse.pipeline.search_run import search
    from autosparse.pipeline.train_run import train
    from autosparse.pipeline.tune_run import tune

_HOME = {
    "BreakEvenOutcome": "outcomes",
    "BreakEvenRequest": "break_even_run",
    "ExportOutcome": "outcomes",
    "Forecast": "outcomes",
    "SearchOutcome": "outcomes",
    "TrainOutcome": "outcomes",
    "TuneOutcome": "outcomes",
    "export": "export_run",
    "forecast": "forecasting",
    "measure_break_even": "break_even_run",
    "search": "search_run",
    "train": "train_run",
    "tune": "tune_run",
}

__all__ = [
    "BreakEvenOutcome",
    "BreakEvenRequest",
    "ExportOutcome",
    "Forecast",
    "SearchOutcome",
    "TrainOutcome",
    "TuneOutcome",
    "export",
    "forecast",
    "measure_break_even",
    "search",
    "train",
    "tune",
]


def __getattr__(name: str) -> Any:
    """Loads a name with the libraries it needs, when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
