"""What the end of a job means: what is kept of its result, and what somebody ought to hear of. Pure.

Kinds of alerts:

    front.moved   the front of a scheduled search moved beyond its intervals
    watch.missed  a deployed artifact no longer meets its budget, or never did
    watch.met     it does again
    job.failed    a scheduled job failed, and the one before it had not
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from autosparse import factories
from autosparse.daemon.watches import VERB, Checked, checked_of
from autosparse.jobs.alerts import Alert, Ended, Meaning
from autosparse.jobs.states import State
from autosparse.pipeline.results.checked import CheckOutcome
from autosparse.report.moves import ConfigMove, FrontMove
from autosparse.storage.serial import Record

Result = CheckOutcome | FrontMove | None
"""What a job gave that can mean something; None if there is nothing of the kind."""

MOST_BYTES = 32_000
"""Of an alert's body as JSON: receivers need not take more than 64 KiB in all."""

_MOST_CONFIGS = 20
_LONGEST = 1000


def meaning(ended: Ended, result: Result) -> Meaning:
    """Gives what the end of a job means.

    Args:
        ended: the job, and the one of its schedule before it.
        result: what it gave.
    """
    outcome = outcome_of(ended, result)
    return Meaning(
        outcome=None if outcome is None else _storable(outcome.to_json()),
        alert=alert_of(ended, result, outcome),
    )


# -------------------------------------------------------------------------------------------- outcomes


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Moved(Record):
    """What is kept of a search that followed an earlier run, as the outcome of its job.

    Attributes:
        older: name of the earlier run.
        moved: whether the front moved beyond its intervals.
        budget: what became of the verdict; see `FrontMove`.
        sentence: all of it in one sentence.
    """

    older: str
    moved: bool
    budget: str
    sentence: str


def outcome_of(ended: Ended, result: Result) -> Checked | Moved | None:
    """Gives what of a job's result is kept with the job; None for nothing."""
    if isinstance(result, FrontMove):
        return Moved(
            older=result.older, moved=result.moved, budget=result.budget, sentence=result.sentence
        )
    if ended.job.request.verb != VERB or ended.job.state in (State.STOPPED, State.CANCELLED):
        return None
    before = None if ended.before is None else checked_of(ended.before)
    return _checked(ended, result, before or Checked())


def _checked(ended: Ended, result: CheckOutcome | None, before: Checked) -> Checked:
    """Gives what a check found; of one that failed what was known before, with no verdict."""
    verdict: Literal["met", "missed", "open", "unknown"]
    verdict = "unknown" if result is None else result.verdict
    is_same = before.since_s > 0 and before.verdict == verdict
    since_s = before.since_s if is_same else ended.at_s
    if result is None:
        return dataclasses.replace(before, verdict=verdict, since_s=since_s)
    return Checked(
        verdict=verdict,
        since_s=since_s,
        decided=before.decided if result.verdict == "open" else result.verdict,
        budget_ms=result.budget_ms,
        model=result.model,
        hardware_id=result.hardware_id,
        measured_at_s=ended.at_s,
        median_ms=result.latency.median_ms,
        interval_ms=(result.latency.ci_low_ms, result.latency.ci_high_ms),
        against=result.against,
        disturbed=result.disturbed,
        sentence=result.sentence,
    )


# ---------------------------------------------------------------------------------------------- alerts


def alert_of(ended: Ended, result: Result, outcome: Checked | Moved | None) -> Alert | None:
    """Gives what somebody ought to hear of; None for nothing, and for jobs that no schedule made.

    Args:
        ended: the job, and the one of its schedule before it.
        result: what it gave.
        outcome: what is kept of that.
    """
    if ended.job.schedule_id is None:
        return None
    if ended.job.state == State.FAILED:
        return _failed(ended)
    if isinstance(result, FrontMove):
        return _moved(ended, result) if result.moved else None
    if isinstance(result, CheckOutcome) and isinstance(outcome, Checked):
        return _checked_alert(ended, result, outcome)
    return None


