"""A measuring session on a host that is not there: what layers take by their rows, and nothing else.

Such figures are predictions. They rest on no run (`WholeLatency.repeats` is 0, the engine `ROWS`), so
that nothing takes them for measured ones: pareto.json keeps them as predicted latencies alone.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping

from autosparse import models
from autosparse.database import TuningDatabase
from autosparse.devices.device import Device, find
from autosparse.errors import MissingMeasurement
from autosparse.hosts.host import Host
from autosparse.pipeline.measured.session import (
    Contestant,
    ContestantResult,
    LayerTime,
    SessionRequest,
    SessionResult,
)
from autosparse.pipeline.subject.traced import trace
from autosparse.records import DENSE, LatencyOption, LayerChoice, LayerInfo, WholeLatency
from autosparse.tuning.autotune import known
from autosparse.tuning.request import TuneRequest, policy_for

ROWS = "rows"
"""The engine of latencies that are sums of rows."""


def session_by_rows(request: SessionRequest, host: Host) -> SessionResult:
    """Sums rows up for every contestant of our engine; others have none.

    Raises:
        MissingMeasurement: a layer has no row for what it shall be.
    """
    device = find(request.device, host.profile())
    shape = (request.batch_size, *request.input_shape)
    layers = _layers(request.model, request.classes, shape, device.kind)
    with TuningDatabase(request.database or "") as database:
        results = tuple(
            _result(contestant, request, _times(contestant, request, layers, device, database))
            for contestant in request.contestants
            if contestant.engine == "autosparse"
        )
    return SessionResult(results=results)


@functools.lru_cache(maxsize=2)
def _layers(model: str, classes: int, shape: tuple[int, ...], device: str) -> tuple[LayerInfo, ...]:
    return trace(models.resolve(model, classes=classes).module, shape, device).layers


def _times(
    contestant: Contestant,
    request: SessionRequest,
    layers: tuple[LayerInfo, ...],
    device: Device,
    database: TuningDatabase,
) -> tuple[LayerTime, ...]:
    """Gives what every layer with a shape takes, by the fastest row of what it becomes."""
    plan = contestant.plan
    choices = {layer.name: plan.choice(layer.name) if plan else LayerChoice() for layer in layers}
    sparse = {name: choice for name, choice in choices.items() if choice.sparsity > 0}
    asked = TuneRequest(
        layers=layers,
        patterns=tuple(dict.fromkeys(choice.pattern for choice in sparse.values())),
        layer_patterns={name: (choice.pattern,) for name, choice in sparse.items()},
        sparsities=tuple(sorted({choice.sparsity for choice in sparse.values()})),
        threads=request.threads,
        dtype=contestant.dtype,
        policy=policy_for(layers, contestant.dtype),
        compact_weights=request.compact_weights,
    )
    options = known(asked, device, database).options
    return tuple(
        _time(layer.name, choices[layer.name], options)
        for layer in layers
        if layer.name in options or not layer.why_dense
    )


def _time(
    name: str, choice: LayerChoice, options: Mapping[str, tuple[LatencyOption, ...]]
) -> LayerTime:
    wanted = (choice.pattern, choice.sparsity) if choice.sparsity > 0 else (DENSE, 0.0)
    for option in options.get(name, ()):
        if (option.choice.pattern, option.choice.sparsity) == wanted:
            return LayerTime(
                name=name,
                label=choice.label,
                kernel=option.choice.kernel or "",
                sparsity=choice.sparsity,
                median_us=option.median_us,
                why="the fastest of its rows",
            )
    raise MissingMeasurement(
        f"a layer must have a row for what it shall be, but {name} has none for {choice.label}; tune "
        "it on the host that was recorded"
    )


def _result(
    contestant: Contestant, request: SessionRequest, layers: tuple[LayerTime, ...]
) -> ContestantResult:
    total_ms = math.fsum(layer.median_us for layer in layers) / 1e3
    latency = WholeLatency(
        median_ms=total_ms,
        ci_low_ms=total_ms,
        ci_high_ms=total_ms,
        repeats=0,
        threads=request.threads,
        batch_size=request.batch_size,
        dtype=contestant.dtype,
        engine=ROWS,
    )
    return ContestantResult(name=contestant.name, latency=latency, layers=layers)
