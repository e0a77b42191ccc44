"""The only stopwatch: every latency in a table, a report or a benchmark was taken by it.

This file times one thing by itself; `autosparse.measuring.turns` compares several in turn.

A *runner* is a callable that runs something n times, or somewhat more, and returns one wall time per
run in nanoseconds. The clock is read inside the native executor, so neither Python nor ctypes is in the
figure.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from autosparse.errors import UsageError
from autosparse.measuring.conditions import Watch
from autosparse.measuring.lock import measuring
from autosparse.measuring.states import ANY, HostState, Prober
from autosparse.records import WholeLatency
from autosparse.statistics import FEWEST_FOR_INTERVAL, median_ci
from autosparse.storage.serial import Record, added, short_hash

log = logging.getLogger(__name__)

Runner = Callable[[int], NDArray[Any]]

# A row faster than this fraction of the machine's lower bound is a broken clock or a kernel that did
# nothing. The slack is wide because the limits are measured too, possibly on a busy machine.
IMPLAUSIBLE_FRACTION = 0.5
# An interval this many times wider than the target tells of a disturbance, not of the kernel.
WIDE = 3.0
# A kernel this many times slower than its rival need not be timed with care.
_HOPELESS = 2.0
PATIENCE_S = 10.0
"""How long to wait for a host to come back into the state that is wanted."""
# Rest meanwhile: a processor that has rested may be woken elsewhere.
_AWAY_S = 0.005


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementPolicy(Record):
    """How something is measured. Its `id` is part of every row's key.

    Cold weights: between two runs of one layer a model reads the weights of all its other layers. A
    layer is therefore timed in a rotating set of copies, each with weights of its own, as many as put
    `reuse_bytes` of weights between two uses of the same copy. The distance is that of the dense model
    (`for_model`), in powers of two, so that one table serves all sparsities of a model and models of
    similar size share rows; a pruned model reads fewer weights, but activations too. The set is smaller
    where `max_copies`, memory or time set a limit, and for a kernel that takes over twice as long as
    its rival: that one has lost anyway.

    Fresh inputs: in a model the operator before has just written a layer's input, on several threads
    each its own part, and the one before that what the layer adds. With `writes_inputs` the copies of a
    layer form a chain where its outputs can be its inputs; else cheap operators that are not timed
    write them before each run.

    Attributes:
        name: readable part of the id.
        warmup_us: running time before the first sample.
        target_ci: half width of the median's 95 % interval over the median at which sampling ends.
        min_repeats: samples at least, unless a rival has already won.
        max_repeats: samples at most.
        time_cap_us: sampling time at most, rests included; `min_repeats` samples are taken even beyond
            it.
        patience: multiple of `time_cap_us` for a measurement so disturbed that at the cap its interval
            is still `WIDE` times as wide as the target.
        reuse_bytes: weights read between two uses of the same weights; 0 times them warm.
        max_copies: copies in the rotating set at most.
        max_copies_bytes: memory of the rotating set at most.
        writes_inputs: whether other operators write the inputs anew before every run of a layer.
        rest_us: rest before every turn of a comparison, for engines whose threads go on spinning for a
            while after their last run, and would slow down whoever is next.
        timeout_s: time after which a measurement counts as hung and its process is killed.
    """

    name: str = "default"
    warmup_us: float = 2_000.0
    target_ci: float = 0.02
    min_repeats: int = 12
    max_repeats: int = 1_000
    time_cap_us: float = 30_000.0
    patience: float = 4.0
    reuse_bytes: int = 0
    max_copies: int = 64
    max_copies_bytes: int = 256 << 20
    writes_inputs: bool = True
    rest_us: float = added(0.0)
    timeout_s: float = 20.0

    def __post_init__(self) -> None:
        _at_least("min_repeats", self.min_repeats, FEWEST_FOR_INTERVAL)
        _at_least("max_repeats", self.max_repeats, self.min_repeats)
        _at_least("max_copies", self.max_copies, 1)
        _at_least("reuse_bytes", self.reuse_bytes, 0)
        for name in ("target_ci", "time_cap_us", "timeout_s"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} must be greater than zero, but got {getattr(self, name)}")

    @property
    def id(self) -> str:
        """Readable and unique: name, reuse distance, hash of every field."""
        return f"{self.name}-{_cold_label(self.reuse_bytes)}-{short_hash(self.to_json())}"

    def for_model(self, model_weight_bytes: int) -> Self:
        """Gives this policy with the reuse distance of a model of that many dense weight bytes."""
        return dataclasses.replace(self, reuse_bytes=2 ** round(math.log2(max(model_weight_bytes, 1))))

    def copies(
        self,
        weight_bytes: int,
        *,
        memory_bytes: int,
        run_us: float,
        rival_us: float | None = None,
        cache_bytes: int = 0,
    ) -> int:
        """Gives how many copies of a layer to rotate through.

        Args:
            weight_bytes: packed weights of one copy.
            memory_bytes: all memory of one copy.
            run_us: roughly, the time of one run.
            rival_us: time of the option to beat, None without.
            cache_bytes: size of the last cache; reading twice that evicts all, 0 where unknown.
        """
        distance = min(self.reuse_bytes, 2 * cache_bytes) if cache_bytes else self.reuse_bytes
        limits = [
            math.ceil(distance / max(weight_bytes, 1)),
            self.max_copies_bytes // max(memory_bytes, 1),
            int(self.time_cap_us / max(run_us, 0.1)),
            self.max_copies,
        ]
        if rival_us is not None and run_us > _HOPELESS * rival_us:
            limits.append(FEWEST_FOR_INTERVAL)
        return max(1, min(limits))


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise UsageError(f"{name} must be at least {least}, but got {value}")


def _cold_label(reuse_bytes: int) -> str:
    if reuse_bytes == 0:
        return "warm"
    if reuse_bytes >= 1 << 20:
        return f"cold{reuse_bytes >> 20}M"
    return f"cold{max(reuse_bytes >> 10, 1)}K"


LAYERS = MeasurementPolicy()
"""Policy of single layers in the tuner; give it its model with `for_model`."""

WHOLE = MeasurementPolicy(
    name="whole",
    warmup_us=150_000.0,
    target_ci=0.01,
    min_repeats=24,
    max_repeats=10_000,  # models of some ten microseconds are known long before their time is up
    time_cap_us=8_000_000.0,
    rest_us=50_000.0,
    timeout_s=120.0,
)
"""Policy of whole models, interleaved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing(Record):
    """What the stopwatch saw.

    Attributes:
        median_us: median, microseconds.
        ci_low_us: lower end of its 95 % confidence interval.
        ci_high_us: upper end.
        repeats: samples behind it.
        settled: whether the interval reached the policy's target; if not it is wide, but holds.
        beaten: whether sampling ended early because a rival had already won.
        problem: why the figure is not plausible; empty if it is.
        turns_us: median of every turn of an interleaved comparison, in the order taken.
        state: the state that the host was in.
        disturbed: what else ran on the host meanwhile, as `Conditions.why_disturbed`; empty if nothing
            did, and for comparisons, which tell it as a whole.
        slowed_s: how long it waited for processors that somebody slowed.
    """

    median_us: float
    ci_low_us: float
    ci_high_us: float
    repeats: int
    settled: bool
    beaten: bool = False
    problem: str = ""
    turns_us: tuple[float, ...] = ()
    state: HostState = ANY
    disturbed: str = ""
    slowed_s: float = added(0.0)

    def whole_latency(
        self, *, threads: int, batch_size: int, dtype: str, engine: str = "autosparse"
    ) -> WholeLatency:
        """Gives the figure as the record that reports hold."""
        return WholeLatency(
            median_ms=self.median_us / 1e3,
            ci_low_ms=self.ci_low_us / 1e3,
            ci_high_ms=self.ci_high_us / 1e3,
            repeats=self.repeats,
            threads=threads,
            batch_size=batch_size,
            dtype=dtype,
            engine=engine,
            state=self.state.label,
            handover_ns=self.state.handover_ns,
        )


