"""torch without a compiler, in both memory layouts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autosparse.compare.peer import Peer, Running, Variant
from autosparse.compare.task import Task
from autosparse.measuring.stopwatch import python_runner

if TYPE_CHECKING:
    from torch import Tensor


def calling(module: Callable[[Tensor], Any], x: Tensor) -> Running:
    """Runs a module, compiled or not, without gradients."""
    import torch
    from torch.utils import _pytree as pytree

    def call() -> Any:
        with torch.inference_mode():
            return module(x)

    def outputs() -> list[NDArray[Any]]:
        return [np.array(leaf.float().numpy()) for leaf in pytree.tree_leaves(call())]

    return Running(run=python_runner(call), outputs=outputs)


def contiguous(task: Task) -> Running:
    """The layout in which torch makes tensors."""
    return calling(task.module(), task.tensor())


def channels_last(task: Task) -> Running:
    """The layout that torch's convolutions prefer."""
    import torch

    module = task.module().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = task.tensor()
    return calling(module, x.to(memory_format=torch.channels_last) if x.dim() == 4 else x)


PEER = Peer(
    name="torch",
    needs={"torch": "torch"},
    variants=(
        Variant(name="torch", dtype="f32", open=contiguous),
        Variant(name="torch channels-last", dtype="f32", open=channels_last),
    ),
)
