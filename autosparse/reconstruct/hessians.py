"""Second moments of layers' inputs, collected while a model runs on calibration images.

For one layer with columns x (`inputs.columns_of`), over all sampled positions:

    own    H = mean of x x^T, the Hessian of the layer's squared output error, up to a factor of 2
    cross  G = mean of d x^T, with d the columns that the dense model shows at the same place

Products of a chunk of rows are taken in float32, as the inputs are; their sum is kept in float64, so
that many images do not drown the last ones.

Batch-norm layers work with the statistics of the batch meanwhile, as they will, recalibrated, once
all is pruned; what they had tracked stays as it was.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from autosparse.errors import DataError, PlanError
from autosparse.measuring.lock import making_way
from autosparse.reconstruct.inputs import Layer, columns_of, draw_positions, output_positions, width

Check = Callable[[], None]
Told = Callable[[str, Tensor], None]
_SEED_STRIDE = 1_000_003  # a prime: keeps the seeds of (batch, call) pairs apart


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Second moments of one layer's inputs.

    Attributes:
        own: float64 ``[columns, columns]``, the mean of x x^T.
        cross: float64 ``[columns, columns]``, the mean of d x^T; None where no dense model ran beside.
        rows: how many x are behind both.
    """

    own: Tensor
    cross: Tensor | None
    rows: int


class _Sum:
    """Moments that grow."""

    def __init__(self, layer: Layer, *, crossed: bool) -> None:
        columns = width(layer)
        self.own = torch.zeros(columns, columns, dtype=torch.float64)
        self.cross = torch.zeros_like(self.own) if crossed else None
        self.rows = 0

    def add(self, columns: Tensor, dense: Tensor | None) -> None:
        columns = columns.float()
        self.own += (columns.T @ columns).to(self.own)
        if self.cross is not None and dense is not None:
            self.cross += (dense.float().T @ columns).to(self.cross)
        self.rows += len(columns)

    def finish(self, name: str) -> Moments:
        sums = [total for total in (self.own, self.cross) if total is not None]
        if not all(bool(torch.isfinite(total).all()) for total in sums):
            raise DataError(
                f"inputs of a layer must be finite on calibration images, but those of {name!r} hold "
                "NaN or infinity; check the images and the weights before it"
            )
        for total in sums:
            total /= self.rows
        return Moments(self.own, self.cross, self.rows)