def measure(
    runner: Runner,
    policy: MeasurementPolicy,
    *,
    rival_us: float | None = None,
    floor_us: float = 0.0,
    prober: Prober | None = None,
    state: str | None = None,
    patience_s: float = PATIENCE_S,
    slow_patience_s: float = PATIENCE_S,
) -> Timing:
    """Samples one runner until its median is known well enough.

    The interval is looked at after every batch, so its coverage is a little below the nominal 95 %
    when sampling ends at the first look that meets the target. It speaks of the thing that is timed: a
    layer built anew lies in other memory, which moves small memory-bound layers by more than that.

    With a prober the host is probed between batches. Samples of its two states are kept apart, and a
    batch during which it changed, or somebody slowed the processors, is discarded.

    Args:
        runner: what to time.
        policy: warm-up and stopping rules.
        rival_us: upper end of the interval of the option to beat. Once this runner's interval lies
            wholly above it, sampling ends.
        floor_us: lower bound of the machine; a median under half of it is not plausible.
        prober: tells the state of the host; None where there is nothing to tell apart.
        state: the state that is wanted; None takes the one that the host is in.
        patience_s: where the host is in another state for longer, that one counts: see `Timing.state`.
        slow_patience_s: where somebody slows the processors for longer, that counts too: see
            `Timing.disturbed`.
    """
    with measuring("a kernel or a model"):
        watch = Watch()
        warm_up(runner, policy)
        sampling = _Sampling(runner, policy, rival_us, floor_us, prober)
        timing = sampling.go(state, patience_s, slow_patience_s)
        disturbed = prober.why_disturbed(watch) if prober else watch.conditions().why_disturbed
        return dataclasses.replace(timing, disturbed=disturbed, slowed_s=sampling.slowed_s)