def _failed(ended: Ended) -> Alert | None:
    if ended.before is not None and ended.before.state == State.FAILED:
        return None
    job = ended.job
    body = {
        "verb": job.request.verb,
        "exit_code": job.exit_code,
        "message": _short(job.message),
        "is_first": ended.before is None,
    }
    title = f"{ended.schedule}: its job {job.id}, a {job.request.verb}, failed"
    return _alert("job.failed", title, ended, body)


def _moved(ended: Ended, move: FrontMove) -> Alert:
    model = factories.shown(move.model)
    budgets = {"lost": ", and no longer meets its budget", "regained": ", and meets its budget again"}
    configs = sorted((each for each in move.configs if each.moved), key=_how_far, reverse=True)
    body = {
        "model": model,
        "older_run": move.older,
        "newer_run": move.newer,
        "sentence": _short(move.sentence),
        "budget_ms": move.budget_ms,
        "budget": move.budget,
        "chosen": list(move.chosen),
        "at_accuracy": None if move.at_accuracy is None else move.at_accuracy.to_json(),
        "moved": len(configs),
        "configs": [each.to_json() for each in configs[:_MOST_CONFIGS]],
        "appeared": len(move.of_fate("appeared")),
        "gone": len(move.of_fate("gone")),
    }
    title = f"{ended.schedule}: the front of {model} moved{budgets.get(move.budget, '')}"
    return _alert("front.moved", title, ended, body)


def _how_far(config: ConfigMove) -> float:
    return 0.0 if config.latency is None else abs(config.latency.beyond_ms)


def _checked_alert(ended: Ended, result: CheckOutcome, outcome: Checked) -> Alert | None:
    before = None if ended.before is None else checked_of(ended.before)
    was = "" if before is None else before.decided
    if result.verdict == "open" or result.verdict == was or (result.verdict, was) == ("met", ""):
        return None
    name = result.model or Path(result.artifact).name
    budget = f"its budget of {result.budget_ms:.6g} ms"
    told = {
        ("missed", "met"): f"no longer meets {budget}",
        ("missed", ""): f"does not meet {budget}",
        ("met", "missed"): f"meets {budget} again",
    }[result.verdict, was]
    latency = result.latency
    body = {
        "artifact": result.artifact,
        "model": result.model,
        "hardware_id": result.hardware_id,
        "budget_ms": result.budget_ms,
        "verdict": result.verdict,
        "before": was or "unknown",
        "median_ms": latency.median_ms,
        "interval_ms": [latency.ci_low_ms, latency.ci_high_ms],
        "threads": latency.threads,
        "against": result.against,
        "since_made": None if result.since is None else result.since.to_json(),
        "disturbed": result.disturbed,
        "sentence": _short(outcome.sentence),
    }
    return _alert(f"watch.{result.verdict}", f"{ended.schedule}: {name} {told}", ended, body)


def _alert(kind: str, title: str, ended: Ended, body: Mapping[str, Any]) -> Alert:
    job = ended.job
    known = {"schedule": ended.schedule, "job_id": job.id, "run": job.run, **body}
    return Alert(kind=kind, title=_storable(_short(title)), body=fitting(_storable(known)))


def fitting(body: Mapping[str, Any]) -> dict[str, Any]:
    """Gives a body without its longest parts, as far as it is too large; they are named instead."""
    kept, left_out = dict(body), list[str]()
    while _size(kept) > MOST_BYTES:
        longest = max(kept, key=lambda key: _size(kept[key]))
        del kept[longest]
        left_out.append(longest)
    return {**kept, "left_out": left_out} if left_out else kept


def _size(value: Any) -> int:
    return len(json.dumps(value))


def _storable(value: Any) -> Any:
    """Gives plain values without what some database or JSON lacks: NaN, NUL, half characters."""
    if isinstance(value, str):
        return value.replace("\0", "").encode(errors="replace").decode()
    if isinstance(value, Mapping):
        return {_storable(key): _storable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_storable(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 5]}[...]"
