"""Further turns for runners of which a comparison left open on which side of a bound they are.

A latency whose interval crosses the budget says neither yes nor no. So it is measured on, in turn with
one that everybody knows, until the interval lies on one side or a stated time is used up.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from autosparse.measuring.states import Prober
from autosparse.measuring.stopwatch import MeasurementPolicy, Runner, Timing
from autosparse.measuring.turns import DISTURBED, interleave
from autosparse.progress import Progress
from autosparse.statistics import median_ci

# Turns are added so much running time at a time, and then looked at.
_STEP_US = 1e6
_UNREACHABLE = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What came of it.

    Attributes:
        timings: name to timing, of the runners that were measured on, all their turns together.
        seconds: time that it took, rests included.
    """

    timings: Mapping[str, Timing]
    seconds: float


def crosses(timing: Timing, bound_us: float) -> bool:
    """Whether the interval leaves open on which side of a bound the median lies."""
    return timing.ci_low_us <= bound_us < timing.ci_high_us


def decide(
    runners: Mapping[str, Runner],
    timings: Mapping[str, Timing],
    bound_us: float,
    policy: MeasurementPolicy,
    progress: Progress,
    *,
    canary: str,
    cap_us: float,
    state: str,
    spinning: Collection[str] = (),
    prober: Prober | None = None,
) -> Decision:
    """Measures on whatever a comparison left open.

    Turns during which the canary ran clearly slower than before are of a disturbed host, and so are
    those of another state: they do not count, but their time does.

    Args:
        runners: name to runner; the canary among them.
        timings: what the comparison found in the state that counts.
        bound_us: what a whole interval shall lie below or above, microseconds.
        policy: how turns are taken; only their number is decided here.
        progress: asked whether to stop.
        canary: name of the runner that takes part in every round.
        cap_us: time after which it stays open, microseconds.
        state: the state that counts.
        spinning: as in `interleave`.
        prober: tells the state of the host.

    Raises:
        Stopped: a stop was requested.
    """
    begun, found = time.monotonic(), dict[str, Timing]()
    if not (left := _open(timings, bound_us, canary)):
        return Decision(timings=found, seconds=0.0)
    few = dataclasses.replace(policy, warmup_us=0.0, target_ci=_UNREACHABLE)
    quiet = Progress(should_stop=progress.stop_requested)
    with progress.step("decide what is close to the budget", len(left)) as step:
        while left and (spent_us := 1e6 * (time.monotonic() - begun)) < cap_us:
            step.check()
            names = [canary, *left]
            more = interleave(
                {name: runners[name] for name in names},
                dataclasses.replace(few, time_cap_us=min(_STEP_US, cap_us - spent_us) / len(names)),
                quiet,
                spinning=[name for name in names if name in spinning],
                prober=prober,
            ).timings.get(state)
            if more is not None and more[canary].median_us <= DISTURBED * timings[canary].median_us:
                for name in left:
                    found[name] = _joined(found.get(name, timings[name]), more[name], policy)
                were_left, left = left, _open({**timings, **found}, bound_us, canary)
                step.advance(len(were_left) - len(left))
    return Decision(timings=found, seconds=time.monotonic() - begun)


def _open(timings: Mapping[str, Timing], bound_us: float, canary: str) -> list[str]:
    return [name for name, each in timings.items() if name != canary and crosses(each, bound_us)]


def _joined(before: Timing, more: Timing, policy: MeasurementPolicy) -> Timing:
    """Gives one timing of the turns of two."""
    turns_us = (*before.turns_us, *more.turns_us)
    median, low, high = median_ci(turns_us)
    return dataclasses.replace(
        before,
        median_us=median,
        ci_low_us=low,
        ci_high_us=high,
        repeats=before.repeats + more.repeats,
        settled=high - low <= 2 * policy.target_ci * median,
        problem=before.problem or more.problem,
        turns_us=turns_us,
    )
