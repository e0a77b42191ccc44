"""Nothing is pruned: what every other method is compared with."""

from __future__ import annotations

from autosparse.errors import PlanError
from autosparse.train.methods.method import Method, Probe, register


@register
class Dense(Method):
    """Trains every weight."""

    def check(self) -> None:
        """Refuses a plan with zeros.

        Raises:
            PlanError: a layer shall be sparse.
        """
        for layer in self.layers:
            if layer.choice.sparsity > 0:
                raise PlanError(
                    f"dense training takes a plan without zeros, but {layer.name} shall be "
                    f"{layer.choice.label}; take another method"
                )

    def start_epoch(self, epoch: int, probe: Probe) -> int:
        """Changes nothing."""
        return 0
