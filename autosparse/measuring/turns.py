"""Comparisons: runners that take turns, compared within one state of the host.

Every other round goes backwards (A B B A), so that slow drifts of the machine hit all alike. A turn is
a few runs after one that is thrown away; its median is one sample, so that noise within a turn does not
pose as many independent samples.

A host may change between two states within a fraction of a second (`autosparse.measuring.states`). So
it is probed before and after every turn: a turn during which it changed is discarded and taken again,
and every state has rounds of its own, which go on whenever the host is in it. Only turns of one state
are ever compared. A turn before or after which the processors were slowed by somebody is discarded too,
unless they are all the while.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from autosparse.errors import AutosparseError, UsageError
from autosparse.measuring.conditions import Conditions, Watch
from autosparse.measuring.histories import keep, prober_for
from autosparse.measuring.lock import measuring
from autosparse.measuring.states import (
    ANY,
    HostState,
    Prober,
    label_of,
    split_of,
)
from autosparse.measuring.stopwatch import MeasurementPolicy, Runner, Timing, warm_up, why_implausible
from autosparse.progress import Progress, Step
from autosparse.statistics import FEWEST_FOR_INTERVAL, median_ci
from autosparse.storage.serial import Record

# Runs per turn; one more goes before them, to bring back the caches that the other runners took.
_TURN_RUNS = 3
_TURN_US = 20_000.0
# Turns in all, discarded ones included, over those of one state at its cap.
_PATIENCE = 3
# Rounds for which a state is waited for at least, if the host is in it for a fair share of the time.
_WAIT_ROUNDS = 24
# Processors that somebody slows are waited for so long, as a share of the running time that is allowed.
_SLOWED_SHARE = 0.75
_LOOK_AGAIN_S = 0.02
_FAIR_SHARE = 0.1

DISTURBED = 1.1
"""What takes this many times as long as it can was not slow by itself: the host was disturbed."""
# A runner's turns at this quantile count as undisturbed; the very fastest may be a lucky one.
_UNDISTURBED_QUANTILE = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison(Record):
    """What came of a comparison.

    Attributes:
        timings: state to name to timing, with `turns_us` for `paired_ratio`; the slowest state first.
        handovers_ns: state to the median hand-over of its turns; None with one thread.
        discarded: turns that were discarded because the host changed meanwhile.
        slowed: turns that were not taken, or discarded, because somebody slowed the processors.
        too_short: state to the rounds that it lasted for, of states too short to tell anything.
        conditions: what else the host was like.
    """

    timings: Mapping[str, Mapping[str, Timing]]
    handovers_ns: Mapping[str, float | None]
    discarded: int
    slowed: int
    too_short: Mapping[str, int]
    conditions: Conditions

    @property
    def states(self) -> tuple[str, ...]:
        """Labels of the states that were seen long enough, the slowest first."""
        return tuple(self.timings)

    @property
    def longest(self) -> str:
        """The state with most rounds."""
        return max(self.states, key=lambda state: len(_first(self.timings[state]).turns_us))


def _first(timings: Mapping[str, Timing]) -> Timing:
    return next(iter(timings.values()))


def interleave(
    runners: Mapping[str, Runner],
    policy: MeasurementPolicy,
    progress: Progress,
    *,
    spinning: Collection[str] | None = None,
    prober: Prober | None = None,
) -> Comparison:
    """Compares runners fairly, each state of the host by itself.

    Sampling ends once every state that was seen for long, or that the host is often in, has narrow
    intervals or has had its share of time. For a second state it goes on for about as long as the first
    one took, and not for longer than one may take.

    Args:
        runners: name to runner.
        policy: `min_repeats` and `max_repeats` count runs of each runner, `time_cap_us` the running
            time of each in one state on average, rests included.
        progress: told of every round, and asked whether to stop.
        spinning: names whose threads may go on spinning for a while after a run: the turn after theirs
            is begun with the policy's rest. None is all names.
        prober: tells the state of the host; None where there is nothing to tell apart.

    Raises:
        UsageError: no runners.
        AutosparseError: the host changed its state in every turn.
        Stopped: a stop was requested.
    """
    if not runners:
        raise UsageError("interleave needs at least one runner, but got none")
    with measuring("models in turn", progress):
        watch = Watch()
        taking = _Taking(runners, policy, spinning, prober)
        taking.go(progress)
        conditions = watch.conditions() if prober is None else prober.conditions(watch)
    return taking.comparison(conditions)


def interleave_here(
    runners: Mapping[str, Runner],
    policy: MeasurementPolicy,
    progress: Progress,
    *,
    threads: int,
    spinning: Collection[str] | None = None,
    probe: Callable[[int], Prober | None] = prober_for,
) -> tuple[Comparison, Prober | None]:
    """Compares runners of so many threads on this host, whose states and limits are known to it.

    Gives the prober too, for what is to be timed in the same state afterwards; see `keep`. `probe`
    makes it, where what is measured is not the processor.
    """
    with measuring("models in turn", progress):
        prober = probe(threads)
        found = interleave(runners, policy, progress, spinning=spinning, prober=prober)
        if probe is prober_for:
            keep(prober)
    return found, prober


@dataclass(frozen=True, slots=True)
class _Turn:
    """One turn that was kept: of whom, how long a run took, and the probes before and after."""

    name: str
    median_us: float
    least_ns: int
    handovers_ns: tuple[float, ...]


class _Rounds:
    """The turns that were taken in one state."""

    def __init__(self, names: Sequence[str]) -> None:
        self.turns: dict[str, list[_Turn]] = {name: [] for name in names}

    @property
    def complete(self) -> int:
        """Rounds in which everybody had a turn."""
        return min(len(turns) for turns in self.turns.values())

    @property
    def is_between(self) -> bool:
        """Whether no round is under way."""
        return len({len(turns) for turns in self.turns.values()}) == 1

    def next(self) -> str:
        """Names whose turn is next."""
        done = self.complete
        order = reversed(self.turns) if done % 2 else self.turns
        return next(name for name in order if len(self.turns[name]) == done)

    def is_settled(self, runs: Mapping[str, int], policy: MeasurementPolicy) -> bool:
        """Whether every interval is narrow enough."""
        done = self.complete
        # An even number of rounds keeps forward and backward order in balance.
        if done < FEWEST_FOR_INTERVAL or done % 2:
            return False
        for name, turns in self.turns.items():
            if done * runs[name] < policy.min_repeats:
                return False
            median, low, high = median_ci([turn.median_us for turn in turns[:done]])
            if high - low > 2 * policy.target_ci * median:
                return False
        return True


class _Taking:
    """A comparison under way."""

    def __init__(
        self,
        runners: Mapping[str, Runner],
        policy: MeasurementPolicy,
        spinning: Collection[str] | None,
        prober: Prober | None,
    ) -> None:
        self._runners, self._policy, self._prober = runners, policy, prober
        self._spinning = frozenset(runners if spinning is None else spinning)
        self._latest = list(runners)[-1]
        paces = {name: warm_up(runner, policy) for name, runner in runners.items()}
        self._runs = {
            name: min(max(_TURN_RUNS, int(_TURN_US * 1e3 / pace)), policy.max_repeats)
            for name, pace in paces.items()
        }
        self._allowed_s = len(runners) * policy.time_cap_us / 1e6
        self._most = _most_rounds(paces, self._runs, policy, len(self._spinning))
        self._rounds: dict[str, _Rounds] = {}
        self._taken = self._discarded = self._slowed = 0

    def go(self, progress: Progress) -> None:
        """Takes turns until enough is known, or time is up: on a busy host turns take long."""
        first_ended = patience = 0
        begun, until_s = time.monotonic(), 2 * self._allowed_s
        with progress.step("measure whole models", self._most) as step:
            while self._taken < _PATIENCE * self._most * len(self._runners):
                is_round = self._take()
                rounds, passed_s = self._longest(), time.monotonic() - begun
                tells = rounds.complete >= FEWEST_FOR_INTERVAL
                if tells and passed_s > until_s:
                    break
                if not tells and self._slowed and passed_s > self._wait_s():
                    self._put_up_with_it()
                if is_round:
                    if rounds.complete > step.done:
                        step.advance()
                    late = tells and passed_s > self._allowed_s
                    if not first_ended and (late or self._has_ended(rounds)):
                        first_ended, until_s = self._taken, passed_s + self._allowed_s
                        patience = max(self._taken, _WAIT_ROUNDS * len(self._runners))
                    if first_ended and (self._all_ended() or self._taken >= first_ended + patience):
                        break
                progress.check()
            _finish(step, self._most)

    def _wait_s(self) -> float:
        """Gives how long processors that somebody slows are waited for."""
        share = 1.0 if self._prober is None else self._prober.history.undisturbed_share
        return _SLOWED_SHARE * share * self._allowed_s

    def _put_up_with_it(self) -> None:
        """Takes turns on processors that somebody slows: they are hardly ever left alone."""
        if self._prober is not None:
            self._prober.is_lenient = True

    def _take(self) -> bool:
        """Takes the turn that is next in the host's state; says whether that ended a round."""
        if self._latest in self._spinning:
            time.sleep(self._policy.rest_us / 1e6)
        before = self._state()
        if before.is_slowed and self._prober is not None:
            self._slowed += 1
            self._prober.rest(_LOOK_AGAIN_S)
            return False
        self._taken += 1
        rounds = self._rounds.setdefault(before.label, _Rounds(list(self._runners)))
        self._latest = name = rounds.next()
        samples = self._runners[name](self._runs[name] + 1)[1:]
        after = self._state()
        if after.is_slowed:
            self._slowed += 1
            return False
        if before.label != after.label or not before.is_usable:
            self._discarded += 1
            return False
        probes = tuple(s.handover_ns for s in (before, after) if s.handover_ns is not None)
        turn = _Turn(name, float(np.median(samples)) / 1e3, int(samples.min()), probes)
        rounds.turns[name].append(turn)
        if rounds.is_between:
            self._look_for_a_second_state()
        return rounds.is_between

    def _state(self) -> HostState:
        return ANY if self._prober is None else self._prober()

    def _look_for_a_second_state(self) -> None:
        """Sorts the turns anew if the host turns out to have two states of which only one was known."""
        if self._prober is None or self._prober.history.split_ns is not None:
            return
        if split_of((*self._prober.history.handovers_ns, *self._prober.taken_ns)) is None:
            return
        self._prober.learn()
        turns = [
            turn for rounds in self._rounds.values() for one in rounds.turns.values() for turn in one
        ]
        self._rounds = {}
        for turn in turns:
            labels = {label_of(ns, self._prober.history.split_ns) for ns in turn.handovers_ns}
            if len(labels) > 1:
                self._discarded += 1
                continue
            rounds = self._rounds.setdefault(labels.pop(), _Rounds(list(self._runners)))
            rounds.turns[turn.name].append(turn)

    def _longest(self) -> _Rounds:
        return max(
            self._rounds.values(),
            key=lambda rounds: rounds.complete,
            default=_Rounds(list(self._runners)),
        )

    def _has_ended(self, rounds: _Rounds) -> bool:
        return rounds.complete >= self._most or rounds.is_settled(self._runs, self._policy)

    def _all_ended(self) -> bool:
        """Whether every state that was seen or may be expected has ended."""
        shares = {} if self._prober is None else self._prober.history.shares()
        wanted = {state for state, share in shares.items() if share >= _FAIR_SHARE}
        # Of a state that hardly ever comes, a visit that was cut short is not waited for to come again.
        wanted |= {s for s, each in self._rounds.items() if 2 * each.complete >= FEWEST_FOR_INTERVAL}
        found = self._rounds
        return wanted <= set(found) and all(self._has_ended(found[state]) for state in wanted)

    def comparison(self, conditions: Conditions) -> Comparison:
        """Gives what was found; a state that was too short to tell anything is left out."""
        told = {
            label: rounds
            for label, rounds in self._rounds.items()
            if rounds.complete >= FEWEST_FOR_INTERVAL
        }
        longest = self._longest()
        if not told and longest.complete:
            told = {label: rounds for label, rounds in self._rounds.items() if rounds is longest}
        if not told:
            raise AutosparseError(
                f"a turn must end in the state of the host that it began in, but none of "
                f"{self._discarded} did; wait until the host is quieter"
            )
        timings = {label: self._timings(rounds, label) for label, rounds in told.items()}
        return Comparison(
            timings={label: timings[label] for label in slowest_first(timings)},
            handovers_ns={label: _handover_ns(rounds) for label, rounds in told.items()},
            discarded=self._discarded,
            slowed=self._slowed,
            too_short={
                label: rounds.complete for label, rounds in self._rounds.items() if label not in told
            },
            conditions=conditions,
        )

    def _timings(self, rounds: _Rounds, label: str) -> dict[str, Timing]:
        handover_ns = _handover_ns(rounds)
        return {
            name: _timing(turns[: rounds.complete], self._runs[name], self._policy, label, handover_ns)
            for name, turns in rounds.turns.items()
        }


