"""One shot on a trained model, then fine-tuning under the fixed mask: the method of the 1xN paper.

Source: arXiv 2105.14713 section 3: the sum of absolute weights of a block is its importance, the
``int(p * blocks)`` least of a layer are zeroed at once, and the rest is fine-tuned with the mask as it
is (the gradient of pruned weights is 0), from a learning rate of a tenth and after a warm-up.
Differs: any pattern, not 1xN alone; where there are no trained weights to start from, the first part of
the epochs trains them (`pretrain`), so that its price is part of the run; filters are rearranged as a
transformation of the model (`autosparse.graph.rearrange`), whose permutation is exported, where the
release computes a mask in sorted order and saves no order; blocks never straddle groups.
"""

from __future__ import annotations

from dataclasses import dataclass

from autosparse.patterns import CRITERIA, Criterion
from autosparse.patterns.masks import mask
from autosparse.records.rules import require
from autosparse.train.methods import method
from autosparse.train.methods.method import Method, Phase, Probe, register, share_of


@dataclass(frozen=True, slots=True, kw_only=True)
class OneShotSettings(method.MethodSettings):
    """When is pruned, by what, and how the fine-tuning begins.

    Attributes:
        pretrain: fraction of the epochs that train the dense model first; 0 where trained weights are
            given.
        criterion: importance of a unit.
        finetune_lr: highest learning rate after pruning, as a multiple of the recipe's.
        finetune_warmup_epochs: over which it rises.
    """

    pretrain: float = 0.0
    criterion: Criterion = "l1"
    finetune_lr: float = 0.1
    finetune_warmup_epochs: float = 0.0

    def __post_init__(self) -> None:
        require(0 <= self.pretrain < 1, "pretrain must lie in [0, 1)", pretrain=self.pretrain)
        require(
            self.criterion in CRITERIA,
            f"criterion must be one of {', '.join(CRITERIA)}",
            criterion=self.criterion,
        )
        require(self.finetune_lr > 0, "finetune_lr must be above 0", finetune_lr=self.finetune_lr)
        require(
            self.finetune_warmup_epochs >= 0,
            "finetune_warmup_epochs must be at least 0",
            finetune_warmup_epochs=self.finetune_warmup_epochs,
        )

    def first_final_epoch(self, epochs: int) -> int:
        """Gives the epoch that begins with the one shot."""
        return share_of(self.pretrain, epochs)

    def phases(self, epochs: int) -> tuple[Phase, ...]:
        """Gives the dense training, where there is one, and the fine-tuning."""
        shot = self.first_final_epoch(epochs)
        tuning = Phase(shot, self.finetune_lr, self.finetune_warmup_epochs)
        return (Phase(0), tuning) if shot else (tuning,)


@register
class OneShot(Method):
    """A mask chosen once."""

    Settings = OneShotSettings
    settings: OneShotSettings

    def start_epoch(self, epoch: int, probe: Probe) -> int:
        """Prunes at the start of the fine-tuning, and never again."""
        if epoch != self.first_final_epoch:
            return 0
        return sum(
            layer.set(
                mask(
                    layer.latent(),
                    layer.choice.pattern,
                    layer.choice.sparsity,
                    criterion=self.settings.criterion,
                )
            )
            for layer in self.layers
        )
