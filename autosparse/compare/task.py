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
from autosparse.patterns import family_of
from autosparse.records import LayerInfo
from autosparse.storage.serial import short_hash

if TYPE_CHECKING:
    from torch import Tensor, nn

    from autosparse.graph import Exported, Graph

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
        device: where it runs, ``cpu`` or as `devices.find` takes it.
    """

    subject: Subject
    shape: tuple[int, ...]
    threads: int
    folder: Path
    zeros: Zeros | None = None
    device: str = "cpu"

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


def exported(subject: Subject, shape: tuple[int, ...]) -> Exported:
    """Gives a subject's module as torch captured it."""
    import torch

    from autosparse.graph import Exported

    return Exported(build(subject), (torch.zeros(shape),))


def fused(subject: Subject, shape: tuple[int, ...]) -> Graph:
    """Gives what a subject computes, as the executor is to run it."""
    from autosparse import graph

    return graph.fuse(exported(subject, shape).graph())


def capture(subject: Subject, shape: tuple[int, ...], device: str = "cpu") -> tuple[LayerInfo, ...]:
    """Gives the weight-bearing layers of a subject, in the order they run, as a device takes them."""
    from autosparse import graph
    from autosparse.graph.sites import find_sites

    if device == "cpu":
        return graph.layers(fused(subject, shape))
    return find_sites(exported(subject, shape)).layers


def apply_zeros(module: nn.Module, zeros: Zeros, seed: int) -> None:
    """Puts zeros into a module's weights, in place.

    Raises:
        PlanError: a layer that the module does not have or that cannot be pruned, or a pattern that no
            family knows.
    """
    from autosparse.plans.pruning import sparsify

    if not zeros.random:
        sparsify(module, zeros.plan)
        return
    import torch

    from autosparse.plans.pruning import sparse_layers

    with torch.no_grad():
        for index, (_, layer, choice) in enumerate(sparse_layers(module, zeros.plan)):
            weight, pattern = layer.weight, choice.pattern
            generator = np.random.default_rng((seed, index))
            extents, family = tuple(weight.shape), family_of(pattern)
            live = family.random(pattern, extents, choice.sparsity, generator)
            weight.masked_fill_(torch.from_numpy(~live), 0.0)
