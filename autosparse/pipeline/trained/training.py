"""Training configurations and the dense model beside each other, each in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from autosparse.errors import AutosparseError, NoValidConfiguration, RunError, Stopped
from autosparse.pipeline.subject.requests import weights_in
from autosparse.pipeline.trained.accuracies import dense_job, trained_dense_values
from autosparse.progress import Progress
from autosparse.searching.pool import AbstractPool, Handle
from autosparse.storage.files import read_jsonl
from autosparse.train.job import METRICS, TrainJob, claim, load_result
from autosparse.train.launch import train
from autosparse.train.tickets.sharing import Shared, group_by_training, settings_for, train_shared

_POLL_S = 0.5


def run_jobs(
    jobs: Mapping[str, TrainJob], reach: float | None, progress: Progress | None = None
) -> Mapping[str, Shared]:
    """Trains one configuration, or several that share a training.

    Runs in a worker, which a stop kills: every epoch is on disk.
    """
    progress = progress or Progress()
    if reach is None:
        return {name: Shared(result=train(job, progress)) for name, job in jobs.items()}
    some = next(iter(jobs.values()))
    return train_shared(jobs, settings_for(some.recipe), reach, progress)


def train_with_dense(
    jobs: Mapping[str, TrainJob],
    run: Path,
    pool: AbstractPool,
    progress: Progress,
    *,
    suffix: str = "",
    share_reach: float | None = None,
    take: Callable[[Mapping[str, TrainJob]], None] | None = None,
) -> tuple[dict[str, Shared], tuple[Mapping[str, Any], ...]]:
    """Trains configurations, and the dense model exactly as they are trained, to compare them with.

    Args:
        jobs: plan id to job, at least one; all of one recipe.
        run: folder of the run that they belong to.
        pool: where they run, its cores shared evenly.
        progress: told of every epoch.
        suffix: of the name of the dense model's folder, where the recipe is none of the presets.
        share_reach: see `Arrangement`.
        take: called with all jobs before any is trained; fills folders with trainings that are there.

    Returns:
        Plan id to what was reached, without those whose training failed; and the dense model as
        pareto.json holds it, nothing where that failed.

    Raises:
        Stopped: a stop was asked for; every job saved its last epoch.
        NoValidConfiguration: all configurations failed.
    """
    name, dense = dense_job(jobs, (run / "train").absolute(), suffix)
    if take is not None:
        take({**jobs, name: dense})
    results = train_all({**jobs, name: dense}, pool, progress=progress, share_reach=share_reach)
    found = {plan_id: results[plan_id] for plan_id in jobs if plan_id in results}
    if not found:
        raise NoValidConfiguration(
            "at least one configuration must be trained, but of all only the dense model was; its "
            f"folder and theirs: {run / 'train'}"
        )
    if name not in results:
        return found, ()
    reached = results[name].result
    return found, (trained_dense_values(reached, weights_in(run, reached)),)


def train_all(
    jobs: Mapping[str, TrainJob],
    pool: AbstractPool,
    *,
    progress: Progress,
    share_reach: float | None = None,
) -> dict[str, Shared]:
    """Trains configurations on a pool; those already finished are taken as they are.

    Jobs of several workers are trained one after the other, from this process, as their workers are
    processes of the same Ray.

    Args:
        jobs: plan id to job.
        pool: where they run, its cores shared evenly.
        progress: told of every epoch.
        share_reach: see `Arrangement`.

    Returns:
        Plan id to what was reached, without those whose training failed.

    Raises:
        Stopped: a stop was asked for; every job has saved its last epoch, and the pool that ends them
            must be closed.
        NoValidConfiguration: all of them failed.
    """
    groups = _groups(jobs, share_reach)
    cores = max(1, pool.cores // max(1, len(groups)))
    # Of a group whose trainings are finished, the tickets' votes are still to be counted.
    alone = {name: load_result(Path(jobs[name].folder)) for name, *others in groups if not others}
    results = {name: Shared(result=found) for name, found in alone.items() if found is not None}
    todo = [group for group in groups if group[0] not in results]
    reasons = []
    for group, outcome in _outcomes(todo, jobs, pool, progress, cores, share_reach):
        if isinstance(outcome, str):
            reasons.append(f"{', '.join(group)}: {outcome}")
            progress.log(f"training of {reasons[-1]}")
        else:
            results |= outcome
    if jobs and not results:
        raise NoValidConfiguration(f"at least one training must succeed, but none did: {reasons[0]}")
    return results


def _groups(jobs: Mapping[str, TrainJob], share_reach: float | None) -> list[list[str]]:
    """Gives the names of jobs that go together, those first that are trained first."""
    if share_reach is None:
        return [[name] for name in jobs]
    names = {job.plan.id: name for name, job in jobs.items()}
    groups = group_by_training([job.plan for job in jobs.values()], share_reach)
    return [[names[plan.id] for plan in group] for group in groups]


def _outcomes(
    groups: Sequence[Sequence[str]],
    jobs: Mapping[str, TrainJob],
    pool: AbstractPool,
    progress: Progress,
    cores: int,
    reach: float | None,
) -> Iterator[tuple[Sequence[str], Mapping[str, Shared] | str]]:
    """Gives what every group reached, or why it failed."""
    apart = [{name: jobs[name] for name in group} for group in groups]
    if any(job.workers > 1 for job in jobs.values()):
        yield from zip(groups, (_here(group, reach, progress) for group in apart), strict=True)
        return
    for together in apart:
        for job in together.values():
            with suppress(RunError):  # the training tells
                claim(job)  # on another machine, files have other names
    handles = [pool.submit(run_jobs, group, reach, cores=cores) for group in apart]
    _follow([jobs[group[0]] for group in groups], handles, pool, progress)
    for group, handle in zip(groups, handles, strict=True):
        outcome = handle.outcome
        assert outcome is not None
        is_good = outcome.status == "ok"
        yield group, outcome.value if is_good else f"failed ({outcome.status}): {outcome.reason}"


def _here(
    jobs: Mapping[str, TrainJob], reach: float | None, progress: Progress
) -> Mapping[str, Shared] | str:
    try:
        return run_jobs(jobs, reach, progress)
    except Stopped:
        raise
    except AutosparseError as error:
        return f"failed (error): {type(error).__name__}: {error}"


def _follow(
    jobs: Sequence[TrainJob], handles: Sequence[Handle], pool: AbstractPool, progress: Progress
) -> None:
    """Waits for trainings, whose epochs tell how far they are."""
    total = sum(job.recipe.epochs for job in jobs)
    if not handles:
        return
    with progress.step("train configurations", total) as step:
        pending = list(handles)
        while pending:
            _, pending = pool.wait(pending, _POLL_S)
            done = sum(map(_epochs, jobs))
            if done > step.done:
                step.done = done
                step.resize(total)
            progress.check()


def _epochs(job: TrainJob) -> int:
    return sum(row.get("status") == "ok" for row in read_jsonl(Path(job.folder) / METRICS))
