"""What the tuner is asked for, and what it answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from autosparse.devices.device import Device
from autosparse.devices.layer import BYTES
from autosparse.errors import UsageError
from autosparse.measuring.stopwatch import LAYERS, MeasurementPolicy
from autosparse.patterns.family import family_of, finest_first
from autosparse.records import DENSE, LatencyOption, LayerInfo, LayerShape, Measurement, Pattern
from autosparse.storage.serial import Record, added
from autosparse.tuning.narrowing import Catalogue, Narrowing, steps


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneRequest(Record):
    """What to tune.

    Attributes:
        layers: weight-bearing layers of a model.
        patterns: sparse patterns to try.
        sparsities: fractions of pruned units to try.
        threads: worker threads.
        dtype: arithmetic type.
        policy: how to measure; `MeasurementPolicy.for_model` gives it the model's reuse distance.
        sparse_layers: names of those that may be sparse; None takes all without a reason against it.
        layer_patterns: layer name to those of the patterns that are tried on it; None tries all on all.
        model_weight_bytes: dense weight bytes of the model in that type, for a policy without a reuse
            distance.
        time_budget_us: no measurement begins after this much time; None: no limit.
        dense_anyway: dense kernels are measured even then, so that every layer has a figure.
        retry_failed: measure again what has crashed, hung or been unstable before.
        compact_weights: leave out kernels that expand weights, and rows of theirs that are known.
    """

    layers: tuple[LayerInfo, ...]
    patterns: tuple[Pattern, ...]
    sparsities: tuple[float, ...]
    threads: int = 1
    dtype: str = "f32"
    policy: MeasurementPolicy = LAYERS
    sparse_layers: tuple[str, ...] | None = None
    model_weight_bytes: int | None = None
    time_budget_us: float | None = None
    dense_anyway: bool = True
    retry_failed: bool = False
    compact_weights: bool = False
    layer_patterns: Mapping[str, tuple[Pattern, ...]] | None = added(None)

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise UsageError(f"threads must be at least 1, but got {self.threads}")
        for pattern in self.patterns:
            family_of(pattern)
            if pattern.is_dense:
                raise UsageError("patterns to tune must be sparse, as dense is always tried")
        for sparsity in self.sparsities:
            if not 0 < sparsity <= 1:
                raise UsageError(f"a sparsity to tune must lie in (0, 1], but got {sparsity}")

    @property
    def effective_policy(self) -> MeasurementPolicy:
        """The policy with the model's reuse distance."""
        if self.policy.reuse_bytes or not self.model_weight_bytes:
            return self.policy
        return self.policy.for_model(self.model_weight_bytes)

    def catalogue(self, device: Device) -> Catalogue:
        """Gives the kernels of a device that may be timed."""
        return Catalogue(device, self.dtype, compact_weights=self.compact_weights)

    def patterns_of(self, layer: LayerInfo) -> tuple[Pattern, ...]:
        """Gives the patterns that are tried on a layer, finest first."""
        if layer.why_dense or (self.sparse_layers is not None and layer.name not in self.sparse_layers):
            return ()
        own = self.patterns if self.layer_patterns is None else self.layer_patterns.get(layer.name, ())
        return tuple(finest_first(own))


@dataclass(frozen=True, slots=True, kw_only=True)
class Skip(Record):
    """How many options were not timed for one reason."""

    reason: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneResult:
    """What is known after tuning. ``considered == timed + reused + all skipped``.

    Attributes:
        options: layer name to its options: the fastest dense kernel, then per pattern and
            sparsity the fastest kernel. A layer that no kernel could be timed on is missing.
        considered: kernels times structures, over the distinct shapes.
        timed: measured now.
        reused: found in the database.
        beaten: of those timed, given up early because a rival had won.
        skipped: not timed, by reason.
        failed: rows, new or old, of kernels that failed.
        rows: all rows that were asked for.
        unmeasured: layer name to the reason why it has no options.
        unfinished: layers on which the time budget ran out.
        seconds: wall time of the tuning.
    """

    options: Mapping[str, tuple[LatencyOption, ...]]
    considered: int
    timed: int
    reused: int
    beaten: int
    skipped: tuple[Skip, ...]
    failed: tuple[Measurement, ...]
    rows: tuple[Measurement, ...]
    unmeasured: Mapping[str, str]
    unfinished: tuple[str, ...]
    seconds: float

    @property
    def state(self) -> str:
        """The state of the host that most rows are of."""
        states = Counter(row.key.state for row in self.rows if row.median_us is not None)
        return max(states, key=lambda state: states[state], default="")


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneForecast(Record):
    """What a tuning would do, and roughly what it would find.

    Attributes:
        considered: kernels times structures, over the distinct shapes.
        to_time: rows that would be measured, if latencies are as predicted.
        reused: rows found in the database.
        estimated_s: time of the measurements.
        fastest_us: sum over the layers of their fastest option.
        dense_us: sum over the layers of their fastest dense kernel.
        slowest_us: sum over the layers of their slowest option; None where nothing was measured.
        basis: ``measured`` where every layer has a dense row; else ``roofline``, and then the sums are
            lower bounds.
    """

    considered: int
    to_time: int
    reused: int
    estimated_s: float
    fastest_us: float
    dense_us: float
    slowest_us: float | None
    basis: Literal["measured", "roofline"]


@dataclass(frozen=True, slots=True)
class Work:
    """One distinct shape of a model, and the patterns that any of its layers is offered."""

    shape: LayerShape
    layers: tuple[str, ...]
    patterns: tuple[Pattern, ...]

    @property
    def flops(self) -> int:
        """Operations of all its layers together: how much its latency matters."""
        return self.shape.flops * len(self.layers)


def dense_weight_bytes(layers: Iterable[LayerInfo], dtype: str = "f32") -> int:
    """Gives the bytes of a dense model's layer weights, which set the reuse distance."""
    return BYTES[dtype] * sum(layer.shape.weights for layer in layers if layer.shape)


def policy_for(layers: Iterable[LayerInfo], dtype: str) -> MeasurementPolicy:
    """Gives how the layers of a model are measured: their weights as cold as in the dense model."""
    return LAYERS.for_model(dense_weight_bytes(layers, dtype))


def distinct(request: TuneRequest) -> tuple[Work, ...]:
    """Gives the distinct shapes of a model, the one with most arithmetic first."""
    layers: dict[str, list[LayerInfo]] = {}
    for layer in request.layers:
        if layer.shape is not None:
            layers.setdefault(layer.shape.key, []).append(layer)
    works = [
        Work(
            shape=same[0].shape,
            layers=tuple(layer.name for layer in same),
            patterns=tuple(finest_first(p for layer in same for p in request.patterns_of(layer))),
        )
        for same in layers.values()
        if same[0].shape is not None
    ]
    return tuple(sorted(works, key=lambda work: (-work.flops, work.shape.key)))


def considered(request: TuneRequest, works: Iterable[Work], catalogue: Catalogue) -> int:
    """Counts kernels times structures over the distinct shapes."""
    total = 0
    for work in works:
        total += len(catalogue.variants(work.shape, DENSE))
        for pattern in work.patterns:
            count = len(steps(work.shape, pattern, request.sparsities))
            total += count * len(catalogue.variants(work.shape, pattern))
    return total


def explore(narrowing: Narrowing, request: TuneRequest, works: Iterable[Work]) -> None:
    """Goes through all shapes: dense ones first, so that each has a figure whatever happens next."""
    for work in works:
        narrowing.dense(work.shape)
    for work in works:
        for pattern in work.patterns:
            narrowing.sparse(work.shape, pattern, request.sparsities)
