"""One measurement of one kernel on one layer, as plain data, and how it is carried out.

`run` is what the measuring process calls: it builds the layer on the device with random weights of the
wanted sparsity, checks the kernel's output, and only then times it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autosparse.devices.device import Built, Device, kind_of
from autosparse.devices.layer import FloatArray, Layer, random_layer
from autosparse.devices.verify import Part, magnitude, part_of, reference, twin, why_wrong
from autosparse.errors import NoKernel, UsageError
from autosparse.measuring import stopwatch
from autosparse.measuring.pace import Pace
from autosparse.measuring.states import ANY, UNMARKED, HostState, Marks
from autosparse.measuring.stopwatch import PATIENCE_S, MeasurementPolicy
from autosparse.records import LayerShape, Pattern, Status
from autosparse.storage.serial import Record

_PILOT_RUNS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerJob(Record):
    """What to measure.

    Attributes:
        shape: the layer.
        pattern: dense or sparse.
        sparsity: fraction of units pruned.
        kernel: name of the kernel.
        config: its launch parameters.
        dtype: arithmetic type.
        threads: worker threads.
        device: kind of the device.
        policy: how to measure.
        rival_us: upper end of the interval of the option to beat, None without.
        floor_us: the machine's lower bound, 0 where unknown.
        cache_bytes: size of the device's last cache, 0 where unknown.
        state: state of the host that is wanted; None takes whichever it is in.
        marks: what is known of the host, for its state to be told by.
        patience_s: how long to wait for the wanted state; then another one will do.
        slow_patience_s: how long to wait while somebody slows the processors; then they will do.
    """

    shape: LayerShape
    pattern: Pattern
    sparsity: float
    kernel: str
    dtype: str
    threads: int
    policy: MeasurementPolicy
    rival_us: float | None = None
    floor_us: float = 0.0
    cache_bytes: int = 0
    config: str = ""
    device: str = "cpu"
    state: str | None = None
    marks: Marks = UNMARKED
    patience_s: float = PATIENCE_S
    slow_patience_s: float = PATIENCE_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Record):
    """What came of a job.

    Attributes:
        status: how it ended.
        median_us: median latency, None unless the status is ok.
        ci_low_us: lower end of its 95 % confidence interval.
        ci_high_us: upper end.
        repeats: samples.
        beaten: whether sampling ended early because the rival had won.
        message: reason of a failure; else what is worth telling of the figure.
        state: state that the host was in.
        probes_ns: what every probe of the host's state found.
        paces: what every probe of its processors' pace found.
        slowed_s: how long it waited for processors that somebody slowed.
        disturbed: what else ran on the host meanwhile; empty if nothing did.
    """

    status: Status
    median_us: float | None = None
    ci_low_us: float | None = None
    ci_high_us: float | None = None
    repeats: int = 0
    beaten: bool = False
    message: str = ""
    state: HostState = ANY
    probes_ns: tuple[float, ...] = ()
    paces: tuple[Pace, ...] = ()
    slowed_s: float = 0.0
    disturbed: str = ""


def run(values: dict[str, Any]) -> dict[str, Any]:
    """Carries out a `LayerJob` given as plain values; gives an `Outcome` as plain values."""
    return measure(LayerJob.from_json(values)).to_json()


def measure(job: LayerJob) -> Outcome:
    """Verifies a kernel, then times it."""
    device = kind_of(job.device)
    if device.dtype_of(job.kernel) != job.dtype:
        return Outcome(status=Status.ERROR, message=f"{job.kernel} does not compute in {job.dtype}")
    try:
        return _verified_and_timed(job, device)
    except (NoKernel, UsageError, MemoryError) as error:
        return Outcome(status=Status.ERROR, message=f"{type(error).__name__}: {error}")


def _verified_and_timed(job: LayerJob, device: type[Device]) -> Outcome:
    layer = random_layer(job.shape, job.pattern, job.sparsity, job.dtype)
    with _built(job, device, layer) as built:
        if wrong := _wrong(job, device, layer, built):
            return Outcome(status=Status.WRONG, message=wrong)
        copies = _copies(job, layer, built)
    writes_inputs = job.policy.writes_inputs
    with _built(job, device, layer, copies=copies, writes_inputs=writes_inputs) as built:
        return _timed(job, device, layer, built)


def _built(job: LayerJob, device: type[Device], layer: Layer, **how: Any) -> Built:
    return device.build(layer, job.kernel, job.threads, config=job.config, **how)


def _wrong(job: LayerJob, device: type[Device], layer: Layer, built: Built) -> str:
    """Gives what is wrong with a kernel's output, or an empty string."""
    small, expected, size = _verification(twin(job.shape), job.pattern, job.sparsity, job.dtype)
    allowed = device.tolerance(small, job.kernel, size)
    if small.shape == job.shape:
        return why_wrong(_output(built, small), expected, allowed)
    with _built(job, device, small) as other:
        wrong = why_wrong(_output(other, small), expected, allowed)
    if wrong or not device.checks_whole:
        return wrong
    part, expected = _part(layer)
    got, allowed = part.of(_output(built, layer)), device.tolerance(layer, job.kernel, size)
    wrong = why_wrong(got, expected, allowed)
    return f"of the whole layer, {wrong}" if wrong else ""