class _Sampling:
    """Batches of one runner, apart by the state that the host was in."""

    def __init__(
        self,
        runner: Runner,
        policy: MeasurementPolicy,
        rival_us: float | None,
        floor_us: float,
        prober: Prober | None,
    ) -> None:
        self._runner, self._policy, self._prober = runner, policy, prober
        self._rival_us, self._floor_us = rival_us, floor_us
        self._samples: dict[str, NDArray[np.int64]] = {}
        self._handovers_ns: dict[str, list[float]] = {}
        self.slowed_s = 0.0

    def go(self, wanted: str | None, patience_s: float, slow_patience_s: float) -> Timing:
        """Samples until enough is known in one state: the wanted one, or else the current one."""
        before = self._look()
        state = before.label if wanted is None else wanted
        batch, begun, away_s = FEWEST_FOR_INTERVAL, time.monotonic(), 0.0
        while True:
            after = self._take(batch, before)
            if self._prober is not None and (before.is_slowed or after.is_slowed):
                self._prober.rest(_AWAY_S)
                self.slowed_s += time.monotonic() - begun
                self._prober.is_lenient |= self.slowed_s > slow_patience_s
                after = self._look()
            elif after.label != state or before.label != state:
                if away_s > patience_s:
                    state, away_s = self._settle_for(), -math.inf
                else:
                    time.sleep(_AWAY_S)
                    away_s += time.monotonic() - begun
                after = self._look()
            before, begun = after, time.monotonic()
            samples = self._samples.get(state)
            if samples is None:
                continue
            timing, width = self._timing(state, samples)
            batch = _next_batch(samples, width, self._policy)
            if timing.beaten or timing.settled or batch == 0:
                return timing

    def _settle_for(self) -> str:
        """Gives the state with most samples; without any, all samples count from now on."""
        if not self._samples:
            self._prober = None
        return max(self._samples, key=lambda label: self._samples[label].size, default=ANY.label)

    def _look(self) -> HostState:
        return ANY if self._prober is None else self._prober()

    def _take(self, batch: int, before: HostState) -> HostState:
        """Takes a batch, keeps it unless the host changed meanwhile, and gives the state afterwards."""
        samples = self._runner(batch)
        after = self._look()
        if after.label == before.label and before.is_usable and after.is_usable:
            known = self._samples.get(after.label, np.empty(0, dtype=np.int64))
            self._samples[after.label] = np.concatenate([known, samples])
            for each in (before, after):
                if each.handover_ns is not None:
                    self._handovers_ns.setdefault(after.label, []).append(each.handover_ns)
        return after

    def _timing(self, state: str, samples: NDArray[Any]) -> tuple[Timing, float]:
        """Gives what is known so far, and the interval's width over the policy's target."""
        median, low, high = median_ci(samples)
        width = (high - low) / (2 * self._policy.target_ci * max(median, 1.0))
        handovers_ns = self._handovers_ns.get(state)
        timing = Timing(
            median_us=median / 1e3,
            ci_low_us=low / 1e3,
            ci_high_us=high / 1e3,
            repeats=int(samples.size),
            settled=width <= 1 and samples.size >= self._policy.min_repeats,
            beaten=self._rival_us is not None and low > self._rival_us * 1e3,
            problem=why_implausible(samples, self._floor_us),
            state=HostState(
                label=state, handover_ns=float(np.median(handovers_ns)) if handovers_ns else None
            ),
        )
        return timing, width


def warm_up(runner: Runner, policy: MeasurementPolicy) -> float:
    """Runs for the policy's warm-up time, at least once; gives the pace in nanoseconds per run."""
    first = runner(1)  # a set of copies runs through all of them
    pace_ns = max(float(first[0]), 1.0)
    left = policy.warmup_us * 1e3 - float(first.sum())
    if left > pace_ns:
        runs = min(int(left / pace_ns), 10 * policy.max_repeats)
        pace_ns = max(float(np.median(runner(runs))), 1.0)
    return pace_ns


def _next_batch(samples: NDArray[Any], width: float, policy: MeasurementPolicy) -> int:
    """As many again, but within the caps; 0 ends the sampling."""
    taken = samples.size
    if taken < policy.min_repeats:
        return policy.min_repeats - taken
    cap_ns = policy.time_cap_us * 1e3 * (policy.patience if width > WIDE else 1.0)
    affordable = int((cap_ns - float(samples.sum())) / max(float(np.median(samples)), 1.0))
    return max(0, min(taken, policy.max_repeats - taken, affordable))


def why_implausible(samples_ns: NDArray[Any], floor_us: float = 0.0) -> str:
    """Gives the reason why samples cannot be wall times of real work, or an empty string."""
    least = int(samples_ns.min())
    if least <= 0:
        return f"a wall time must be greater than zero, but got {least} ns"
    median_us = float(np.median(samples_ns)) / 1e3
    if median_us < IMPLAUSIBLE_FRACTION * floor_us:
        return (
            f"a median must not be far under the machine's lower bound {floor_us:.3g} us, "
            f"but got {median_us:.3g} us"
        )
    return ""


def python_runner(call: Callable[[], object]) -> Runner:
    """Gives a runner for something that only Python can call, such as another library's model.

    The clock is read around the call, so the figure holds what that library's users wait for.
    """

    def run(count: int) -> NDArray[Any]:
        took = np.empty(count, dtype=np.int64)
        for index in range(count):
            start = time.perf_counter_ns()
            call()
            took[index] = time.perf_counter_ns() - start
        return took

    return run
