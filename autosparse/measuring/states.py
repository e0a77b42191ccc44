"""The states of a host: how far apart the processors in use lie, as a probe tells.

A hypervisor moves the processors of a virtual machine about. For a while two of them share a cache,
then they do not, and whatever runs on both takes up to 1.7 times as long. Nothing in the machine says
so, but a cache line that the processors hand to one another does: it takes several times as long. It
may also let others compute on the same cores for a while, see `autosparse.measuring.pace`; nothing that
was timed meanwhile is of a state of its own.

Which figures make a state is for the host's own history to say (`split_of`); no constant of one machine
is in it. `measuring.histories` keeps history and split per host and number of threads.

`AUTOSPARSE_HOST_STATES=one` takes all states for one: figures are of whatever the host was in.
"""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from autosparse import hardware
from autosparse.kernels.probes import probe_handover_ns
from autosparse.measuring.conditions import Conditions, Watch, is_busy_accepted
from autosparse.measuring.pace import RAMP_S, SLOWED, UNLIMITED, Pace, PaceProbe, full_pace, probe_pace
from autosparse.storage.serial import Record, added

NEAR, APART = "shared", "apart"
"""States by name: the processors in use share a cache, or they do not."""

UNKNOWN = "unknown"
"""The label of a probe that failed: a thread waited for its processor all the while."""

# No two processors of a host lie so far apart: a hand-over that took this long waited for a processor.
ABSENT_NS = 10_000.0
# Two modes are two states if the gap between them is wider than either of them, and if they differ by
# more than an interval is wide; the logarithms of the hand-overs count.
_LEAST_RATIO = 1.25
_LEAST_MEMBERS = 3
# A state lasts for a while. Now and then a neighbour holds up a hand-over or three.
_LEAST_SHARE = 0.01
# A mode's width is that of its middle: a probe during which the host changes is in neither.
_OUTER = 0.05
_KEPT = 512
_ENOUGH = 40
_MOST_LOOKS = 3 * _ENOUGH
_LOOK_AGAIN_S = 0.02
_TRIES = 100
_LONG_S = 5.0
_VARIABLE = "AUTOSPARSE_HOST_STATES"

Probe = Callable[[int], float]
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostState(Record):
    """The state that a host was in.

    Attributes:
        label: ``shared`` or ``apart``; empty where only one state is known, or with one thread;
            ``unknown`` if the probe failed.
        handover_ns: what a cache line took from one processor in use to the next; None with one thread.
        is_slowed: whether somebody else was using the processors' cores.
    """

    label: str = ""
    handover_ns: float | None = None
    is_slowed: bool = added(False)

    @property
    def is_usable(self) -> bool:
        """Whether what is timed now counts: the probe told a state, and nobody slows the processors."""
        return self.label != UNKNOWN and not self.is_slowed

    def __str__(self) -> str:
        if self.handover_ns is None:
            return self.label
        return f"{self.label or 'one state'}, {self.handover_ns:.3g} ns per hand-over"


ANY = HostState()
"""The state where there is nothing to tell apart."""


def split_of(handovers_ns: Sequence[float]) -> float | None:
    """Gives the hand-over that divides two states; None where the figures are of one.

    The figures are divided where their logarithms vary least within both parts (Otsu's rule, which in
    one dimension is exact 2-means). Two parts are two states if between them lies a gap that is wider
    than either part.

    Args:
        handovers_ns: in any order; those of a probe that waited for a processor do not count.
    """
    ordered = np.log(sorted(ns for ns in handovers_ns if 0 < ns < ABSENT_NS))
    count = ordered.size
    least = max(_LEAST_MEMBERS, math.ceil(_LEAST_SHARE * count))
    if count < 2 * least:
        return None
    below = np.arange(least, count - least + 1)
    sums = np.cumsum(ordered)
    low, high = sums[below - 1] / below, (sums[-1] - sums[below - 1]) / (count - below)
    place = int(below[np.argmax(below * (count - below) * (high - low) ** 2)])
    near, apart = ordered[:place], ordered[place:]
    edges = float(np.quantile(near, 1 - _OUTER)), float(np.quantile(apart, _OUTER))
    gap = edges[1] - edges[0]
    widths = (_width(near), _width(apart))
    if gap <= max(*widths, math.log(_LEAST_RATIO)):
        return None
    return math.exp((edges[0] + edges[1]) / 2)


def _width(part: NDArray[np.float64]) -> float:
    return float(np.quantile(part, 1 - _OUTER) - np.quantile(part, _OUTER))


