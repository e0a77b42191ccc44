"""SR-STE: masks of the latent weights anew in every step, from scratch and without any schedule.

Source: arXiv 2102.04010: N:M masks keep the N largest of M consecutive weights at every forward pass,
gradients go straight through to all latent weights, and pruned ones are pulled towards zero by lambda,
added to the gradient before the step, which keeps masks from flipping.
Differs: any pattern whose masks follow from weights (the source has N:M alone), though others than N:M
are chosen only every `every` steps; groups of M lie along the inputs, where kernels need them, while
the source's first release cuts OIHW; weights are saved with the mask of their last step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from autosparse.patterns import CRITERIA, Criterion
from autosparse.patterns.family import UnitFamily, family_of
from autosparse.patterns.masks import mask
from autosparse.patterns.structure import IntArray
from autosparse.records.rules import require, require_at_least
from autosparse.train.methods import method
from autosparse.train.methods.latent import MaskedLayer, MaskedLayers
from autosparse.train.methods.method import Method, Probe, register
from autosparse.train.methods.runs import Runs


@dataclass(frozen=True, slots=True, kw_only=True)
class SrsteSettings(method.MethodSettings):
    """What pruned weights feel, and how often masks are chosen.

    Attributes:
        decay: pull of pruned latent weights towards zero (lambda); 2e-4 in the source, for CNNs.
        every: steps between masks of patterns that are not N:M, which are chosen on the host.
        criterion: importance of a unit, of patterns that are not N:M.
    """

    decay: float = 2e-4
    every: int = 16
    criterion: Criterion = "l1"

    def __post_init__(self) -> None:
        require(self.decay >= 0, "decay must be at least 0", decay=self.decay)
        require_at_least(1, self, "every")
        require(
            self.criterion in CRITERIA,
            f"criterion must be one of {', '.join(CRITERIA)}",
            criterion=self.criterion,
        )


@register
class Srste(Method):
    """Masks that follow the latent weights."""

    Settings = SrsteSettings
    settings: SrsteSettings

    def __init__(
        self, layers: MaskedLayers, settings: method.MethodSettings, *, epochs: int, seed: int
    ) -> None:
        super().__init__(layers, settings, epochs=epochs, seed=seed)
        self._runs = {layer.name: _runs_of(layer) for layer in layers}
        self._steps = 0

    def start_epoch(self, epoch: int, probe: Probe) -> int:
        """Chooses all masks; a resumed run chooses what an uninterrupted one would."""
        self._steps = 0
        return sum(self._update(layer) for layer in self.layers)

    def start_step(self) -> None:
        """Chooses masks of the latent weights as they are."""
        due = self._steps % self.settings.every == 0
        self._steps += 1
        for layer in self.layers:
            runs = self._runs[layer.name]
            if runs is not None:
                layer.mask.copy_(runs.mask(layer.weight))
            elif due:
                self._update(layer)

    def _update(self, layer: MaskedLayer) -> int:
        choice = layer.choice
        return layer.set(
            mask(layer.latent(), choice.pattern, choice.sparsity, criterion=self.settings.criterion)
        )

    def shape_gradients(self) -> None:
        """Leaves pruned weights their gradient and pulls them towards zero."""
        self.layers.pull_pruned(self.settings.decay)


def _runs_of(layer: MaskedLayer) -> Runs | None:
    """Gives the runs of an N:M pattern; None for others."""
    pattern = layer.choice.pattern
    family = family_of(pattern)
    if pattern.nm is None or not isinstance(family, UnitFamily):
        return None
    return Runs(_members(family, layer), pattern.nm[0], layer.weight)


def _members(family: UnitFamily, layer: MaskedLayer) -> IntArray:
    """Gives the weights of every run, ``[runs, M]``: numbers are spread over the weight bit by bit."""
    pattern, shape = layer.choice.pattern, layer.shape
    numbers = np.arange(int(np.prod(shape))).reshape(family.units(pattern, shape))
    where = np.zeros(shape, dtype=np.int64)
    for bit in range(numbers.size.bit_length()):
        where |= (
            family.expand((numbers >> bit & 1).astype(bool), shape, pattern).astype(np.int64) << bit
        )
    members = np.empty(numbers.size, dtype=np.int32)
    members[where.reshape(-1)] = np.arange(numbers.size)
    return members.reshape(numbers.shape)
