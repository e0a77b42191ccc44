"""Whether a deployed artifact meets its latency budget, and whether it runs as when it was made."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from autosparse.errors import ExitCode
from autosparse.records import Record, WholeLatency
from autosparse.report import words
from autosparse.report.moves import LatencyMove

Verdict = Literal["met", "missed", "open"]
Against = Literal["within", "faster", "slower", "unknown"]


def verdict_of(latency: WholeLatency, budget_ms: float, disturbed: str = "") -> Verdict:
    """Decides as a search does: met is a budget that the whole interval lies within.

    Args:
        latency: as measured.
        budget_ms: milliseconds.
        disturbed: what else ran on the host; empty if nothing did. Whatever meets its budget even so
            meets it, but what does not was perhaps only held up.

    Returns:
        ``open`` where the interval crosses the budget, or lies above it on a disturbed host.
    """
    if latency.ci_high_ms <= budget_ms:
        return "met"
    return "missed" if latency.ci_low_ms > budget_ms and not disturbed else "open"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOutcome(Record):
    """What a check of an artifact found.

    Attributes:
        artifact: the file.
        model: the model's name as the artifact has it; may be empty.
        hardware_id: the host.
        budget_ms: what its latency shall be at most.
        verdict: see `verdict_of`.
        latency: as it is now, in the state of the host that counts.
        states: state of the host to latency, the slowest state first.
        disturbed: what else ran on the host; empty if nothing did.
        deciding_s: seconds for which it was measured on, as its interval had crossed the budget.
        sessions: how often it was measured, as the host was disturbed.
        recorded: what the artifact says it took when it was made; None if it says nothing.
        against: whether that was ``within`` the intervals, or it is ``faster`` or ``slower`` beyond
            them now; ``unknown`` where the two cannot be compared.
        since: the two latencies compared; None where they cannot be.
        why_not: why they cannot be compared; empty if they are.
        notes: what else there is to know.
    """

    artifact: str
    model: str
    hardware_id: str
    budget_ms: float
    verdict: Verdict
    latency: WholeLatency
    states: Mapping[str, WholeLatency] = field(default_factory=dict)
    disturbed: str = ""
    deciding_s: float = 0.0
    sessions: int = 1
    recorded: WholeLatency | None = None
    against: Against = "unknown"
    since: LatencyMove | None = None
    why_not: str = ""
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> ExitCode:
        """What a shell sees: an open verdict counts as over the budget, as it does in a search."""
        return ExitCode.DONE if self.verdict == "met" else ExitCode.INFEASIBLE

    @property
    def sentence(self) -> str:
        """The verdict in one sentence."""
        name = self.model or self.artifact
        threads = words.count(self.latency.threads, "thread")
        took = f"{name} takes {_shown(self.latency)} on {threads}"
        budget = words.budget(self.budget_ms)
        if self.verdict == "met":
            return f"{took}, within its budget of {budget}."
        if self.verdict == "missed":
            over = self.latency.median_ms / self.budget_ms
            return f"{took}, over its budget of {budget}: {words.times(over)} of it."
        return f"{took}; {self._why_open()}"

    def _why_open(self) -> str:
        budget = words.budget(self.budget_ms)
        if self.latency.ci_low_ms > self.budget_ms:
            return (
                f"that is over its budget of {budget}, but the host was disturbed: {self.disturbed}. "
                "It stays open whether it meets it, and counts as over it."
            )
        further = f", also after {self.deciding_s:.0f} s of further turns" if self.deciding_s else ""
        return f"the interval crosses its budget of {budget}{further}, and counts as over it."

    def text(self) -> str:
        """Gives the verdict, how it was on the host, and how it was when the artifact was made."""
        lines = [self.sentence]
        others = [
            f"{words.ms(each.median_ms)} with {words.state(state)}"
            for state, each in self.states.items()
            if state != self.latency.state
        ]
        if self.latency.state:
            lines.append(f"that is with the host's {words.state(self.latency.state)}")
        lines += [f"it takes {', '.join(others)}"] if others else []
        if self.disturbed:
            of = f", also in the best of {self.sessions} sessions" if self.sessions > 1 else ""
            lines.append(f"the host was disturbed{of}: {self.disturbed}")
        return "\n".join([*lines, self._against(), *self.notes])

    def _against(self) -> str:
        if self.since is None or self.recorded is None:
            return f"not compared with when it was made: {self.why_not}"
        was = f"it took {_shown(self.recorded)} when it was made"
        if self.against == "within":
            return f"{was}: the intervals meet"
        beyond = words.ms(abs(self.since.beyond_ms))
        return f"{was}: it is {self.against} now, {words.times(self.since.ratio)}, {beyond} beyond"


def _shown(latency: WholeLatency) -> str:
    return words.ms_ci(latency.median_ms, (latency.ci_low_ms, latency.ci_high_ms))


def compared(
    states: Mapping[str, WholeLatency], recorded: WholeLatency | None, why_not_here: str
) -> tuple[Against, LatencyMove | None, str]:
    """Compares an artifact's latency with the one that it was made with.

    Args:
        states: state of the host to latency now.
        recorded: of when it was made; None if that is not known.
        why_not_here: why it cannot be compared with a measurement of this host; empty if it can.

    Returns:
        How it stands, the two compared, and why they cannot be.
    """
    if recorded is None:
        return "unknown", None, "the artifact does not say what it took"
    now = states.get(recorded.state)
    if why_not_here or now is None:
        return "unknown", None, why_not_here or _of_another_state(recorded.state)
    for what in ("threads", "batch_size", "dtype", "engine"):
        before, after = getattr(recorded, what), getattr(now, what)
        if before != after:
            rule = f"it was measured with {what.replace('_', ' ')} {before}, and not {after}"
            return "unknown", None, rule
    move = LatencyMove.of(
        (recorded.median_ms, (recorded.ci_low_ms, recorded.ci_high_ms)),
        (now.median_ms, (now.ci_low_ms, now.ci_high_ms)),
    )
    if not move.is_disjoint:
        return "within", move, ""
    return ("slower" if move.beyond_ms > 0 else "faster"), move, ""


def _of_another_state(state: str) -> str:
    if not state:
        return "it was measured when this host was not yet known to have several states"
    return f"it was measured with {words.state(state)}, and the host was in another state all the while"
