"""The moving average of a model's weights and statistics, often better than the last ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Average:
    """An exponential moving average of all floating-point parameters and buffers.

    The first steps count for more: of step t the decay is at most ``(1 + t) / (10 + t)``, so that the
    average does not remember random weights.

    Args:
        module: whose weights are averaged; not kept.
        decay: part of the average that stays in every step.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._decay = decay
        self._steps = 0
        self._mean = {name: value.detach().clone() for name, value in _floats(module)}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Counts the module's weights in, after a step."""
        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        for name, value in _floats(module):
            self._mean[name].lerp_(value.detach(), 1 - decay)

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Lets the module hold the average inside the block, and its own weights after it."""
        own = {name: value.data for name, value in _floats(module)}
        try:
            for name, value in _floats(module):
                value.data = self._mean[name].clone()
            yield
        finally:
            for name, value in _floats(module):
                value.data = own[name]

    def state(self) -> dict[str, Tensor]:
        """Gives what a checkpoint must hold."""
        return {**self._mean, _STEPS: torch.tensor(self._steps)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Takes the state of a checkpoint back."""
        self._steps = int(state[_STEPS])
        for name, mean in self._mean.items():
            mean.copy_(state[name])


_STEPS = "/steps"  # no parameter can have this name


def _floats(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        if value.is_floating_point():
            yield name, value
