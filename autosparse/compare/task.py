"""The model that all contestants run, made anew for whoever asks: module, input, zeros, ONNX file.

Everything is decided by the records and a seed, so that any process gets the same model.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from autosparse.compare.records import Subject, Zeros
from autosparse.errors import PlanError
from autosparse.records import LayerInfo, kept_blocks
from autosparse.serial import short_hash

if TYPE_CHECKING:
    from torch import Tensor, nn

_OPSET = 17


@dataclass(frozen=True, slots=True)
class Task:
    """What one contestant has to run.

    Attributes:
        subject: the model.
        shape: of the input, batch included.
        threads: worker threads.
        folder: where files for engines that read files are kept.
        zeros: what its weights shall hold; None leaves them as they are.
    """

    subject: Subject
    shape: tuple[int, ...]
    threads: int
    folder: Path
    zeros: Zeros | None = None

    def module(self) -> nn.Module:
        """Builds the module, in eval mode, with its zeros; the caller may change it."""
        module = build(self.subject)
        if self.zeros is not None:
            apply_zeros(module, self.zeros, self.subject.seed)
        return module

    def x(self) -> NDArray[np.float32]:
        """Gives the input: standard normal, the same for everybody."""
        generator = np.random.default_rng(self.subject.seed)
        return generator.standard_normal(self.shape, dtype=np.float32)

    def tensor(self) -> Tensor:
        """Gives the input as a torch tensor."""
        import torch

        return torch.from_numpy(self.x())

    def onnx(self) -> Path:
        """Gives the module as an ONNX file, exported when it is first asked for."""
        label = short_hash(None if self.zeros is None else self.zeros.to_json())
        path = self.folder / f"model-{label}.onnx"
        if not path.exists():
            self._export(path)
        return path

    def _export(self, path: Path) -> None:
        import warnings

        import torch

        with warnings.catch_warnings():
            # The exporter that needs no further library says at every call that there is another one.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                self.module(), (self.tensor(),), str(path), dynamo=False, opset_version=_OPSET
            )


def build(subject: Subject) -> nn.Module:
    """Builds a subject's module.

    Raises:
        ModelError: the model or its weights cannot be used.
        MissingDependency: the library that the name asks for is not installed.
    """
    return _resolve(subject).module  # type: ignore[no-any-return]


def input_shape(subject: Subject) -> tuple[int, ...]:
    """Gives the shape of a subject's input, batch included."""
    return (subject.batch_size, *(subject.input_shape or _own_shape(subject)))


@functools.cache
def _own_shape(subject: Subject) -> tuple[int, ...]:
    return tuple(_resolve(subject).input_shape)


def _resolve(subject: Subject) -> Any:
    from autosparse import models

    weights = None if subject.weights is None else Path(subject.weights)
    return models.resolve(subject.model, weights=weights, seed=subject.seed)


def capture(subject: Subject, shape: tuple[int, ...]) -> tuple[LayerInfo, ...]:
    """Gives the weight-bearing layers of a subject, in the order they run."""
    import torch

    from autosparse import graph

    return graph.capture_layers(build(subject), (torch.zeros(shape),))


def apply_zeros(module: nn.Module, zeros: Zeros, seed: int) -> None:
    """Puts zeros into a module's weights, in place.

    Raises:
        PlanError: a layer that the module does not have or that cannot be pruned.
    """
    from autosparse.patterns import sparsify

    if not zeros.random:
        sparsify(module, zeros.plan)
        return
    import torch

    from autosparse.patterns.pruning import sparse_layers

    with torch.no_grad():
        for index, (name, layer, choice) in enumerate(sparse_layers(module, zeros.plan)):
            weight, pattern = layer.weight, choice.pattern
            if pattern.unit_in != 1 or pattern.nm is not None:
                raise PlanError(f"random zeros must be 1xN blocks, but {name!r} has {choice.label}")
            outputs, inputs = weight.shape[:2]
            live = random_blocks(outputs, inputs, pattern.group_out, choice.sparsity, (seed, index))
            weight.mul_(torch.from_numpy(live).reshape(*live.shape, *[1] * (weight.dim() - 2)))


def random_blocks(
    outputs: int, inputs: int, block_n: int, sparsity: float, seed: tuple[int, int]
) -> NDArray[np.float32]:
    """Draws uniform 1xN blocks; gives 1 where an output keeps an input and 0 elsewhere, ``[O, I]``."""
    generator = np.random.default_rng(seed)
    kept = kept_blocks(inputs, sparsity)
    live = np.zeros((outputs, inputs), np.float32)
    for first in range(0, outputs, block_n):
        live[first : first + block_n, generator.permutation(inputs)[:kept]] = 1
    return live
