"""Gradual magnitude pruning: the least units go, a few each epoch, and do not come back.

Source: Zhu and Gupta, "To prune, or not to prune", arXiv 1710.01878, equation 1: the sparsity rises
from 0 to the plan's as ``1 - (1 - x)^3``, quickly at first.
Differs: any pattern; masks move between epochs, there every hundred steps or so.
"""

from __future__ import annotations

from dataclasses import dataclass

from autosparse.errors import PlanError
from autosparse.patterns import CRITERIA, Criterion
from autosparse.patterns.family import family_of
from autosparse.patterns.masks import mask
from autosparse.records.rules import require
from autosparse.train.methods import method
from autosparse.train.methods.method import Method, Probe, register, share_of


@dataclass(frozen=True, slots=True, kw_only=True)
class GradualSettings(method.MethodSettings):
    """When sparsity rises, and what goes first.

    Attributes:
        ramp_start: fraction of the epochs up to which the model is dense.
        ramp_end: fraction of the epochs from which on the mask is final.
        criterion: importance of a unit.
    """

    ramp_start: float = 0.04
    ramp_end: float = 0.72
    criterion: Criterion = "l1"

    def __post_init__(self) -> None:
        require(
            0 <= self.ramp_start <= self.ramp_end,
            "ramp_start must lie in [0, ramp_end]",
            ramp_start=self.ramp_start,
            ramp_end=self.ramp_end,
        )
        require(
            self.criterion in CRITERIA,
            f"criterion must be one of {', '.join(CRITERIA)}",
            criterion=self.criterion,
        )

    def first_final_epoch(self, epochs: int) -> int:
        """Gives the first epoch after the ramp."""
        return share_of(self.ramp_end, epochs)

    def enforced(self, epoch: int, epochs: int) -> float:
        """Gives the part of the plan's sparsity that holds in an epoch, in [0, 1]."""
        start, end = self.ramp_start * epochs, self.ramp_end * epochs
        if epoch >= self.first_final_epoch(epochs):
            return 1.0
        return float(1 - (1 - min(max((epoch - start) / (end - start), 0.0), 1.0)) ** 3)


@register
class Gradual(Method):
    """Hard masks that only shrink."""

    Settings = GradualSettings
    settings: GradualSettings

    def check(self) -> None:
        """Refuses patterns that have one sparsity only, which nothing can rise to.

        Raises:
            PlanError: there is one.
        """
        for layer in self.layers:
            pattern = layer.choice.pattern
            why = family_of(pattern).why_not_sparsity(pattern, layer.choice.sparsity / 2)
            if why:
                raise PlanError(
                    f"gradual pruning takes patterns that can have any sparsity, but {layer.name} "
                    f"shall be {layer.choice.label}: {why}; take srste or onexn"
                )

    def start_epoch(self, epoch: int, probe: Probe) -> int:
        """Prunes up to the ramp's sparsity of what is left."""
        if epoch > self.first_final_epoch:
            return 0
        part = self.settings.enforced(epoch, self.epochs)
        changed = 0
        for layer in self.layers:
            pattern, sparsity = layer.choice.pattern, layer.choice.sparsity * part
            # Pruned units score 0, so they are the first to stay out.
            found = mask(layer.used(), pattern, sparsity, criterion=self.settings.criterion)
            changed += layer.set(found & layer.mask.cpu().numpy() if part < 1 else found)
        return changed
