"""The channel-pruned model of as many operations as one with zeros: what it has to be better than."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from autosparse.compare.peer import Unsupported
from autosparse.compare.records import Zeros
from autosparse.compare.task import Task, build, capture
from autosparse.errors import UsageError
from autosparse.patterns import family_of
from autosparse.records import LayerInfo
from autosparse.storage.serial import short_hash

if TYPE_CHECKING:
    from torch import nn

# Libraries' kernels want multiples of eight channels; small models have too few for that.
_MULTIPLES = (8, 4, 2, 1)


@dataclass(frozen=True, slots=True)
class SlimTask(Task):
    """A model with fewer channels in place of one with zeros."""

    def module(self) -> nn.Module:
        """Builds it, in eval mode.

        Raises:
            Unsupported: channels cannot be pruned so far.
        """
        return _slim(self)[0]

    @property
    def flops(self) -> int:
        """Operations of its layers."""
        return _slim(self)[1]

    def onnx(self) -> Path:
        """Gives the module as an ONNX file, exported when it is first asked for."""
        assert self.zeros is not None
        path = self.folder / f"slim-{short_hash(self.zeros.to_json())}.onnx"
        if not path.exists():
            self._export(path)
        return path


def slim_task(task: Task) -> SlimTask:
    """Gives the task of a channel-pruned model in place of one with zeros."""
    return SlimTask(*(getattr(task, field.name) for field in dataclasses.fields(task)))


def kept_flops(zeros: Zeros, layers: tuple[LayerInfo, ...]) -> int:
    """Counts the operations that a model with zeros has left."""
    total = 0.0
    for layer in layers:
        if layer.shape is None:
            continue
        choice = zeros.plan.choice(layer.name)
        share = 1.0
        if not choice.pattern.is_dense:
            family, extents = family_of(choice.pattern), layer.shape.weight_shape
            kept = family.kept(choice.pattern, extents, choice.sparsity)
            share = family.kept_weights(choice.pattern, extents, kept) / layer.shape.weights
        total += share * layer.shape.flops
    return int(total)


@functools.lru_cache(maxsize=4)
def _made(subject: object, shape: tuple[int, ...], key: str, flops: int) -> tuple[nn.Module, int]:
    import torch

    from autosparse.graph.slim import slimmed

    why = ""
    for multiple in _MULTIPLES:
        try:
            return slimmed(build(subject), (torch.zeros(shape),), flops, multiple=multiple)  # type: ignore[arg-type]
        except UsageError as error:
            why = str(error)
    raise Unsupported(why)


def _slim(task: SlimTask) -> tuple[nn.Module, int]:
    import copy

    if task.zeros is None:
        raise Unsupported("a channel-pruned model stands for one with zeros, but none is compared")
    flops = kept_flops(task.zeros, capture(task.subject, task.shape, task.device))
    module, has = _made(task.subject, task.shape, short_hash(task.zeros.to_json()), flops)
    return copy.deepcopy(module), has