def _output(built: Built, layer: Layer) -> FloatArray:
    got = np.full(layer.shape.output_shape, np.nan, np.float32)
    built.run(layer.inputs, got)
    return got


def _timed(job: LayerJob, device: type[Device], layer: Layer, built: Built) -> Outcome:
    prober = device.watch(job.threads, job.marks)
    timing = stopwatch.measure(
        built.runner(layer.inputs),
        job.policy,
        rival_us=job.rival_us,
        floor_us=job.floor_us,
        prober=prober,
        state=job.state,
        patience_s=job.patience_s,
        slow_patience_s=job.slow_patience_s,
    )
    if timing.problem:
        return Outcome(status=Status.UNSTABLE, repeats=timing.repeats, message=timing.problem)
    return Outcome(
        state=timing.state,
        probes_ns=tuple(prober.taken_ns) if prober else (),
        paces=tuple(prober.taken_paces) if prober else (),
        slowed_s=timing.slowed_s,
        disturbed=timing.disturbed,
        status=Status.OK,
        median_us=timing.median_us,
        ci_low_us=timing.ci_low_us,
        ci_high_us=timing.ci_high_us,
        repeats=timing.repeats,
        beaten=timing.beaten,
        message=prober.told if prober else "",
    )


def _copies(job: LayerJob, layer: Layer, built: Built) -> int:
    pilot = built.runner(layer.inputs)(_PILOT_RUNS)
    return job.policy.copies(
        built.weight_bytes,
        # The weights as they were given, and as they are packed.
        memory_bytes=layer.weight.nbytes + built.weight_bytes,
        run_us=float(pilot.min()) / 1e3,
        rival_us=job.rival_us,
        cache_bytes=job.cache_bytes,
    )


@functools.lru_cache(maxsize=1)
def _part(layer: Layer) -> tuple[Part, NDArray[np.float64]]:
    """Gives some outputs of a large layer, and what they are."""
    part, (x, *residual) = part_of(layer.shape), layer.inputs
    added = residual[0] if residual else None
    return part, part.reference(layer.shape, x, layer.weight, layer.bias, added)


@functools.lru_cache(maxsize=1)
def _verification(
    shape: LayerShape, pattern: Pattern, sparsity: float, dtype: str
) -> tuple[Layer, NDArray[np.float64], float]:
    """Gives a layer, what it computes, and how large its sums are."""
    layer = random_layer(shape, pattern, sparsity, dtype)
    x, residual = layer.inputs[0], layer.inputs[1] if shape.residual else None
    expected = reference(shape, x, layer.weight, layer.bias, residual)
    return layer, expected, magnitude(shape, x, layer.weight)
