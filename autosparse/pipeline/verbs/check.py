"""`autosparse check`: whether a deployed artifact meets its latency budget on this machine."""

from __future__ import annotations

import time
from pathlib import Path

from autosparse import hardware
from autosparse.deploy.loaded import load
from autosparse.deploy.manifest import Manifest
from autosparse.errors import ConfigError
from autosparse.measuring.stopwatch import WHOLE
from autosparse.pipeline.results.checked import CheckOutcome, compared, verdict_of
from autosparse.progress import Progress
from autosparse.sessions.apart import call_apart
from autosparse.sessions.artifact import RUNNER, ArtifactRequest, ArtifactTimes

# A session on a disturbed host is tried again, unless others use it nearly all the time.
_TRIES = 3
_PAUSE_S = 5.0
_LEFT_ALONE = 0.25
_HUNG_S = 1800.0


def check(
    artifact: Path,
    budget_us: float,
    *,
    threads: int | None = None,
    judged: str = "worst",
    progress: Progress | None = None,
) -> CheckOutcome:
    """Times an artifact as it is deployed, and compares it with its budget and with what it was.

    It is loaded and run in a process of its own while nobody else measures on this host. Whatever a
    disturbance leaves open is measured again, a few times.

    Args:
        artifact: a file that `autosparse export` wrote.
        budget_us: what it may take, microseconds.
        threads: worker threads; None is as many as it was measured with where this host has them, else
            every usable core.
        judged: the state of the host that counts where it has several, ``worst`` or ``best``.
        progress: told what goes on, and asked whether to stop.

    Raises:
        ArtifactError: the file is missing, no artifact, damaged, or too new.
        NoKernel: no kernel runs one of its layers here.
        UsageError: more threads than this machine has, or no budget.
        Stopped: a stop was requested.
    """
    if not budget_us > 0:
        raise ConfigError(f"a latency budget must be longer than no time, but got {budget_us:g} us")
    artifact = artifact.absolute()
    progress = (progress or Progress()).of(f"check {artifact.name}")
    with load(artifact, threads) as model:  # refused before anything waits for the host
        manifest = model.manifest
        notes = tuple(
            f"{layer.name} runs on {layer.kernel}: {layer.why}"
            for layer, made in zip(model.layers, manifest.layers, strict=True)
            if layer.kernel != made.kernel
        )
    request = ArtifactRequest(
        artifact=str(artifact),
        threads=_threads(threads, manifest),
        budget_us=budget_us,
        judged=judged,
    )
    found, sessions = _undisturbed(request, budget_us / 1e3, progress)
    against, since, why_not = compared(found.states, manifest.latency, _why_not_here(manifest))
    disturbed = found.circumstances.why_disturbed
    return CheckOutcome(
        artifact=str(artifact),
        model=manifest.model,
        hardware_id=hardware.hardware_id(),
        budget_ms=budget_us / 1e3,
        verdict=verdict_of(found.latency, budget_us / 1e3, disturbed),
        latency=found.latency,
        states=found.states,
        disturbed=disturbed,
        deciding_s=found.deciding_s,
        sessions=sessions,
        recorded=manifest.latency,
        against=against,
        since=since,
        why_not=why_not,
        notes=notes,
    )


def _threads(wanted: int | None, manifest: Manifest) -> int:
    if wanted is not None:
        return hardware.checked_threads(wanted)
    made = manifest.latency
    most = hardware.usable_cores()
    return made.threads if made is not None and made.threads <= most else most


def _why_not_here(manifest: Manifest) -> str:
    made = manifest.latency_hardware_id
    here = hardware.hardware_id()
    return "" if hardware.is_here(made) else f"it was measured on another host, {made}, and not {here}"


def _undisturbed(
    request: ArtifactRequest, budget_ms: float, progress: Progress
) -> tuple[ArtifactTimes, int]:
    """Times it until nothing disturbs or the budget is met even so; gives the fastest of the tries."""
    tries: list[ArtifactTimes] = []
    while True:
        tries.append(_timed(request, progress))
        disturbed = tries[-1].circumstances.why_disturbed
        if not disturbed or verdict_of(tries[-1].latency, budget_ms) == "met":
            return tries[-1], len(tries)
        progress.log(f"the host is disturbed: {disturbed}")
        hopeless = tries[-1].circumstances.undisturbed_share < _LEFT_ALONE
        if hopeless or len(tries) == _TRIES:
            return min(tries, key=lambda each: each.latency.median_ms), len(tries)
        progress.check()
        time.sleep(_PAUSE_S)


def _timed(request: ArtifactRequest, progress: Progress) -> ArtifactTimes:
    limit_s = _HUNG_S + WHOLE.time_cap_us / 1e6
    step = "start a measuring session"
    return ArtifactTimes.from_json(
        call_apart(RUNNER, request.to_json(), step=step, limit_s=limit_s, progress=progress)
    )