def label_of(handover_ns: float | None, split_ns: float | None) -> str:
    """Names the state of a figure; empty where only one state is known, or all are taken for one."""
    if handover_ns is not None and handover_ns >= ABSENT_NS:
        return UNKNOWN
    if handover_ns is None or split_ns is None or os.environ.get(_VARIABLE) == "one":
        return ""
    return APART if handover_ns > split_ns else NEAR


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks(Record):
    """What a host's probes are held against.

    Attributes:
        split_ns: hand-over that divides its two states; None while only one is known.
        full: what its processors can do; None while that is not known.
    """

    split_ns: float | None = None
    full: Pace | None = None


UNMARKED = Marks()
"""Nothing is known of the host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class History(Record):
    """What a host was seen like with one number of threads.

    Attributes:
        handovers_ns: of the latest probes.
        split_ns: what divides the two states; None while only one is known.
        work_us: state to the least time of one and the same work in it, where that was once measured.
        paces: what the processors did at the latest probes.
        limit: what they can do at least, though it was never seen with this number of threads; figures
            that are not known are 0.
    """

    handovers_ns: tuple[float, ...] = ()
    split_ns: float | None = None
    work_us: Mapping[str, float] = field(default_factory=dict)
    paces: tuple[Pace, ...] = ()
    limit: Pace = added(UNLIMITED)

    @property
    def marks(self) -> Marks:
        """What further probes are held against."""
        full = full_pace(self.paces) if len(self.paces) >= _ENOUGH else None
        return Marks(split_ns=self.split_ns, full=full and full.best(self.limit))

    @property
    def slowed_share(self) -> float | None:
        """Share of the probes at which somebody slowed the processors; None while that is not known."""
        if (full := self.marks.full) is None:
            return None
        return sum(pace.over(full) < SLOWED for pace in self.paces) / len(self.paces)

    @property
    def undisturbed_share(self) -> float:
        """Share of the probes at which nobody slowed the processors; 1 while that is not known.

        What was seldom left alone will seldom be: whoever waits for it waits for so much of the time
        that waiting may take at most.
        """
        return 1.0 - (self.slowed_share or 0.0)

    def grown(self, handovers_ns: Sequence[float], paces: Sequence[Pace] = ()) -> History:
        """Gives this history with further probes.

        A split that was found stays one, though the later probes be all of one state.
        """
        known = (*self.handovers_ns, *handovers_ns)
        split_ns = split_of(known)
        kept = known[-_KEPT:]
        split_ns = self.split_ns if split_ns is None else split_ns
        return dataclasses.replace(
            self, handovers_ns=kept, split_ns=split_ns, paces=(*self.paces, *paces)[-_KEPT:]
        )

    def shares(self) -> dict[str, float]:
        """Gives the share of the probes in each state, the one seen most often first."""
        labels = [label_of(ns, self.split_ns) for ns in self.handovers_ns]
        labels = [label for label in labels if label != UNKNOWN]
        counts = {label: labels.count(label) / len(labels) for label in dict.fromkeys(labels)}
        return dict(sorted(counts.items(), key=lambda item: -item[1]))

    @property
    def cost(self) -> float | None:
        """How many times as long work takes with processors apart; None where that is not known."""
        if not {NEAR, APART} <= self.work_us.keys():
            return None
        return self.work_us[APART] / self.work_us[NEAR]

    @property
    def usual(self) -> str:
        """The state that the host is in most often."""
        return next(iter(self.shares()), "")

    def typical_ns(self, label: str) -> float | None:
        """Gives the median hand-over of a state; None where it was never seen."""
        found = [
            ns for ns in self.handovers_ns if ns < ABSENT_NS and label_of(ns, self.split_ns) == label
        ]
        return float(np.median(found)) if found else None


@dataclass(slots=True)
class Prober:
    """Tells the state that the host is in.

    Attributes:
        threads: threads in use.
        history: what is known, this prober's own probes included.
        probe: takes a number of threads, gives nanoseconds per hand-over; not asked with one thread.
        rest: called with seconds to let pass.
        pace: tells what the processors do; None looks for no one who slows them.
        marks: what probes are held against; None is what the history says.
        is_lenient: takes slowed processors for what they are; at once where the user takes a busy host
            for a good one.
        waited_s: how long it has waited for better ones.
    """

    threads: int
    history: History = History()
    probe: Probe = probe_handover_ns
    rest: Callable[[float], None] = time.sleep
    pace: PaceProbe | None = None
    marks: Marks | None = None
    is_lenient: bool = field(default_factory=is_busy_accepted)
    taken_ns: list[float] = field(default_factory=list)
    taken_paces: list[Pace] = field(default_factory=list)
    waited_s: float = 0.0
    # Derived of all probes so far, which is too slow for each probe anew.
    _held: Marks | None = field(default=None, init=False)

    def __call__(self) -> HostState:
        """Probes once; a millisecond or so."""
        marks = self.held_against()
        is_slowed = self._is_slowed(marks.full)
        found = self.probe(self.threads) if self.threads > 1 else None
        # Two threads of one core hand a line over sooner than two cores ever do: that is no state.
        if found is not None and not is_slowed:
            self.taken_ns.append(found)
        return HostState(
            label=label_of(found, marks.split_ns),
            handover_ns=found,
            is_slowed=is_slowed,
        )

    def _is_slowed(self, full: Pace | None) -> bool:
        """Probes the pace, until it is what it can be or processors that rested have had their time."""
        if self.pace is None:
            return False
        until, found = time.monotonic() + RAMP_S, self.pace(self.threads)
        while (
            not self.is_lenient
            and (full is None or found.over(full) < SLOWED)
            and time.monotonic() < until
        ):
            found = found.best(self.pace(self.threads))
        self.taken_paces.append(found)
        return not self.is_lenient and full is not None and found.over(full) < SLOWED

    def held_against(self) -> Marks:
        """Gives the marks in use."""
        if self._held is None:
            self._held = self.marks or self.history.marks
        return self._held

    @property
    def pace_share(self) -> float | None:
        """What the processors did at this prober's own probes over what they can; the median."""
        full = self.held_against().full
        if full is None or not self.taken_paces:
            return None
        return float(np.median([pace.over(full) for pace in self.taken_paces]))

    def why_disturbed(self, watch: Watch) -> str:
        """Says what disturbed what was timed; empty if nothing did.

        Args:
            watch: of the host since then.
        """
        return self.conditions(watch).why_disturbed

    def conditions(self, watch: Watch) -> Conditions:
        """Gives what the host was like while something was timed."""
        return watch.conditions(rate_share=self.pace_share if self.is_lenient else None)

    @property
    def told(self) -> str:
        """What is worth keeping with a figure beside it; empty for nothing."""
        return ""

    @property
    def has_waited_long(self) -> bool:
        """Whether it has waited for some seconds in all."""
        return self.waited_s > _LONG_S

    def wait(self, seconds: float) -> None:
        """Rests, and takes processors for what they are once that has been long."""
        self.rest(seconds)
        self.waited_s += seconds
        self.is_lenient = self.is_lenient or self.has_waited_long

    def learn(self) -> None:
        """Takes the probes so far into the history, and some more while there are too few to tell."""
        for _ in range(_MOST_LOOKS):
            if not self._is_ignorant():
                break
            self()
            self.rest(_LOOK_AGAIN_S)
        if self.marks is None and self.history.marks.full is None:
            self._forget_slowed()
        self.history = self.history.grown(self.taken_ns, self.taken_paces)
        self.taken_ns, self.taken_paces, self.marks, self._held = [], [], None, None

    def _forget_slowed(self) -> None:
        """Drops hand-overs of slowed processors, taken before it was known what those can do."""
        full = full_pace(self.taken_paces)
        if full is not None and len(self.taken_ns) == len(self.taken_paces):
            pairs = zip(self.taken_ns, self.taken_paces, strict=True)
            self.taken_ns = [ns for ns, pace in pairs if pace.over(full) >= SLOWED]

    def _is_ignorant(self) -> bool:
        handovers = len(self.history.handovers_ns) + len(self.taken_ns)
        paces = len(self.history.paces) + len(self.taken_paces)
        return (self.threads > 1 and handovers < _ENOUGH) or (self.pace is not None and paces < _ENOUGH)


