"""The layers of a contestant of ours: inside whole runs, and alone as the tuner times them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from autosparse.compare.own_engine import OwnModel
from autosparse.compare.records import LayerSum, LayerTime
from autosparse.devices.layer import BYTES
from autosparse.engine import LayerReport
from autosparse.measuring.states import UNMARKED, Prober, in_state
from autosparse.measuring.stopwatch import LAYERS
from autosparse.patterns import parse_pattern
from autosparse.progress import Step
from autosparse.sessions.operators import operators_us
from autosparse.tuning import layer_job
from autosparse.tuning.layer_job import LayerJob

_RUNS = 50
_TURNS = 5


class Alone:
    """Times layers alone as the tuner does, each once more.

    The rows that the tuner chose by are the least of many, and so a little less than what the same
    kernels take when they are timed again.

    Args:
        dtype: arithmetic type.
        threads: worker threads.
        weights: elements of all weights of the dense model, which decide how cold a layer's are.
        cache_bytes: size of the last cache, 0 where unknown.
        state: state of the host that figures are wanted in.
        prober: tells the host's state; None where there is nothing to tell apart.
    """

    def __init__(
        self,
        dtype: str,
        threads: int,
        weights: int,
        cache_bytes: int,
        *,
        state: str = "",
        prober: Prober | None = None,
    ) -> None:
        self._dtype, self._threads, self._cache_bytes = dtype, threads, cache_bytes
        self.state, self.prober = state, prober
        self._policy = LAYERS.for_model(weights * BYTES[dtype])
        self._known: dict[LayerJob, float | None] = {}

    def us(self, layer: LayerReport) -> float | None:
        """Gives the median of a layer's kernel on random weights of its sparsity, microseconds.

        None for layers that the tuner does not time, such as depthwise ones.
        """
        if layer.shape is None or layer.shape.groups > 1 or not layer.kernel:
            return None
        job = LayerJob(
            shape=layer.shape,
            pattern=parse_pattern(layer.pattern),
            sparsity=layer.sparsity,
            kernel=layer.kernel,
            dtype=self._dtype,
            threads=self._threads,
            policy=self._policy,
            cache_bytes=self._cache_bytes,
            state=self.state if self.prober else None,
            marks=self.prober.held_against() if self.prober else UNMARKED,
        )
        if job not in self._known:
            self._known[job] = layer_job.measure(job).median_us
        return self._known[job]


def inside(model: OwnModel, prober: Prober | None, state: str) -> tuple[LayerTime, ...]:
    """Times the layers of a compiled model within whole runs, in a state of the host."""
    return _times(model, operators_us(model, prober, state), lambda layer: None)


def measure(
    model: OwnModel, alone: Alone, measured_us: float, step: Step
) -> tuple[tuple[LayerTime, ...], LayerSum | None]:
    """Times the layers of a compiled model, and compares their sum with the whole.

    Layers are timed by themselves, so the sum is held against the whole by itself: before and after its
    layers, as the machine may change meanwhile.

    Args:
        model: compiled or loaded.
        alone: times layers alone.
        measured_us: the whole, measured in turn with others.
        step: advanced by every layer, and asked whether to stop.

    Returns:
        Every layer, and the sum; no sum where no layer can be timed alone.

    Raises:
        Stopped: a stop was requested.
    """

    def timed(layer: LayerReport) -> float | None:
        step.check()
        us = alone.us(layer)
        step.advance()
        return us

    operators = operators_us(model, alone.prober, alone.state)
    before = _runs_ns(model, alone)
    times = _times(model, operators, timed)
    model.run_times(_RUNS)  # the layers have taken the caches
    steady_us = float(np.median([*before, *_runs_ns(model, alone)])) / 1e3
    return times, add_up(times, operators, steady_us, measured_us)


def _times(
    model: OwnModel,
    operators: Mapping[str, float],
    alone_us: Callable[[LayerReport], float | None],
) -> tuple[LayerTime, ...]:
    return tuple(
        LayerTime(
            name=layer.name,
            shape=layer.shape.key if layer.shape else "",
            pattern=layer.pattern,
            sparsity=layer.sparsity,
            kernel=layer.kernel,
            inside_us=operators.get(layer.name, 0.0),
            alone_us=alone_us(layer),
        )
        for layer in model.layers
    )


def _runs_ns(model: OwnModel, alone: Alone) -> list[int]:
    turns = [
        in_state(alone.prober, alone.state, lambda: model.run_times(_RUNS // _TURNS))
        for _ in range(_TURNS)
    ]
    return [int(ns) for turn in turns for ns in turn]


def add_up(
    layers: Sequence[LayerTime],
    inside_us: Mapping[str, float],
    steady_us: float,
    measured_us: float,
) -> LayerSum | None:
    """Adds up rows, and what has none as it was timed inside the whole; None without any row."""
    tuned = {layer.name: layer for layer in layers if layer.alone_us is not None}
    if not tuned:
        return None
    overheads = {name: us for name, us in inside_us.items() if name not in tuned}
    tuned_us = sum(layer.alone_us or 0.0 for layer in tuned.values())
    predicted_us = tuned_us + sum(overheads.values())
    return LayerSum(
        tuned_us=tuned_us,
        inside_us=sum(layer.inside_us for layer in tuned.values()),
        overheads_us=overheads,
        predicted_us=predicted_us,
        steady_us=steady_us,
        measured_us=measured_us,
        ratio=predicted_us / steady_us,
        untuned=tuple(layer.name for layer in layers if layer.name in overheads),
    )
