"""Contestants take their turns on this host; every state of it has latencies of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from autosparse.devices import AUTO, kind_and_number
from autosparse.devices.device import kind_of
from autosparse.measuring.conditions import QUIET, Conditions
from autosparse.measuring.states import ANY, UNMARKED, HostState, Prober
from autosparse.measuring.stopwatch import MeasurementPolicy, Runner, Timing
from autosparse.measuring.turns import interleave_here
from autosparse.progress import Progress
from autosparse.records import WholeLatency
from autosparse.storage.serial import Record, added


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrant:
    """Somebody who is ready to run.

    Attributes:
        name: unique in the session.
        run: runs so many times, or somewhat more, and gives nanoseconds per run.
        engine: what runs it.
        dtype: arithmetic type.
        spins: whether its threads may go on spinning for a while after a run.
    """

    name: str
    run: Runner
    engine: str
    dtype: str
    spins: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Circumstances(Record):
    """How it was on the host during a session.

    Attributes:
        state: the state that the session's figures are of, unless they name another.
        too_short: state to the rounds in it, of states too short to tell anything.
        discarded: turns that were discarded because the host changed its state meanwhile.
        slowed: turns that were not taken, or discarded, because somebody slowed the processors.
        conditions: what else the host was like.
        undisturbed_share: share of the time, as far back as is known, in which nobody else slowed it.
    """

    state: HostState = ANY
    too_short: Mapping[str, int] = field(default_factory=dict)
    discarded: int = 0
    slowed: int = added(0)
    conditions: Conditions = QUIET
    undisturbed_share: float = added(1.0)

    @property
    def why_disturbed(self) -> str:
        """What else ran on the host; empty if nothing did."""
        return self.conditions.why_disturbed


UNEVENTFUL = Circumstances()
"""One state, and nothing else on the host."""


@dataclass(slots=True)
class InTurn:
    """What a session found.

    Attributes:
        entrants: name to who ran.
        timings: state of the host to name to timing, the slowest state first.
        circumstances: how it was on the host.
        prober: tells the host's state, for what is timed afterwards; None where nothing tells.
        threads: worker threads of everybody.
        batch_size: samples per run.
    """

    entrants: Mapping[str, Entrant]
    timings: dict[str, dict[str, Timing]]
    circumstances: Circumstances
    prober: Prober | None
    threads: int
    batch_size: int

    @property
    def state(self) -> str:
        """The state that figures are of, unless they name another."""
        return self.circumstances.state.label

    def latencies(self, name: str) -> dict[str, WholeLatency]:
        """Gives somebody's latency in every state that was seen, the slowest first."""
        entrant = self.entrants[name]
        return {
            state: timings[name].whole_latency(
                threads=self.threads,
                batch_size=self.batch_size,
                dtype=entrant.dtype,
                engine=entrant.engine,
            )
            for state, timings in self.timings.items()
        }


def run_in_turn(
    entrants: Sequence[Entrant],
    policy: MeasurementPolicy,
    *,
    threads: int,
    batch_size: int,
    judged: str = "longest",
    progress: Progress,
    device: str = "cpu",
) -> InTurn:
    """Lets everybody run in turn, on so many threads each.

    Args:
        entrants: in the order of their turns.
        policy: how long to measure.
        threads: worker threads of everybody.
        batch_size: samples per run.
        judged: the state that figures are of where the host was in several: the ``worst``, in which
            all are slowest, the ``best``, or the one that lasted ``longest``.
        progress: told of every round, and asked whether to stop.
        device: what they run on, ``cpu`` or as `devices.find` takes it.

    Raises:
        AutosparseError: the host changed its state in every turn.
        Stopped: a stop was requested.
    """
    found, prober = interleave_here(
        {each.name: each.run for each in entrants},
        policy,
        progress,
        threads=threads,
        spinning=[each.name for each in entrants if each.spins],
        **_watched(device),
    )
    state = {"worst": found.states[0], "best": found.states[-1], "longest": found.longest}[judged]
    return InTurn(
        entrants={each.name: each for each in entrants},
        timings={state: dict(timings) for state, timings in found.timings.items()},
        circumstances=Circumstances(
            state=HostState(label=state, handover_ns=found.handovers_ns[state]),
            too_short=found.too_short,
            discarded=found.discarded,
            slowed=found.slowed,
            conditions=found.conditions,
            undisturbed_share=1.0 if prober is None else prober.history.undisturbed_share,
        ),
        prober=prober,
        threads=threads,
        batch_size=batch_size,
    )


def _watched(device: str) -> dict[str, Callable[[int], Prober | None]]:
    """Says who tells what a device was like; nothing of processors, which a host knows by itself."""
    kind, _ = kind_and_number(device)
    if kind in (AUTO, "cpu"):
        return {}
    return {"probe": lambda threads: kind_of(kind).watch(threads, UNMARKED)}
