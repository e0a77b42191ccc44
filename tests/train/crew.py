"""Processes of one group, without Ray, for tests of what a team exchanges."""

from __future__ import annotations

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from autosparse.errors import AutosparseError
from autosparse.progress import Progress
from autosparse.train import checkpoint
from autosparse.train.job import TrainJob, TrainResult
from autosparse.train.loop import train_as
from autosparse.train.team import Member

# One process loads torch; members are forked from it.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["autosparse.train.loop"])


def together(size, function, *args):
    """Calls a function of this file in so many processes; gives what it gave in each, by rank."""
    with TemporaryDirectory() as folder, ProcessPoolExecutor(size, _CONTEXT) as pool:
        calls = [pool.submit(_call, r, size, f"{folder}/store", function, args) for r in range(size)]
        return [call.result() for call in calls]


def _call(rank: int, size: int, store: str, function: Any, args: tuple[Any, ...]) -> Any:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=size,
        timeout=timedelta(seconds=60),
    )
    try:
        return function(Member(torch.device("cpu")), *args)
    finally:
        dist.destroy_process_group()


def averaged(team, gradients, losses, shares):
    """Averages what every rank has; None is no gradient."""
    module = nn.Module()
    for name, each in gradients.items():
        own = each[team.rank]
        shape = next(g.shape for g in (*each, np.zeros(1)) if g is not None)
        parameter = nn.Parameter(torch.zeros(shape))
        if len(shape) == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        parameter.grad = None if own is None else torch.from_numpy(own)
        module.register_parameter(name, parameter)
    loss = team.average(module, losses[team.rank], shares[team.rank])
    found = {n: None if p.grad is None else p.grad.numpy() for n, p in module.named_parameters()}
    alike = all(p.grad is None or p.grad.stride() == p.stride() for p in module.parameters())
    return loss, found, alike


def statistics(team, tensors, samples):
    own = [t.clone() for t in tensors[team.rank]]
    team.average_statistics(own, samples[team.rank])
    return [t.numpy() for t in own]


def from_first(team):
    called = []

    def find():
        called.append(team.rank)
        return {"rank": team.rank, "weights": torch.arange(3)}

    found = team.from_first(find)
    return found["rank"], found["weights"].tolist(), called


def compared(team, odd_rank, what):
    torch.manual_seed(0)
    module = nn.Linear(2, 2)
    masks = "masks"
    if team.rank == odd_rank and what == "weights":
        with torch.no_grad():
            module.weight[0, 0] = torch.nextafter(module.weight[0, 0], torch.tensor(9.0))
    if team.rank == odd_rank and what == "masks":
        masks = "others"
    try:
        team.check_equal(module, masks, "after epoch 3")
    except AutosparseError as error:
        return f"{type(error).__name__}: {error}"
    return "equal"


def trained(team, job: TrainJob) -> TrainResult | str:
    try:
        return train_as(team, job, Progress())
    except AutosparseError as error:
        return f"{type(error).__name__}: {error}"


def killed_after(team, job: TrainJob, epoch: int) -> None:
    save = checkpoint.save

    def and_die(folder: Path, at: int, state: Any) -> None:
        save(folder, at, state)
        if at == epoch:
            os._exit(9)

    checkpoint.save = and_die
    train_as(team, job, Progress())


def few():
    """Two images to train with: fewer than processes."""

    class Few:
        classes = ("left", "right")

        def __init__(self, count, seed):
            images = np.random.default_rng(seed).random((count, 3, 8, 8), np.float32)
            self.rows = [(torch.from_numpy(image), i % 2) for i, image in enumerate(images)]

        def __len__(self):
            return len(self.rows)

        def __getitem__(self, row):
            return self.rows[row]

    return Few(2, 0), Few(5, 1), Few(5, 2)
