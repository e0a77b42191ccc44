"""Prune a torch module as a plan says: masks, and zeros in the module's own weights."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from autosparse.errors import PlanError
from autosparse.patterns.family import Criterion
from autosparse.patterns.masks import mask
from autosparse.plan import Plan
from autosparse.records import LayerChoice


def prunable(model: nn.Module, name: str) -> nn.Conv2d | nn.Linear:
    """Gives the layer that a plan names.

    Raises:
        PlanError: the model has none of that name, or it cannot be pruned.
    """
    modules = dict(model.named_modules())
    layer = modules.get(name)
    if layer is None:
        near = difflib.get_close_matches(name, modules, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise PlanError(f"a plan may name only layers of its model, but got {name!r}{hint}")
    if not isinstance(layer, nn.Conv2d | nn.Linear):
        raise PlanError(
            f"only Conv2d and Linear layers can be pruned, but {name!r} is {type(layer).__name__}"
        )
    if isinstance(layer, nn.Conv2d) and layer.groups > 1:
        raise PlanError(f"a grouped convolution stays dense, but {name!r} has {layer.groups} groups")
    return layer


def sparse_layers(
    model: nn.Module, plan: Plan
) -> Iterator[tuple[str, nn.Conv2d | nn.Linear, LayerChoice]]:
    """Gives every layer that the plan makes sparse, with its choice, in the plan's order.

    Raises:
        PlanError: a name that the model does not have or that cannot be pruned.
    """
    for name, choice in plan.layers.items():
        layer = prunable(model, name)
        if not choice.pattern.is_dense:
            yield name, layer, choice


@torch.no_grad()
def sparsify(model: nn.Module, plan: Plan, *, criterion: Criterion = "l1") -> dict[str, Tensor]:
    """Prunes a model in place as a plan says.

    Nothing is changed if any layer of the plan cannot be pruned. To keep the result while training
    on, multiply the weights by the masks again after every step, or use `autosparse.train`.

    Args:
        model: any module; its weights are zeroed where pruned.
        plan: pattern and sparsity per layer.
        criterion: importance of a block: ``l1``, ``l2`` or ``bpar``.

    Returns:
        Layer name to a bool mask of the weight's shape, for the sparse layers of the plan.

    Raises:
        PlanError: a name or pattern that does not fit the model.
    """
    masks: dict[str, Tensor] = {}
    layers = list(sparse_layers(model, plan))
    for name, layer, choice in layers:
        weight = layer.weight.detach().float().cpu().numpy()
        kept = mask(weight, choice.pattern, choice.sparsity, criterion=criterion)
        masks[name] = torch.from_numpy(kept).to(layer.weight.device)
    for name, layer, _ in layers:
        layer.weight.masked_fill_(~masks[name], 0.0)
    return masks
