"""The only stopwatch: every latency in a table, a report or a benchmark was taken by this file.

A *runner* is a callable that runs something n times, or somewhat more, and returns one wall time per
run in nanoseconds. The clock is read inside the native executor, so neither Python nor ctypes is in the
figure.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from autosparse.errors import UsageError
from autosparse.progress import Progress, Step
from autosparse.records import WholeLatency
from autosparse.serial import Record, short_hash
from autosparse.statistics import FEWEST_FOR_INTERVAL, median_ci

log = logging.getLogger(__name__)

Runner = Callable[[int], NDArray[Any]]

# A row faster than this fraction of the machine's lower bound is a broken clock or a kernel that did
# nothing. The slack is wide because the limits are measured too, possibly on a busy machine.
IMPLAUSIBLE_FRACTION = 0.5
# An interval this many times wider than the target tells of a disturbance, not of the kernel.
WIDE = 3.0
# A kernel this many times slower than its rival need not be timed with care.
_HOPELESS = 2.0
# Runs per turn of an interleaved comparison; one more goes before them, to bring back the caches that
# the other runners took.
_TURN_RUNS = 3
_TURN_US = 20_000.0

DISTURBED = 1.1
"""What takes this many times as long as it can was not slow by itself: the host was disturbed."""
# A runner's turns at this quantile count as undisturbed; the very fastest may be a lucky one.
_UNDISTURBED_QUANTILE = 0.1


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
        time_cap_us: sampling time at most; `min_repeats` samples are taken even beyond it.
        patience: multiple of `time_cap_us` for a measurement so disturbed that at the cap its interval
            is still `WIDE` times as wide as the target.
        reuse_bytes: weights read between two uses of the same weights; 0 times them warm.
        max_copies: copies in the rotating set at most.
        max_copies_bytes: memory of the rotating set at most.
        writes_inputs: whether other operators write the inputs anew before every run of a layer.
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
        l3_bytes: int = 0,
    ) -> int:
        """Gives how many copies of a layer to rotate through.

        Args:
            weight_bytes: packed weights of one copy.
            memory_bytes: all memory of one copy.
            run_us: roughly, the time of one run.
            rival_us: time of the option to beat, None without.
            l3_bytes: size of the last cache; reading twice that evicts all, 0 where unknown.
        """
        distance = min(self.reuse_bytes, 2 * l3_bytes) if l3_bytes else self.reuse_bytes
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
    max_repeats=2_000,
    time_cap_us=4_000_000.0,
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
    """

    median_us: float
    ci_low_us: float
    ci_high_us: float
    repeats: int
    settled: bool
    beaten: bool = False
    problem: str = ""
    turns_us: tuple[float, ...] = ()

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
        )


def measure(
    runner: Runner,
    policy: MeasurementPolicy,
    *,
    rival_us: float | None = None,
    floor_us: float = 0.0,
) -> Timing:
    """Samples one runner until its median is known well enough.

    The interval is looked at after every batch, so its coverage is a little below the nominal 95 %
    when sampling ends at the first look that meets the target. It speaks of the thing that is timed: a
    layer built anew lies in other memory, which moves small memory-bound layers by more than that.

    Args:
        runner: what to time.
        policy: warm-up and stopping rules.
        rival_us: upper end of the interval of the option to beat. Once this runner's interval lies
            wholly above it, sampling ends.
        floor_us: lower bound of the machine; a median under half of it is not plausible.
    """
    warm_up(runner, policy)
    samples: NDArray[np.int64] = np.empty(0, dtype=np.int64)
    batch = FEWEST_FOR_INTERVAL
    while True:
        samples = np.concatenate([samples, runner(batch)])
        median, low, high = median_ci(samples)
        beaten = rival_us is not None and low > rival_us * 1e3
        width = (high - low) / (2 * policy.target_ci * max(median, 1.0))
        settled = width <= 1 and samples.size >= policy.min_repeats
        batch = _next_batch(samples, width, policy)
        if beaten or settled or batch == 0:
            break
    return Timing(
        median_us=median / 1e3,
        ci_low_us=low / 1e3,
        ci_high_us=high / 1e3,
        repeats=int(samples.size),
        settled=bool(settled),
        beaten=bool(beaten),
        problem=why_implausible(samples, floor_us),
    )


def warm_up(runner: Runner, policy: MeasurementPolicy) -> float:
    """Runs for the policy's warm-up time, at least once; gives the pace in nanoseconds per run."""
    pace_ns = max(float(runner(1)[0]), 1.0)
    left = policy.warmup_us * 1e3 - pace_ns
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


# ------------------------------------------------------------------------------- whole models