def in_state(prober: Prober | None, state: str, call: Callable[[], T]) -> T:
    """Calls something until the host was in a state before and after; the last try counts anyway.

    For what is told beside the figures that count.
    """
    value = only_in_state(prober, state, call)
    return call() if value is None else value


def only_in_state(prober: Prober | None, state: str, call: Callable[[], T]) -> T | None:
    """Calls something until the host was in a state before and after; None if that took too long.

    A prober waits for some seconds in all, whatever it is asked for, and then takes slowed processors
    for what they are.

    Args:
        prober: tells the host's state; None where there is nothing to tell apart.
        state: that is wanted; empty takes any.
        call: what is timed.
    """
    if prober is None:
        return call()

    def is_there() -> bool:
        found = prober()
        return found.is_usable and state in ("", found.label)

    for _ in range(_TRIES):
        if not is_there():
            prober.wait(_LOOK_AGAIN_S)
            continue
        value = call()
        if is_there():
            return value
    return None


def watched(threads: int, history: History | None = None) -> Prober | None:
    """Gives what tells this host's state; None with more threads than it has cores.

    A host that is hardly known is watched for a second first.

    Args:
        threads: threads in use.
        history: what is known of the host with so many, None for nothing.
    """
    if not 1 <= threads <= hardware.usable_cores():
        return None
    prober = Prober(threads, history or History(), pace=probe_pace)
    prober.learn()
    return prober
