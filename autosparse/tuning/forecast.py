"""What a tuning would do, without doing it: the narrowing played through with predicted latencies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from autosparse.records import (
    HardwareProfile,
    LatencyOption,
    LayerInfo,
    Measurement,
    MeasurementKey,
    Status,
    kept_blocks,
)
from autosparse.tuning.asker import key_of, known_rows
from autosparse.tuning.narrowing import Catalogue, Narrowing, Option
from autosparse.tuning.options import options_of
from autosparse.tuning.request import TuneForecast, TuneRequest, considered, distinct, explore
from autosparse.tuning.roofline import MARGIN, Roofline, kept_flops
from autosparse.tuning.table import TuningDatabase

# Where nothing is measured yet: the share of the machine's limit that a kernel may reach, one core's
# arithmetic, and how much slower kernels of narrower vectors are.
_EFFICIENCY = 0.65
_GFLOPS = 100.0
_SLOWDOWN = {"generic": 8.0, "avx2": 2.0}
# Each further variant of a table is taken to be this much slower, so that some drop out of the race.
_STAGGER = 0.04
# Building and verifying a kernel, and samples until it has won or lost, by experience on two cores.
_OVERHEAD_S = 0.03
_SAMPLES = 60


@dataclass(slots=True)
class Oracle:
    """Answers a narrowing's questions: from the database, or else by prediction."""

    request: TuneRequest
    hardware: HardwareProfile
    catalogue: Catalogue
    known: Mapping[MeasurementKey, Measurement]
    roofline: Roofline | None
    reused: int = 0
    to_time: int = 0
    seconds: float = 0.0
    predicted: set[str] = field(default_factory=set)

    def __call__(self, option: Option, rival_us: float | None) -> Measurement | None:
        """Gives a row, real or predicted."""
        key = key_of(option, self.request, self.hardware, self.catalogue)
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
            flops_kept=kept_flops(option.shape, option.kept),
        )

    def _guess_us(self, option: Option) -> float:
        variants = self.catalogue.kernels(option.shape, option.pattern)
        place = [kernel.name for kernel in variants].index(option.kernel.name)
        handicap = (1 + _STAGGER * place) * _SLOWDOWN.get(option.kernel.isa, 1.0)
        if self.roofline is None:
            flops = kept_flops(option.shape, option.kept)
            return max(flops / (_GFLOPS * self.request.threads * 1e3), 1.0) * handicap
        return self.roofline.bound_us(option.shape, option.kept) / MARGIN / _EFFICIENCY * handicap


def count(
    request: TuneRequest,
    hardware: HardwareProfile,
    database: TuningDatabase,
    *,
    catalogue: Catalogue | None = None,
) -> TuneForecast:
    """Counts what `tune` would consider, time and reuse; measures nothing.

    Args:
        request: what to tune.
        hardware: the host; without measured limits there are no bounds, and more is counted.
        database: where rows are looked up.
        catalogue: which kernels there are, None for the request's.

    Raises:
        DatabaseError: rows cannot be read.
    """
    table = catalogue or request.catalogue()
    works = distinct(request)
    roofline = None
    if hardware.cpu.f32_gflops_core and hardware.cpu.read_gbytes_per_s:
        roofline = Roofline(hardware.cpu, request.threads, request.effective_policy, request.dtype)
    known = known_rows(request, hardware, database)
    oracle = Oracle(request, hardware, table, known, roofline)
    narrowing = Narrowing(oracle, roofline, table)
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
        bounds = [_bounds_us(layer, request, oracle.roofline) for layer in layers]
        return sum(least for least, _ in bounds), sum(dense for _, dense in bounds), None
    medians = [[option.median_us for option in options[layer.name]] for layer in layers]
    return (
        sum(min(each) for each in medians),
        sum(each[0] for each in medians),
        sum(max(each) for each in medians),
    )


def _bounds_us(
    layer: LayerInfo, request: TuneRequest, roofline: Roofline | None
) -> tuple[float, float]:
    """Gives a layer's lower bound at the highest sparsity it may have, and dense."""
    if layer.shape is None or roofline is None:
        return 0.0, 0.0
    dense = roofline.bound_us(layer.shape, -1)
    if not request.may_be_sparse(layer) or not request.sparsities:
        return dense, dense
    kept = kept_blocks(layer.shape.in_channels, max(request.sparsities))
    return min(dense, roofline.bound_us(layer.shape, kept)), dense
