"""An artifact timed as it is deployed: loaded in a process of its own, without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autosparse.deploy.loaded import LoadedModel, load
from autosparse.measuring.deciding import decide
from autosparse.measuring.stopwatch import WHOLE, MeasurementPolicy
from autosparse.progress import Progress
from autosparse.records import WholeLatency
from autosparse.sessions.in_turn import UNEVENTFUL, Circumstances, Entrant, InTurn, run_in_turn
from autosparse.storage.serial import Record

RUNNER = "autosparse.sessions.artifact:run"

# As in a search: what the session leaves open, as the interval crosses the budget, is measured on.
_DECIDING_US = 10e6
_ITSELF, _AGAIN = "artifact", "artifact again"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactRequest(Record):
    """What to time.

    Attributes:
        artifact: the file.
        threads: worker threads.
        budget_us: what an interval is measured on for that crosses it; None for nothing.
        judged: the state of the host that counts where it was in several: the ``worst`` or the
            ``best``.
        policy: how it is measured.
    """

    artifact: str
    threads: int
    budget_us: float | None = None
    judged: str = "worst"
    policy: MeasurementPolicy = WHOLE


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactTimes(Record):
    """What it took.

    Attributes:
        latency: in the state of the host that counts.
        states: state to latency, the slowest state first.
        deciding_s: seconds of further turns, as the interval had crossed the budget.
        circumstances: how it was on the host.
    """

    latency: WholeLatency
    states: Mapping[str, WholeLatency] = field(default_factory=dict)
    deciding_s: float = 0.0
    circumstances: Circumstances = UNEVENTFUL


def run(values: dict[str, Any], progress: Progress) -> dict[str, Any]:
    """Times an artifact given and told as plain values: what the child process is called with."""
    return time_artifact(ArtifactRequest.from_json(values), progress).to_json()


def time_artifact(request: ArtifactRequest, progress: Progress) -> ArtifactTimes:
    """Loads an artifact and times it in this process.

    Raises:
        AutosparseError: it cannot be loaded, or the host changed its state in every turn.
        Stopped: a stop was requested.
    """
    with load(Path(request.artifact), request.threads) as model:
        found = run_in_turn(
            [_entrant(model)],
            request.policy,
            threads=model.threads,
            batch_size=model.batch_size,
            judged=request.judged,
            progress=progress,
        )
        deciding_s = _decide(request, model, found, progress)
    states = found.latencies(_ITSELF)
    return ArtifactTimes(
        latency=states[found.state],
        states=states,
        deciding_s=deciding_s,
        circumstances=found.circumstances,
    )


def _entrant(model: LoadedModel) -> Entrant:
    return Entrant(
        name=_ITSELF, run=model.run_times, engine=model.engine, dtype=model.dtype, spins=False
    )


def _decide(request: ArtifactRequest, model: LoadedModel, found: InTurn, progress: Progress) -> float:
    """Measures on if the interval crosses the budget; gives the seconds that it took."""
    if request.budget_us is None:
        return 0.0
    timings = found.timings[found.state]
    # There is nobody else here, so the artifact itself tells whether the host is disturbed: turns
    # count while it runs as fast as it did before.
    both = {_AGAIN: timings[_ITSELF], _ITSELF: timings[_ITSELF]}
    decision = decide(
        dict.fromkeys(both, model.run_times),
        both,
        request.budget_us,
        request.policy,
        progress,
        canary=_AGAIN,
        cap_us=_DECIDING_US,
        state=found.state,
        prober=found.prober,
    )
    timings.update(decision.timings)
    return decision.seconds
