"""What a tuning would do, without doing it: the narrowing played through with predicted latencies."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field

from autosparse.database.table import TuningDatabase
from autosparse.devices.device import Bounds, Device
from autosparse.records import (
    LatencyOption,
    LayerInfo,
    Measurement,
    MeasurementKey,
    Status,
)
from autosparse.tuning.asker import in_state, key_of, known_rows
from autosparse.tuning.narrowing import Catalogue, Narrowing, Option, kept_inputs, steps
from autosparse.tuning.options import options_of
from autosparse.tuning.request import TuneForecast, TuneRequest, considered, distinct, explore

# Where nothing is measured yet: a kernel's bound over what it takes, and the arithmetic of one core.
_EFFICIENCY = 0.52
_GFLOPS = 100.0
# Each further variant of a table is taken to be this much slower, so that some drop out of the race.
_STAGGER = 0.04
# Building and verifying a kernel, and samples until it has won or lost, by experience on two cores.
_OVERHEAD_S = 0.03
_SAMPLES = 60


@dataclass(slots=True)
class Oracle:
    """Answers a narrowing's questions: from the database, or else by prediction."""

    request: TuneRequest
    device: Device
    catalogue: Catalogue
    known: Mapping[MeasurementKey, Measurement]
    bounds: Bounds | None
    state: str = ""
    reused: int = 0
    to_time: int = 0
    seconds: float = 0.0
    predicted: set[str] = field(default_factory=set)

    def __call__(self, option: Option, rival_us: float | None) -> Measurement | None:
        """Gives a row, real or predicted."""
        key = key_of(option, self.request, self.device, self.catalogue, self.state)
        if found := self.known.get(key):
            self.reused += 1
            return found
        self.to_time += 1
        if option.pattern.is_dense:
            self.predicted.add(option.shape.key)
        guess = self._guess_us(option)
        policy = self.request.effective_policy
        sampling_us = policy.warmup_us + min(_SAMPLES * guess, policy.time_cap_us)
        self.seconds += _OVERHEAD_S + sampling_us / 1e6
        return Measurement(
            key=key,
            status=Status.OK,
            median_us=guess,
            ci_low_us=guess,
            ci_high_us=guess,
            repeats=1,
            sparsity=option.sparsity,
            flops_kept=option.shape.kept_flops(option.kept_inputs),
        )

    def _guess_us(self, option: Option) -> float:
        variants = self.catalogue.variants(option.shape, option.pattern)
        place = [(kernel.name, config) for kernel, config in variants].index(option.variant)
        slowdown = max(kernel.rate for kernel, _ in variants) / option.kernel.rate
        handicap = (1 + _STAGGER * place) * slowdown
        if self.bounds is None:
            flops = option.shape.kept_flops(option.kept_inputs)
            return max(flops / (_GFLOPS * self.request.threads * 1e3), 1.0) * handicap
        bound_us = self.bounds.bound_us(option.shape, option.kept_inputs, option.kernel)
        return bound_us / _EFFICIENCY * handicap


def count(request: TuneRequest, device: Device, database: TuningDatabase) -> TuneForecast:
    """Counts what `tune` would consider, time and reuse; measures nothing.

    Args:
        request: what to tune.
        device: without measured limits there are no bounds, and more is counted.
        database: where rows are looked up.

    Raises:
        DatabaseError: rows cannot be read.
    """
    table = request.catalogue(device)
    works = distinct(request)
    bounds = None
    if device.has_limits:
        bounds = device.bounds(request.threads, request.effective_policy, request.dtype)
    history = device.history(request.threads)
    rows = known_rows(request, device, database)
    known = {row.key: row for row in map(functools.partial(in_state, history.split_ns), rows)}
    oracle = Oracle(request, device, table, known, bounds, history.usual)
    narrowing = Narrowing(oracle, bounds, table)
    explore(narrowing, request, works)
    options = options_of(request, works, narrowing)
    fastest_us, dense_us, slowest_us = _sums(request, options, oracle)
    return TuneForecast(
        considered=considered(request, works, table),
        to_time=oracle.to_time,
        reused=oracle.reused,
        estimated_s=oracle.seconds,
        fastest_us=fastest_us,
        dense_us=dense_us,
        slowest_us=slowest_us,
        basis="roofline" if oracle.predicted else "measured",
    )


def _sums(
    request: TuneRequest, options: Mapping[str, tuple[LatencyOption, ...]], oracle: Oracle
) -> tuple[float, float, float | None]:
    layers = [layer for layer in request.layers if layer.name in options]
    if oracle.predicted:
        bounds = [_bounds_us(layer, request, oracle.bounds) for layer in layers]
        return sum(least for least, _ in bounds), sum(dense for _, dense in bounds), None
    medians = [[option.median_us for option in options[layer.name]] for layer in layers]
    return (
        sum(min(each) for each in medians),
        sum(each[0] for each in medians),
        sum(max(each) for each in medians),
    )


def _bounds_us(layer: LayerInfo, request: TuneRequest, bounds: Bounds | None) -> tuple[float, float]:
    """Gives a layer's lower bound at the highest sparsity it may have, and dense."""
    if layer.shape is None or bounds is None:
        return 0.0, 0.0
    dense = bounds.bound_us(layer.shape, -1)
    shape = layer.shape
    sparsest = [
        kept_inputs(shape, pattern, step.kept)
        for pattern in request.patterns_of(layer)
        for step in steps(shape, pattern, request.sparsities)[:1]
    ]
    return min([dense, *(bounds.bound_us(shape, kept) for kept in set(sparsest))]), dense
