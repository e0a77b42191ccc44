"""Prune a torch module as a plan says: masks, and zeros in the module's own weights."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from autosparse.errors import PlanError
from autosparse.patterns.family import Criterion
from autosparse.patterns.masks import mask
from autosparse.plans.plan import Plan
from autosparse.records import LayerChoice


def prunable(model: nn.Module, name: str) -> nn.Conv2d | nn.Linear:
    """Gives the layer that a plan names.

    Raises:
        PlanError: the model has none of that name, it cannot be pruned, or its weight is no parameter,
            so that zeros in it would not last.
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
    if "weight" not in layer._parameters:
        how, remedy = _parametrisation(layer)
        raise PlanError(
            f"only a weight that is a parameter can be pruned, but that of {name!r} is computed anew "
            f"by {how} whenever the layer runs; bake it first: {remedy}"
        )
    return layer


def _parametrisation(layer: nn.Module) -> tuple[str, str]:
    """Gives what computes a layer's weight, and the call that makes it a parameter."""
    if parametrize.is_parametrized(layer, "weight"):
        found = layer.parametrizations["weight"]  # type: ignore[index]
        how = " and ".join(type(part).__name__.strip("_") for part in found)
        return how, "torch.nn.utils.parametrize.remove_parametrizations(layer, 'weight')"
    for hook in layer._forward_pre_hooks.values():
        if isinstance(hook, prune.BasePruningMethod):
            return "the mask of torch.nn.utils.prune", "torch.nn.utils.prune.remove(layer, 'weight')"
        if isinstance(hook, WeightNorm):
            return "weight_norm", "torch.nn.utils.remove_weight_norm(layer)"
        if isinstance(hook, SpectralNorm):
            return "spectral_norm", "torch.nn.utils.remove_spectral_norm(layer)"
    return "the model", "layer.weight = torch.nn.Parameter(layer.weight.detach())"


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
