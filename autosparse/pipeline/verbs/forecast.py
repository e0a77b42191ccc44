"""`autosparse search --dry-run`: what a search would do and whether its budget is in reach."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path

from autosparse.config import SearchConfig, validate
from autosparse.database import TuningDatabase
from autosparse.database.schema import parse_url
from autosparse.hosts.opening import open_host
from autosparse.pipeline.results.outcomes import Forecast, TypeForecast
from autosparse.pipeline.subject.requests import check_study_of, check_training
from autosparse.pipeline.subject.survey import Survey, survey, will_train
from autosparse.progress import Progress

_IN_MEMORY = "sqlite://"


def forecast(config: SearchConfig, progress: Progress | None = None) -> Forecast:
    """Counts and estimates; measures no layer and writes nothing anywhere.

    The latencies come from the tuning database where it holds every layer, else from the roofline: then
    they are lower bounds, and a budget below them cannot be met for certain.

    Raises:
        UsageError: something asked for cannot be meant.
        NoValidConfiguration: no layer can be sparse.
    """
    validate(config, writing=False)
    progress = (progress or Progress()).of("search --dry-run")
    with open_host(config.host, config.address) as host:
        subject = survey(
            config, progress, keep=False, evaluates=True, trains=will_train(config), host=host
        )
        subject.check_sparse()
        check_study_of(subject)
        check_training(subject)
        with TuningDatabase(_existing(subject.database)) as database:
            types = tuple(_of_type(subject, dtype, database) for dtype in subject.dtypes)
    size = subject.space.size(subject.layers)
    fastest_ms = min(each.fastest_ms for each in types)
    slowest = [each.slowest_ms for each in types if each.slowest_ms is not None]
    budget_ms = None if config.latency_budget is None else config.latency_budget / 1e3
    return Forecast(
        model=config.model,
        layers=len(subject.layers),
        sparse_layers=size.sparse_layers,
        configurations_log10=size.log10 + math.log10(len(types)),
        considered=sum(each.considered for each in types),
        to_time=sum(each.to_time for each in types),
        reused=sum(each.reused for each in types),
        tuning_s=sum(each.tuning_s for each in types),
        trials=config.trials or subject.space.study.trials,
        fastest_ms=fastest_ms,
        dense_ms=types[0].dense_ms,
        slowest_ms=max(slowest) if len(slowest) == len(types) else None,
        basis="measured" if all(each.basis == "measured" for each in types) else "roofline",
        budget_ms=budget_ms,
        met=_is_met(types, budget_ms),
        types=types,
        no_types=subject.arithmetic.why_not,
        compact_weights=config.compact_weights,
    )


def _is_met(types: Sequence[TypeForecast], budget_ms: float | None) -> bool | None:
    """Whether a budget can be met: yes by measured layers alone, no by bounds too, else None."""
    if budget_ms is None:
        return None
    inside = [each for each in types if each.fastest_ms <= budget_ms]
    if any(each.basis == "measured" for each in inside):
        return True
    return None if inside else False


def _of_type(subject: Survey, dtype: str, database: TuningDatabase) -> TypeForecast:
    counted = subject.host.count(subject.tune_request(dtype), subject.device, database)
    return TypeForecast(
        dtype=dtype,
        considered=counted.considered,
        to_time=counted.to_time,
        reused=counted.reused,
        tuning_s=counted.estimated_s,
        fastest_ms=counted.fastest_us / 1e3,
        dense_ms=counted.dense_us / 1e3,
        slowest_ms=None if counted.slowest_us is None else counted.slowest_us / 1e3,
        basis=counted.basis,
    )


def _existing(url: str) -> str:
    """Gives the database, or an empty one in memory in place of a file that would have to be made."""
    parsed = parse_url(url)
    is_file = parsed.get_backend_name() == "sqlite" and parsed.database not in (None, "", ":memory:")
    return _IN_MEMORY if is_file and not os.path.exists(Path(str(parsed.database))) else url
