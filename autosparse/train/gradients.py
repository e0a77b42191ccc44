"""Gradients of one batch under the masks as they are, whoever steps by them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from autosparse.train.objective import Mixed
from autosparse.train.run import Run


def add_gradients(run: Run, batch: Mixed) -> float:
    """Adds the gradients of a batch to those there are, part by part, and gives its mean loss."""
    recipe, loss = run.job.recipe, 0.0
    if not len(batch.labels):
        return loss
    mixed_precision = torch.autocast(run.device.type, torch.bfloat16, enabled=recipe.autocast == "bf16")
    with run.layers.masked():
        for part in _parts(batch, recipe.accumulate):
            share = len(part.labels) / len(batch.labels)
            with mixed_precision:
                found = run.objective(run.module, part) * share
            found.backward()  # type: ignore[no-untyped-call]
            loss += float(found.detach())
    return loss


def _parts(batch: Mixed, count: int) -> Iterator[Mixed]:
    if count == 1:
        yield batch
        return
    for at in torch.arange(len(batch.labels)).chunk(count):
        others = None if batch.others is None else batch.others[at]
        yield Mixed(batch.images[at], batch.labels[at], others, batch.share)


@contextmanager
def looking(module: nn.Module) -> Iterator[None]:
    """Takes gradients in training mode to look at them: none is left, and no statistic has moved."""
    buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
    module.train()
    module.zero_grad(set_to_none=True)
    try:
        yield
    finally:
        module.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in module.named_buffers():
                buffer.copy_(buffers[name])
