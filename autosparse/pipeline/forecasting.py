"""`autosparse search --dry-run`: what a search would do and whether its budget is in reach."""

from __future__ import annotations

from pathlib import Path

from autosparse.config import SearchConfig, validate
from autosparse.pipeline.outcomes import Forecast
from autosparse.pipeline.survey import survey
from autosparse.progress import Progress
from autosparse.tuning.autotune import count
from autosparse.tuning.database import TuningDatabase
from autosparse.tuning.schema import parse_url

_IN_MEMORY = "sqlite://"


def forecast(config: SearchConfig, progress: Progress | None = None) -> Forecast:
    """Counts and estimates; measures no layer and writes nothing anywhere.

    The latencies come from the tuning database where it holds every layer, else from the roofline: then
    they are lower bounds, and a budget below them cannot be met for certain.

    Raises:
        UsageError: something asked for cannot be meant.
    """
    validate(config, writing=False)
    subject = survey(config, progress or Progress(), keep=False)
    with TuningDatabase(_existing(subject.database)) as database:
        counted = count(subject.tune_request(), subject.hardware, database)
    size = subject.space.size(subject.layers)
    budget_ms = None if config.latency_budget is None else config.latency_budget / 1e3
    return Forecast(
        model=config.model,
        layers=len(subject.layers),
        sparse_layers=size.sparse_layers,
        configurations_log10=size.log10,
        considered=counted.considered,
        to_time=counted.to_time,
        reused=counted.reused,
        tuning_s=counted.estimated_s,
        trials=config.trials or subject.space.study.trials,
        fastest_ms=counted.fastest_us / 1e3,
        dense_ms=counted.dense_us / 1e3,
        slowest_ms=None if counted.slowest_us is None else counted.slowest_us / 1e3,
        basis=counted.basis,
        budget_ms=budget_ms,
        met=None if budget_ms is None else counted.fastest_us / 1e3 <= budget_ms,
    )


def _existing(url: str) -> str:
    """Gives the database, or an empty one in memory in place of a file that would have to be made."""
    parsed = parse_url(url)
    is_file = parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:")
    return _IN_MEMORY if is_file and not Path(str(parsed.database)).exists() else url
