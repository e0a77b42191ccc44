"""Where a classifier's classes come from: found by running it, as layers are defined in any order."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from autosparse.models.initialise import seeded
from autosparse.models.outputs import logits_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Head:
    """The layer that makes the classes.

    Attributes:
        name: its dotted path.
        outputs: of the model, one per class.
    """

    name: str
    outputs: int


def head(module: nn.Module, input_shape: Sequence[int] | None) -> Head | None:
    """Finds the layer that makes a model's classes; None if it has no convolution or linear layer.

    Args:
        module: the model, on the CPU.
        input_shape: of one sample, to run the model on once: the last layer to run with as many outputs
            as the model itself is the head. None, a shape that the model does not take, or outputs that
            no layer makes, leave the order of definition: the head is the last layer.
    """
    layers = {
        name: part for name, part in module.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)
    }
    if not layers:
        return None
    last = list(layers)[-1]
    defined = Head(last, _outputs(layers[last]))
    if input_shape is None:
        return defined
    try:
        ran, outputs = _run(module, layers, input_shape)
    except Exception as error:  # the shape is a guess, and a model may raise anything
        log.debug("no run tells the classes: %s", error)
        return defined
    fitting = [name for name in ran if _outputs(layers[name]) == outputs]
    return Head(fitting[-1], _outputs(layers[fitting[-1]])) if fitting else defined


def _outputs(layer: nn.Linear | nn.Conv2d) -> int:
    return layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels


def _run(
    module: nn.Module, layers: dict[str, nn.Linear | nn.Conv2d], shape: Sequence[int]
) -> tuple[list[str], int]:
    """Gives the layers in the order they ran, and how many logits the model returns."""
    ran: list[str] = []

    def note(name: str) -> Any:
        return lambda *_: ran.append(name)

    hooks = [part.register_forward_hook(note(name)) for name, part in layers.items()]
    training = {part: part.training for part in module.modules()}
    dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), torch.float32)
    try:
        with seeded(0), torch.no_grad():
            result = module.eval()(torch.zeros(1, *shape, dtype=dtype))
    finally:
        for hook in hooks:
            hook.remove()
        for part, mode in training.items():
            part.training = mode
    return ran, int(logits_of(result).shape[1])
