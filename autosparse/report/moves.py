"""What became of a front between two runs, as records; `fronts.compare_fronts` makes them.

A latency has moved where its 95 % interval and that of before do not meet; an accuracy where it changed
by more than the 95 % interval of the difference of two such samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from autosparse.report import move_words
from autosparse.storage.serial import Record

Fate = Literal["stayed", "appeared", "gone"]
Budget = Literal["none", "kept", "missed", "lost", "regained"]

FILE = "moved.json"
"""In the folder of a run that followed another, what became of the front."""

_95_PERCENT = 1.96

Span = tuple[float, tuple[float, float]]
"""A median in milliseconds and its 95 % interval."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyMove(Record):
    """A latency before and after, in one state of one host.

    Attributes:
        before_ms: median.
        before_ci_ms: its 95 % interval.
        after_ms: median.
        after_ci_ms: its 95 % interval.
        ratio: after over before; above 1 is slower.
        beyond_ms: from the end of the older interval to the near end of the newer one, negative if it
            became faster; 0 where they meet.
        is_disjoint: whether they do not meet.
    """

    before_ms: float
    before_ci_ms: tuple[float, float]
    after_ms: float
    after_ci_ms: tuple[float, float]
    ratio: float
    beyond_ms: float
    is_disjoint: bool

    @classmethod
    def of(cls, before: Span, after: Span) -> LatencyMove:
        """Compares two medians with their intervals."""
        (older_ms, older_ci), (newer_ms, newer_ci) = before, after
        slower, faster = newer_ci[0] - older_ci[1], newer_ci[1] - older_ci[0]
        beyond_ms = slower if slower > 0 else faster if faster < 0 else 0.0
        return cls(
            before_ms=older_ms,
            before_ci_ms=older_ci,
            after_ms=newer_ms,
            after_ci_ms=newer_ci,
            ratio=newer_ms / older_ms,
            beyond_ms=beyond_ms,
            is_disjoint=beyond_ms != 0,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AccuracyMove(Record):
    """An accuracy before and after, of equal training and on one split.

    Attributes:
        before: fraction correct.
        after: fraction correct.
        change: after minus before.
        samples: examples behind each.
        is_beyond: whether so large a change is more than chance.
    """

    before: float
    after: float
    change: float
    samples: int
    is_beyond: bool

    @classmethod
    def of(cls, before: float, after: float, samples: int) -> AccuracyMove:
        """Compares two accuracies of equally many samples; of unknown many nothing is beyond chance."""
        variance = sum(each * (1 - each) for each in (before, after)) / max(samples, 1)
        change = after - before
        return cls(
            before=before,
            after=after,
            change=change,
            samples=samples,
            is_beyond=samples > 0 and abs(change) > _95_PERCENT * math.sqrt(variance),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigMove(Record):
    """A configuration of one front or of both.

    Attributes:
        id: its plan's, on the newer front if it is there.
        was: the id on the older front of a plan with the same zeros, where other kernels run it.
        dtype: arithmetic type.
        fate: whether it is on both fronts, on the newer or on the older one alone.
        latency: before and after; None unless both are known in the state that is compared.
        accuracy: before and after; None unless both are of equal training and one split.
        why_not: why one of them is None though the configuration stayed.
        only_ms: where it is on one front alone, its latency there; None where that is not known.
        only_accuracy: likewise its accuracy.
    """

    id: str
    dtype: str
    fate: Fate
    latency: LatencyMove | None = None
    accuracy: AccuracyMove | None = None
    why_not: tuple[str, ...] = ()
    was: str = ""
    only_ms: float | None = None
    only_accuracy: float | None = None

    @property
    def moved(self) -> bool:
        """Whether latency or accuracy moved beyond their intervals."""
        slower_or_faster = self.latency is not None and self.latency.is_disjoint
        return slower_or_faster or (self.accuracy is not None and self.accuracy.is_beyond)


@dataclass(frozen=True, slots=True, kw_only=True)
class AtAccuracy(Record):
    """The least latency at which an accuracy is reached.

    Attributes:
        accuracy: that of the configuration that the older run chose, less one standard error, so that
            as much training again reaches it too.
        split: what it is of.
        before: id of the fastest configuration of the older run that reaches it.
        after: of the newer run; None where none does.
        latency: of the two; None where the newer run does not reach it.
    """

    accuracy: float
    split: str
    before: str
    after: str | None = None
    latency: LatencyMove | None = None

    @property
    def moved(self) -> bool:
        """Whether it takes another time beyond the intervals, or is no longer reached."""
        return self.latency is None or self.latency.is_disjoint


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontMove(Record):
    """What became of a front.

    Attributes:
        model: the newer run's.
        older: name of the older run.
        newer: name of the newer run.
        moved: whether a configuration that stayed, the least latency at equal accuracy, or the verdict
            moved; False where nothing can be compared.
        sentence: all of it for people.
        why_not: why the fronts cannot be compared; empty if they can.
        notes: what of them cannot be compared, and why.
        state: state of the host that latencies are compared in; empty where it has one.
        dense: un-pruned runs by engine and type, in both runs.
        configs: those that stayed, then those that appeared, then those that are gone.
        at_accuracy: the least latency at equal accuracy; None where no accuracies can be compared.
        budget_ms: latency budget of both; None without.
        budget: whether the verdict is that it is met: in both (``kept``), in none (``missed``), no
            longer (``lost``) or only now (``regained``); ``none`` where it cannot be compared.
        chosen: ids of the configurations that the verdicts name, older and newer.
    """

    model: str
    older: str
    newer: str
    moved: bool = False
    sentence: str = ""
    why_not: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    state: str = ""
    dense: Mapping[str, LatencyMove] = field(default_factory=dict)
    configs: tuple[ConfigMove, ...] = ()
    at_accuracy: AtAccuracy | None = None
    budget_ms: float | None = None
    budget: Budget = "none"
    chosen: tuple[str | None, str | None] = (None, None)

    @property
    def is_comparable(self) -> bool:
        """Whether the two runs answer the same question."""
        return not self.why_not

    def of_fate(self, fate: Fate) -> tuple[ConfigMove, ...]:
        """Gives the configurations of one fate."""
        return tuple(config for config in self.configs if config.fate == fate)

    def text(self) -> str:
        """Gives the sentence, and a line per configuration and dense run."""
        return move_words.described(self)
