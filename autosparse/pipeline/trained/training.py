"""Training configurations and the dense model beside each other, each in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autosparse.errors import NoValidConfiguration
from autosparse.pipeline.subject.requests import weights_in
from autosparse.pipeline.trained.accuracies import dense_job, trained_dense_values
from autosparse.progress import Progress
from autosparse.searching.pool import AbstractPool, Handle
from autosparse.storage.files import read_jsonl
from autosparse.train.job import METRICS, TrainJob, TrainResult, load_result
from autosparse.train.loop import train

_POLL_S = 0.5


def run_job(job: TrainJob) -> TrainResult:
    """Trains one configuration. Runs in a worker, which a stop kills: every epoch is on disk."""
    return train(job, Progress())


def train_with_dense(
    jobs: Mapping[str, TrainJob],
    run: Path,
    pool: AbstractPool,
    progress: Progress,
    *,
    suffix: str = "",
) -> tuple[dict[str, TrainResult], tuple[Mapping[str, Any], ...]]:
    """Trains configurations, and the dense model exactly as they are trained, to compare them with.

    Args:
        jobs: plan id to job, at least one; all of one recipe.
        run: folder of the run that they belong to.
        pool: where they run, its cores shared evenly.
        progress: told of every epoch.
        suffix: of the name of the dense model's folder, where the recipe is none of the presets.

    Returns:
        Plan id to result, without those whose training failed; and the dense model as pareto.json
        holds it, nothing where that failed.

    Raises:
        Stopped: a stop was asked for; every job saved its last epoch.
        NoValidConfiguration: all configurations failed.
    """
    name, dense = dense_job(jobs, (run / "train").absolute(), suffix)
    everyone = {**jobs, name: dense}
    cores = max(1, pool.cores // len(everyone))
    results = train_all(everyone, pool, cores=cores, progress=progress)
    found = {plan_id: results[plan_id] for plan_id in jobs if plan_id in results}
    if not found:
        raise NoValidConfiguration(
            "at least one configuration must be trained, but of all only the dense model was; its "
            f"folder and theirs: {run / 'train'}"
        )
    if name not in results:
        return found, ()
    return found, (trained_dense_values(results[name], weights_in(run, results[name])),)


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
        Stopped: a stop was asked for; every job has saved its last epoch, and the pool that ends them
            must be closed.
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
            handles[name] = pool.submit(run_job, job, cores=cores)
    _follow(jobs, handles, pool, progress)
    reasons = []
    for name, handle in handles.items():
        outcome = handle.outcome
        assert outcome is not None
        if outcome.status == "ok":
            results[name] = outcome.value
        else:
            reasons.append(f"{name}: {outcome.reason}")
            progress.log(f"training of {name} failed ({outcome.status}): {outcome.reason}")
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
            progress.check()


def _epochs(job: TrainJob) -> int:
    return sum(row.get("status") == "ok" for row in read_jsonl(Path(job.folder) / METRICS))