def interleave(
    runners: Mapping[str, Runner],
    policy: MeasurementPolicy,
    progress: Progress,
    *,
    pause_s: float = 0.0,
) -> dict[str, Timing]:
    """Compares runners fairly: they take turns, and every other round goes backwards (A B B A).

    Slow drifts of the machine then hit all alike. A turn is a few runs after one that is thrown away;
    its median is one sample, so that noise within a turn does not pose as many independent samples.

    Args:
        runners: name to runner.
        policy: `min_repeats` and `max_repeats` count runs of each runner, `time_cap_us` the running
            time of each.
        progress: told of every round, and asked whether to stop.
        pause_s: rest before every turn, for engines whose threads go on spinning in wait of work.

    Returns:
        Name to timing, with `turns_us` for `paired_ratio`.

    Raises:
        UsageError: no runners.
        Stopped: a stop was requested.
    """
    if not runners:
        raise UsageError("interleave needs at least one runner, but got none")
    turns: dict[str, list[float]] = {name: [] for name in runners}
    least: dict[str, int] = dict.fromkeys(runners, 1)
    paces = {name: warm_up(runner, policy) for name, runner in runners.items()}
    runs = {
        name: min(max(_TURN_RUNS, int(_TURN_US * 1e3 / pace)), policy.max_repeats)
        for name, pace in paces.items()
    }
    rounds = _rounds(paces, runs, policy)
    with progress.step("measure whole models", rounds) as step:
        for number in range(rounds):
            _round(runners, runs, turns, least, backwards=number % 2 == 1, pause_s=pause_s)
            if _all_settled(turns, runs, policy):
                _finish(step, rounds)
                break
            step.advance()
    return {name: _timing(turns[name], runs[name], least[name], policy) for name in runners}


def _finish(step: Step, rounds: int) -> None:
    step.advance(rounds - step.done, "interval reached")


def _rounds(paces: Mapping[str, float], runs: Mapping[str, int], policy: MeasurementPolicy) -> int:
    turn_ns = max(paces[name] * (runs[name] + 1) for name in paces)
    least = max(FEWEST_FOR_INTERVAL, math.ceil(policy.min_repeats / min(runs.values())))
    most = max(least, policy.max_repeats // min(runs.values()))
    return min(most, max(least, int(policy.time_cap_us * 1e3 / turn_ns)))


def _round(
    runners: Mapping[str, Runner],
    runs: Mapping[str, int],
    turns: dict[str, list[float]],
    least: dict[str, int],
    *,
    backwards: bool,
    pause_s: float,
) -> None:
    for name in reversed(list(runners)) if backwards else runners:
        time.sleep(pause_s)
        samples = runners[name](runs[name] + 1)[1:]
        turns[name].append(float(np.median(samples)) / 1e3)
        least[name] = min(least[name], int(samples.min()))


def _all_settled(
    turns: Mapping[str, list[float]], runs: Mapping[str, int], policy: MeasurementPolicy
) -> bool:
    for name, medians in turns.items():
        if len(medians) < FEWEST_FOR_INTERVAL or len(medians) * runs[name] < policy.min_repeats:
            return False
        median, low, high = median_ci(medians)
        if high - low > 2 * policy.target_ci * median:
            return False
    # An even number of rounds keeps forward and backward order in balance.
    return len(next(iter(turns.values()))) % 2 == 0


def _timing(turns: list[float], runs: int, least_ns: int, policy: MeasurementPolicy) -> Timing:
    median, low, high = median_ci(turns)
    return Timing(
        median_us=median,
        ci_low_us=low,
        ci_high_us=high,
        repeats=len(turns) * runs,
        settled=high - low <= 2 * policy.target_ci * median,
        problem=why_implausible(np.array([least_ns])),
        turns_us=tuple(turns),
    )


def disturbed_rounds(timings: Mapping[str, Timing]) -> tuple[int, ...]:
    """Gives the numbers of the rounds in which something else slowed the machine down.

    Hosts of virtual machines move their processors about, for seconds to minutes. A round counts as
    disturbed if most of its turns took clearly longer than the same runner's undisturbed ones; medians
    and paired ratios withstand some of them, but not when they are most of all.

    Args:
        timings: of one interleaved comparison.
    """
    slowdowns = []
    for timing in timings.values():
        turns = np.array(timing.turns_us)
        slowdowns.append(turns / np.quantile(turns, _UNDISTURBED_QUANTILE))
    typical = np.median(np.array(slowdowns), axis=0)
    return tuple(int(number) for number in np.flatnonzero(typical > DISTURBED))


def paired_ratio(numerator: Timing, denominator: Timing) -> tuple[float, float, float]:
    """Gives the ratio of two interleaved timings, from the ratio within every round.

    Returns:
        Median ratio, lower and upper end of its 95 % interval.

    Raises:
        UsageError: the two do not come from one interleaved comparison.
    """
    if not numerator.turns_us or len(numerator.turns_us) != len(denominator.turns_us):
        raise UsageError(
            "a paired ratio needs two timings of one interleaved comparison, but got "
            f"{len(numerator.turns_us)} and {len(denominator.turns_us)} turns"
        )
    pairs = zip(numerator.turns_us, denominator.turns_us, strict=True)
    return median_ci([above / below for above, below in pairs])


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
