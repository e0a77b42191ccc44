"""The same network with fewer channels: what a mask is to be compared with.

Whoever can prune channels needs no sparse kernel: the layers that are left are smaller and dense, and
every library runs them. So a sparse model is worth something only where it is faster, or keeps more
accuracy, than a channel-pruned one of as many operations.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import nn

from autosparse.errors import UsageError
from autosparse.graph.channel_layout import Role, Space
from autosparse.graph.channels import channel_spaces
from autosparse.graph.fuse import fuse
from autosparse.graph.layers import layers
from autosparse.graph.trace import evaluation_mode, trace
from autosparse.patterns.structure import BoolArray, IntArray
from autosparse.records import LayerInfo

MULTIPLE = 8
"""What numbers of channels are rounded to: libraries' kernels are slow on others."""

_STEPS = 24


def slimmed(
    module: nn.Module,
    example_inputs: Sequence[torch.Tensor],
    flops: int,
    *,
    multiple: int = MULTIPLE,
) -> tuple[nn.Module, int]:
    """Gives a copy with fewer channels in every space that can be reordered, one share everywhere.

    The strongest channels stay, by the L1 norm of the filters that make them, summed over the layers
    that make them together. Classes, inputs and whatever is pinned stay as they are.

    Args:
        module: any module that ``torch.export`` can take; it is not changed.
        example_inputs: positional arguments, all tensors.
        flops: operations of the layers that it may have at most.
        multiple: what numbers of channels are rounded to, where there are so many.

    Returns:
        The copy, and the operations of its layers.

    Raises:
        UsageError: channels cannot be pruned so far; says how far they can.
        ModelError: torch cannot export the module.
    """
    spaces = [space for space in channel_spaces(module, example_inputs) if not space.pinned]
    graph = fuse(trace(module, example_inputs))
    found = [layer for layer in layers(graph) if layer.shape is not None]
    share = _share(found, spaces, flops, multiple)
    slim = copy.deepcopy(module)
    kept = [_strongest(module, space, _kept(space.size, share, multiple)) for space in spaces]
    _cut(slim, spaces, kept)
    _settle(slim)
    with evaluation_mode(slim), torch.no_grad():
        slim(*example_inputs)  # what was left inconsistent shows here
    return slim, _flops(found, spaces, share, multiple)


def _kept(size: int, share: float, multiple: int) -> int:
    if size <= multiple:
        return size
    return min(size, max(multiple, round(share * size / multiple) * multiple))


def _share(layers: Sequence[LayerInfo], spaces: Sequence[Space], flops: int, multiple: int) -> float:
    """Gives the largest share of channels with which the layers have so few operations."""
    least = _flops(layers, spaces, 0.0, multiple)
    if least > flops:
        raise UsageError(
            f"channels must be prunable to {flops / 1e6:.4g} M operations, but as {multiple} of every "
            f"space stay there are at least {least / 1e6:.4g} M; prune less"
        )
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if _flops(layers, spaces, middle, multiple) <= flops else (low, middle)
        )
    return high if _flops(layers, spaces, high, multiple) <= flops else low


def _flops(layers: Sequence[LayerInfo], spaces: Sequence[Space], share: float, multiple: int) -> int:
    """Counts the operations that are left in layers when every space keeps a share of its channels."""
    made = _shares(spaces, Role.PRODUCES, share, multiple)
    read = _shares(spaces, Role.READS, share, multiple)
    carried = _shares(spaces, Role.CARRIES, share, multiple)
    total = 0.0
    for layer in layers:
        assert layer.shape is not None
        name = layer.name.partition("@")[0]
        part = made.get(name, carried.get(name, 1.0)) * (read.get(name, 1.0))
        total += layer.shape.flops * part
    return math.ceil(total)


def _shares(spaces: Iterable[Space], role: Role, share: float, multiple: int) -> Mapping[str, float]:
    """Gives, by layer, the share of its channels that is left, of what it makes, reads or carries."""
    ties = [(space, tie) for space in spaces for tie in space.ties if tie.role is role]
    lengths: dict[str, list[tuple[int, float]]] = {}
    for space, tie in ties:
        kept = _kept(space.size, share, multiple) / space.size
        lengths.setdefault(tie.layer, []).append((space.size * tie.run, kept))
    return {
        layer: sum(size * kept for size, kept in parts) / sum(size for size, _ in parts)
        for layer, parts in lengths.items()
    }


def _strongest(module: nn.Module, space: Space, kept: int) -> IntArray:
    strength = np.zeros(space.size)
    for tie in space.ties:
        if tie.role is Role.PRODUCES:
            weight = module.get_parameter(tie.tensor).detach().double().abs()
            rows = weight.narrow(tie.axis, tie.offset, space.size * tie.run).movedim(tie.axis, 0)
            strength += rows.reshape(space.size, -1).sum(1).numpy()
    order = np.argsort(-strength, kind="stable")[:kept]
    return np.sort(order).astype(np.int32)


def _cut(module: nn.Module, spaces: Sequence[Space], kept: Sequence[IntArray]) -> None:
    """Leaves the kept channels of every space in parameters and buffers, in place."""
    tensors = module.state_dict(keep_vars=True)
    stay: dict[tuple[str, int], BoolArray] = {}
    for space, channels in zip(spaces, kept, strict=True):
        for tie in space.ties:
            along = stay.setdefault(
                (tie.tensor, tie.axis), np.ones(tensors[tie.tensor].shape[tie.axis], dtype=bool)
            )
            along[tie.offset : tie.offset + space.size * tie.run] = False
            along[np.add.outer(channels * tie.run, np.arange(tie.run)) + tie.offset] = True
    for (name, axis), along in stay.items():
        owner, _, own = name.rpartition(".")
        _shorten(module.get_submodule(owner), own, axis, along)


def _shorten(part: nn.Module, name: str, axis: int, stay: BoolArray) -> None:
    tensor = getattr(part, name)
    index = torch.from_numpy(np.flatnonzero(stay))
    cut = tensor.detach().index_select(axis, index)
    if name in part._buffers:
        part._buffers[name] = cut
    else:
        part._parameters[name] = nn.Parameter(cut, requires_grad=tensor.requires_grad)


def _settle(module: nn.Module) -> None:
    """Tells modules the sizes that their tensors have now, where their code goes by them."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d) and part.groups > 1:  # depthwise
            part.groups = part.weight.shape[0]
        if isinstance(part, nn.Conv2d):
            part.out_channels = part.weight.shape[0]
            part.in_channels = part.weight.shape[1] * part.groups
        elif isinstance(part, nn.Linear):
            part.out_features, part.in_features = part.weight.shape
        elif isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None:
            part.num_features = part.running_mean.shape[0]
        elif isinstance(part, nn.LayerNorm) and part.weight is not None:
            part.normalized_shape = tuple(part.weight.shape)