def slowest_first(timings: Mapping[str, Mapping[str, Timing]]) -> list[str]:
    """Orders states by what the same runners take in them, by the geometric mean."""

    def mean(state: str) -> float:
        return float(np.mean([math.log(max(t.median_us, 1e-9)) for t in timings[state].values()]))

    return sorted(timings, key=mean, reverse=True)


def _finish(step: Step, rounds: int) -> None:
    if step.done < rounds:
        step.advance(rounds - step.done, "interval reached")


def _most_rounds(
    paces: Mapping[str, float], runs: Mapping[str, int], policy: MeasurementPolicy, rests: int
) -> int:
    """Gives how many rounds there are at most, with so many rests in each."""
    round_ns = sum(paces[name] * (runs[name] + 1) for name in paces) + rests * policy.rest_us * 1e3
    least = max(FEWEST_FOR_INTERVAL, math.ceil(policy.min_repeats / min(runs.values())))
    most = max(least, policy.max_repeats // min(runs.values()))
    return min(most, max(least, int(len(paces) * policy.time_cap_us * 1e3 / round_ns)))


def _handover_ns(rounds: _Rounds) -> float | None:
    known = [ns for turns in rounds.turns.values() for turn in turns for ns in turn.handovers_ns]
    return float(np.median(known)) if known else None


def _timing(
    turns: Sequence[_Turn],
    runs: int,
    policy: MeasurementPolicy,
    label: str,
    handover_ns: float | None,
) -> Timing:
    turns_us = tuple(turn.median_us for turn in turns)
    median, low, high = median_ci(turns_us)
    return Timing(
        median_us=median,
        ci_low_us=low,
        ci_high_us=high,
        repeats=len(turns) * runs,
        settled=high - low <= 2 * policy.target_ci * median,
        problem=why_implausible(np.array([min(turn.least_ns for turn in turns)])),
        turns_us=turns_us,
        state=HostState(label=label, handover_ns=handover_ns),
    )


def disturbed_rounds(timings: Mapping[str, Timing]) -> tuple[int, ...]:
    """Gives the numbers of the rounds in which something else slowed the machine down.

    A round counts as disturbed if most of its turns took clearly longer than the same runner's
    undisturbed ones; medians and paired ratios withstand some of them, but not if they are the most.

    Args:
        timings: of one interleaved comparison, in one state.
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
        UsageError: the two do not come from one interleaved comparison, or from two states of the host.
    """
    if not numerator.turns_us or len(numerator.turns_us) != len(denominator.turns_us):
        raise UsageError(
            "a paired ratio needs two timings of one interleaved comparison, but got "
            f"{len(numerator.turns_us)} and {len(denominator.turns_us)} turns"
        )
    if numerator.state.label != denominator.state.label:
        raise UsageError(
            "a paired ratio needs two timings in one state of the host, but got "
            f"{numerator.state.label!r} and {denominator.state.label!r}"
        )
    pairs = zip(numerator.turns_us, denominator.turns_us, strict=True)
    return median_ci([above / below for above, below in pairs])
