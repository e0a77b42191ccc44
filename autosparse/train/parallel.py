"""One model trained by several processes, which Ray Train starts, watches and, if need be, starts anew.

They run on the Ray that this process is connected to, or else on one of its own that ends with the
training. What trains is `loop.train_as` in every one of them. The first sits on this machine, where the
job's folder is; files of the model, its weights and the data must lie on the others too, under the
same paths. What the first tells, and why any of them gives up, comes back through a board that this
process reads; a stop ends everything at once, as every finished epoch is on disk.

A process that dies ends the others. All are started anew, twice at most, and go on after the last
checkpoint, so that the result is to the bit what it would have been.
"""

from __future__ import annotations

import functools
import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autosparse.local_ray import LocalRay, ready  # sets what Ray reads first

# isort: split
import ray
import ray._private.worker as ray_worker
import ray.train
import torch
from ray.exceptions import RayError
from ray.train.torch import TorchConfig, TorchTrainer, get_device
from ray.train.v2.api.config import ScalingConfig
from ray.util.placement_group import (
    PlacementGroup,
    get_current_placement_group,
    remove_placement_group,
)
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from autosparse.errors import AutosparseError, MissingDependency, UsageError, retold
from autosparse.hardware.cores import usable_cores
from autosparse.node_labels import NODE_LABEL, training_nodes, training_selector
from autosparse.progress import Progress, ProgressEvent
from autosparse.train.job import TrainJob, TrainResult, claim, load_result
from autosparse.train.loop import train_as
from autosparse.train.team import Member

_RESTARTS = 2
_HEAR_S = 0.2  # a request to stop waits so long at most
_BAR_S = 0.2  # between two words on an epoch under way
_LEAVE_S = 10.0  # to end in order, before what is left is killed
# Of an exchange: the first process evaluates, or waits for the folder, while the others wait for it.
_PATIENCE_S = 24 * 3600
_RAY_TRAIN = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # relative paths stay what they are
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # a node that leaves is a process that died
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
}


def train_in_team(job: TrainJob, progress: Progress) -> TrainResult:
    """Trains a job with several workers; see `autosparse.train.launch.train`.

    On GPUs they exchange through NCCL, else through Gloo. Each takes as many cores of the Ray as it
    has threads: by default, those of this machine are shared out evenly.

    Raises:
        AutosparseError: the processes died more than twice, or failed in a way that is none of ours.
        MissingDependency: Ray cannot start, or has too few cores or GPUs.
        UsageError: as `train`; also if the device is one GPU.
        TrainingDiverged: as `train`.
        Stopped: a stop was requested; the same call resumes.
    """
    if job.device not in ("cpu", "cuda"):
        raise UsageError(
            "several workers must train on cpu or cuda, where each gets a GPU, but got "
            f"{job.device!r} for {job.workers} of them; write cuda, or train with one worker"
        )
    job = replace(job, folder=str(Path(job.folder).absolute()))
    found = load_result(claim(job))
    if found is not None:
        return found
    with ExitStack() as stack:
        if not ray.is_initialized():
            gpus = torch.cuda.device_count() if job.device == "cuda" else 0
            stack.enter_context(LocalRay(cores=job.workers * _cores(job), gpus=gpus))
        _check_room(job)
        return _trained(job, progress)


def _cores(job: TrainJob) -> int:
    """Gives the cores that each process takes."""
    return job.threads or max(1, usable_cores() // job.workers)


def _resources(job: TrainJob) -> dict[str, float]:
    """Gives what each process takes of a Ray."""
    return {"CPU": _cores(job), **({"GPU": 1} if job.device == "cuda" else {})}


def _check_room(job: TrainJob) -> None:
    """Refuses a Ray in which the processes would wait for ever."""
    there = ray.cluster_resources()  # type: ignore[no-untyped-call]
    for name, each in _resources(job).items():
        if there.get(name, 0) < each * job.workers:
            raise MissingDependency(
                f"{job.workers} workers must find {each} {name} each, but Ray has "
                f"{there.get(name, 0):g} in all; take fewer workers or threads, or a larger cluster"
            )


# ------------------------------------------------------------------------------------- this process


@dataclass(frozen=True, slots=True)
class _Failure:
    """Why a process gave up: its error as Python writes it, ``DataError: the text``."""

    words: str


# A placement group is what the processes take of the Ray, told so that it can be given back.
_News = ProgressEvent | TrainResult | _Failure | PlacementGroup


@ray.remote(num_cpus=0, max_restarts=0)
class _Board:
    """What the processes tell, until this one reads it."""

    def __init__(self) -> None:
        self._told: list[_News] = []

    def tell(self, news: _News) -> None:
        """Puts something up."""
        self._told.append(news)

    def hear(self) -> list[_News]:
        """Gives what was put up since the last time, in order."""
        told, self._told = self._told, []
        return told


def _trained(job: TrainJob, progress: Progress) -> TrainResult:
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    board = _Board.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]
    trainer = _Trainer.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]
    taken: list[PlacementGroup] = []
    try:
        return _followed(trainer.fit.remote(job, board, sys.path), board, progress, taken)
    finally:
        # What a process owns dies with it on a Ray: the rest of Ray Train, and all that train. What was
        # reserved for them stays, as only a Ray with a dashboard has Ray Train's own cleaner at work.
        ray.kill(trainer)
        ray.kill(board)
        for group in taken:
            remove_placement_group(group)