class _Enough(Exception):
    """Ends a forward pass behind which nothing is wanted."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """Images to look at, and how.

    Attributes:
        batches: images NCHW.
        positions: output positions per image and layer, at most; 0 takes all.
        seed: decides which.
        check: called between batches; what it raises ends the work.
    """

    batches: tuple[Tensor, ...]
    positions: int
    seed: int
    check: Check

    def calls(self, module: nn.Module, layers: Mapping[str, Layer]) -> dict[str, int]:
        """Gives how often a forward pass runs each layer, in the order in which they first run.

        Raises:
            PlanError: one of them does not run.
        """
        counts: dict[str, int] = {}

        def seen(name: str, inputs: Tensor) -> None:
            counts[name] = counts.get(name, 0) + 1

        with batch_statistics(module), _listening(layers, seen):
            self._forward(module, self.batches[0])
        if missing := next((name for name in layers if name not in counts), None):
            raise PlanError(
                f"a layer of a plan must run on the calibration images, but {missing!r} does not; "
                "leave it dense"
            )
        return counts

    def collect(self, module: nn.Module, layers: Mapping[str, Layer]) -> dict[str, Moments]:
        """Gives the own moments of several layers, as they run, in one pass over the images.

        Raises:
            DataError: inputs of a layer are not finite.
            Stopped: a stop was requested.
        """
        sums = {name: _Sum(layer, crossed=False) for name, layer in layers.items()}
        calls = self.calls(module, layers)
        for batch, images in enumerate(self.batches):
            met: dict[str, int] = {}

            def add(name: str, inputs: Tensor, batch: int = batch, met: dict[str, int] = met) -> None:
                self._add(sums[name], layers[name], inputs, None, (batch, met.get(name, 0)))
                met[name] = met.get(name, 0) + 1

            self._run(module, layers, sum(calls[name] for name in layers), images, add)
        return {name: sums[name].finish(name) for name in calls}

    def collect_one(
        self, module: nn.Module, name: str, calls: int, dense: nn.Module | None = None
    ) -> Moments:
        """Gives the moments of one layer, with the dense model's beside if there is one.

        Args:
            module: as pruned so far.
            name: of the layer.
            calls: how often a forward pass runs it; none goes further than the last.
            dense: the module before anything was pruned.

        Raises:
            DataError: inputs of the layer are not finite.
            Stopped: a stop was requested.
        """
        layer = _layer(module, name)
        total = _Sum(layer, crossed=dense is not None)
        for batch, images in enumerate(self.batches):
            beside = [] if dense is None else self._inputs(dense, name, calls, images)
            for call, own in enumerate(self._inputs(module, name, calls, images)):
                self._add(total, layer, own, beside[call] if beside else None, (batch, call))
        return total.finish(name)

    def _inputs(self, module: nn.Module, name: str, calls: int, images: Tensor) -> list[Tensor]:
        found: list[Tensor] = []
        self._run(
            module, {name: _layer(module, name)}, calls, images, lambda _, inputs: found.append(inputs)
        )
        return found

    def _run(
        self, module: nn.Module, layers: Mapping[str, Layer], calls: int, images: Tensor, told: Told
    ) -> None:
        """Tells of the inputs of some layers, and goes no further than the last of so many calls."""
        left = calls

        def tell(name: str, inputs: Tensor) -> None:
            nonlocal left
            left -= 1
            told(name, inputs.detach())
            if not left:
                raise _Enough

        with batch_statistics(module), _listening(layers, tell):
            self._forward(module, images)

    def _forward(self, module: nn.Module, images: Tensor) -> None:
        with torch.no_grad(), making_way(self.check):
            try:
                module(images)
            except _Enough:
                return

    def _add(
        self, total: _Sum, layer: Layer, own: Tensor, other: Tensor | None, place: tuple[int, int]
    ) -> None:
        seed = (self.seed * _SEED_STRIDE + place[0]) * _SEED_STRIDE + place[1]
        generator = torch.Generator().manual_seed(seed % 2**63)
        drawn = draw_positions(output_positions(layer, own), self.positions, generator)
        dense = None if other is None else columns_of(layer, other, drawn)
        for columns in columns_of(layer, own, drawn):
            self.check()
            total.add(columns, None if dense is None else next(dense))


def _layer(module: nn.Module, name: str) -> Layer:
    layer = module.get_submodule(name)
    assert isinstance(layer, Layer)
    return layer


@contextmanager
def _listening(layers: Mapping[str, Layer], told: Told) -> Iterator[None]:
    """Tells of every input of some layers while the block runs."""
    handles = [
        layer.register_forward_pre_hook(
            lambda module, args, kwargs, name=name: told(name, args[0] if args else kwargs["input"]),
            with_kwargs=True,
        )
        for name, layer in layers.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def batch_statistics(module: nn.Module) -> Iterator[None]:
    """Runs a module in eval mode, its batch-norm layers on the statistics of each batch.

    Modes, tracked statistics and counts are afterwards what they were.
    """
    training = {part: part.training for part in module.modules()}
    norms = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    tracked = [copy.deepcopy(dict(norm.named_buffers(recurse=False))) for norm in norms]
    module.eval()
    for norm in norms:
        norm.train()
    try:
        yield
    finally:
        for norm, before in zip(norms, tracked, strict=True):
            for name, value in before.items():
                getattr(norm, name).copy_(value)
        for part, was in training.items():
            part.training = was


def calibration_batches(
    module: nn.Module, batches: Iterable[Tensor | tuple[Tensor, ...] | list[Tensor]], samples: int
) -> tuple[Tensor, ...]:
    """Gives the images of batches, as many as are wanted; of pairs, the first is meant.

    Batches of one image are left out where the module has batch-norm layers: they have no variance.

    Raises:
        DataError: none is left.
    """
    least = 2 if any(isinstance(part, _BatchNorm) for part in module.modules()) else 1
    taken: list[Tensor] = []
    missing = samples
    for batch in batches:
        images = (batch if isinstance(batch, Tensor) else batch[0])[:missing]
        if len(images) >= least:
            taken.append(images)
        missing -= len(images)
        if missing <= 0:
            break
    if not taken:
        raise DataError(
            f"calibration needs a batch of at least {least} images, but got none; give it some of the "
            "training split"
        )
    return tuple(taken)
