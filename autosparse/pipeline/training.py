"""Training the promoted configurations beside each other, each in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from autosparse.errors import NoValidConfiguration, Stopped
from autosparse.files import read_jsonl
from autosparse.progress import Progress
from autosparse.searching.pool import AbstractPool, Handle
from autosparse.train.job import METRICS, TrainJob, TrainResult, load_result
from autosparse.train.loop import train

_STOP = "stop-requested"
_POLL_S = 1.0


def run_job(job: TrainJob) -> TrainResult | None:
    """Trains one configuration; None if it was stopped on request. Runs in a worker.

    A stop reaches the worker as a file, so that it works wherever the worker runs on shared storage.
    """
    stop = Path(job.folder) / _STOP
    try:
        return train(job, Progress(should_stop=stop.exists))
    except Stopped:
        return None


def train_all(
    jobs: Mapping[str, TrainJob], pool: AbstractPool, *, cores: int, progress: Progress
) -> dict[str, TrainResult]:
    """Trains configurations on a pool; those already finished are taken as they are.

    Args:
        jobs: plan id to job.
        pool: where they run.
        cores: cores each one gets.
        progress: told of every epoch.

    Returns:
        Plan id to result, without those whose training failed.

    Raises:
        Stopped: a stop was asked for; every job saved its last epoch.
        NoValidConfiguration: all of them failed.
    """
    results = {
        name: found
        for name, job in jobs.items()
        if (found := load_result(Path(job.folder))) is not None
    }
    handles: dict[str, Handle] = {}
    for name, job in jobs.items():
        if name not in results:
            (Path(job.folder) / _STOP).unlink(missing_ok=True)
            handles[name] = pool.submit(run_job, job, cores=cores)
    _follow(jobs, handles, pool, progress)
    reasons = []
    for name, handle in handles.items():
        outcome = handle.outcome
        assert outcome is not None
        if isinstance(outcome.value, TrainResult):
            results[name] = outcome.value
        elif outcome.status != "ok":
            reasons.append(f"{name}: {outcome.reason}")
            progress.log(f"training of {name} failed ({outcome.status}): {outcome.reason}")
    progress.check()
    if jobs and not results:
        raise NoValidConfiguration(f"at least one training must succeed, but none did: {reasons[0]}")
    return results


def _follow(
    jobs: Mapping[str, TrainJob],
    handles: Mapping[str, Handle],
    pool: AbstractPool,
    progress: Progress,
) -> None:
    total = sum(jobs[name].recipe.epochs for name in handles)
    if not handles:
        return
    with progress.step("train configurations", total) as step:
        pending = list(handles.values())
        while pending:
            _, pending = pool.wait(pending, _POLL_S)
            done = sum(_epochs(jobs[name]) for name in handles)
            if done > step.done:
                step.done = done
                step.resize(total)
            if progress.stop_requested():
                for name in handles:
                    (Path(jobs[name].folder) / _STOP).touch()


def _epochs(job: TrainJob) -> int:
    return len(read_jsonl(Path(job.folder) / METRICS))