def _followed(fit: Any, board: Any, progress: Progress, taken: list[PlacementGroup]) -> TrainResult:
    """Passes on what is told until the training ends, and notes what is taken of the Ray."""
    result: TrainResult | None = None
    is_over = False
    while not is_over:
        is_over = bool(ready([fit], 1, _HEAR_S))
        for news in _got(board.hear.remote()):
            if isinstance(news, _Failure):
                raise retold(news.words, "several processes must be able to train together")
            if isinstance(news, TrainResult):
                result = news
                ready([fit], 1, _LEAVE_S)
                is_over = True
            elif isinstance(news, PlacementGroup):
                taken.append(news)
            else:
                progress.relay(news)
        progress.check()
    if result is None:
        raise AutosparseError(
            "several processes must be able to train together, but Ray Train gave up, after at most "
            f"{_RESTARTS} restarts: {_got(fit)}; the same call goes on after the last epoch"
        )
    return result


def _got(reference: Any) -> Any:
    ready([reference], 1, None)
    try:
        return ray.get(reference)
    except RayError as error:
        words = str(error).splitlines()[0]
        raise AutosparseError(
            f"Ray must run on while several processes train, but a part of it is gone: {words}; the "
            "same call goes on after the last epoch"
        ) from None


# ----------------------------------------------------------------------------------- other processes


@ray.remote(num_cpus=0, max_restarts=0)
class _Trainer:
    """Ray Train, in a process of its own, as it can be killed but not interrupted."""

    def fit(self, job: TrainJob, board: Any, search_path: list[str]) -> str:
        """Trains; gives what failed in the end, if anything."""
        os.environ.update(_RAY_TRAIN)
        try:
            _torch_trainer(job, functools.partial(_train_member, job, board, search_path)).fit()
        except ray.train.WorkerGroupError as error:
            return "; ".join(f"rank {rank}: {_said(e)}" for rank, e in error.worker_failures.items())
        except ray.train.ControllerError as error:
            return f"its controller: {_said(error.controller_failure)}"
        return "no result"


def _torch_trainer(job: TrainJob, member: Callable[[], None]) -> TorchTrainer:
    node = ray_worker._global_node
    assert node is not None  # this process is on a Ray
    # The first process has the node of the first bundle.
    first = {NODE_LABEL: ray.get_runtime_context().get_node_id()}
    nodes = ray.nodes()
    others = training_selector(nodes) if training_nodes(nodes) else {}
    return TorchTrainer(
        member,
        torch_config=TorchConfig(
            backend="nccl" if job.device == "cuda" else "gloo", timeout_s=_PATIENCE_S
        ),
        scaling_config=ScalingConfig(
            num_workers=job.workers,
            use_gpu=job.device == "cuda",
            resources_per_worker=_resources(job),
            label_selector=[first, *(others for _ in range(job.workers - 1))],
        ),
        run_config=ray.train.RunConfig(
            storage_path=node.get_session_dir_path(),  # checkpoints are ours
            failure_config=ray.train.FailureConfig(max_failures=_RESTARTS),
        ),
    )


def _said(error: Exception) -> str:
    """Gives the line of an error that says most: a traceback's is its last one."""
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[-1 if 'Traceback' in str(error) else 0]}"


def _train_member(job: TrainJob, board: Any, search_path: list[str]) -> None:
    """Trains as one of the team; Ray Train has joined its process group."""
    sys.path += [folder for folder in search_path if folder not in sys.path]
    device = get_device()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    team = Member(device)
    if team.is_first:
        board.tell.remote(get_current_placement_group())
    progress = Progress(_Teller(board)) if team.is_first else Progress()
    try:
        result = train_as(team, replace(job, device=str(device)), progress)
    except AutosparseError as error:
        ray.get(board.tell.remote(_Failure(f"{type(error).__name__}: {error}")))
        time.sleep(_LEAVE_S)  # whoever reads it ends all; raised at once, it would be tried again
        raise
    if team.is_first:
        ray.get(board.tell.remote(result))


class _Teller:
    """A sink that puts events up, of an epoch under way only some."""

    def __init__(self, board: Any) -> None:
        self._board = board
        self._told_s = 0.0

    def __call__(self, event: ProgressEvent) -> None:
        """Puts an event up."""
        if event.kind == "advance" and not event.message and time.monotonic() - self._told_s < _BAR_S:
            return
        self._told_s = time.monotonic()
        self._board.tell.remote(event)
