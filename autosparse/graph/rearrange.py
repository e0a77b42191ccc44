"""Filter rearrangement: similar filters of a layer become neighbours, and the module computes the same.

Groups of consecutive outputs then are groups of similar filters, so that plain 1xN patterns lose less
and no kernel has to know. Rearrange before masks are chosen and before an optimiser is made, as its
state would stay in the old order. The inputs of the layers that read the moved channels move along: to
their own 1xN masks that is all the same, as blocks are of single inputs, but blocks and tiles of
several inputs and N:M runs then hold other weights: whatever the pattern, choose masks afterwards.

Source: "1xN Pattern for Pruning Convolutional Neural Networks", arXiv 2105.14713, section 3.3.
Differs: the module itself is permuted, with everything that reads or carries the channels, instead of
a mask; residual streams are permuted too unless told otherwise, all layers that write one in one order.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

from autosparse.errors import ModelError, PlanError, RunError, UsageError
from autosparse.graph.channel_layout import Role, Space, Tie
from autosparse.graph.channel_orders import Prunable, by_kept, by_norm, why_not_by_kept
from autosparse.graph.channels import channel_spaces
from autosparse.graph.trace import evaluation_mode
from autosparse.patterns.pattern import Pattern
from autosparse.patterns.structure import IntArray
from autosparse.storage.serial import Record

By = Literal["l1", "kept"]

TOLERANCE = 1e-4
"""Largest change of a result that reordered sums may make, relative to the largest entry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Move(Record):
    """A new order of one space of channels.

    Attributes:
        order: channel i is what channel ``order[i]`` was.
        ties: the axes that follow it.

    Raises:
        UsageError: the order is no permutation.
    """

    order: tuple[int, ...]
    ties: tuple[Tie, ...]

    def __post_init__(self) -> None:
        if sorted(self.order) != list(range(len(self.order))):
            raise UsageError(
                f"an order must name every channel from 0 to {len(self.order) - 1} once, but got "
                f"{list(self.order[:8])}...; rearrange anew"
            )

    def inverse(self) -> Move:
        """Gives the move that undoes this one."""
        return Move(order=tuple(np.argsort(self.order).tolist()), ties=self.ties)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rearrangement(Record):
    """What was put into another order in a module, as it is saved beside the module's weights.

    Attributes:
        moves: new orders, one per space.
        left: layers that were named and left alone, with the reasons.
    """

    moves: tuple[Move, ...] = ()
    left: Mapping[str, str] = field(default_factory=dict)

    @property
    def orders(self) -> dict[str, IntArray]:
        """The order of the outputs of every layer that has a new one, int32 ``[outputs]``."""
        return {
            tie.layer: np.asarray(move.order, dtype=np.int32)
            for move in self.moves
            for tie in move.ties
            if tie.role is Role.PRODUCES
        }


def rearrange(
    module: nn.Module,
    example_inputs: Sequence[torch.Tensor],
    layers: Mapping[str, Pattern] | Iterable[str],
    *,
    by: By = "l1",
    sparsity: float | Mapping[str, float] = 0.5,
    streams: bool = True,
) -> Rearrangement:
    """Orders the outputs of layers so that neighbours are alike, in place, and lets all else follow.

    Args:
        module: any module that ``torch.export`` can take; its parameters stay the objects they are.
        example_inputs: positional arguments, all tensors; the module is verified on them.
        layers: the layers to be pruned, by name, or their patterns; layers of patterns without groups
            of outputs are left alone.
        by: ``l1``, the norm of each filter, the largest first, summed over the named layers that share
            an order; or ``kept``, so that masks of the given patterns keep most of the norm.
        sparsity: what the layers will have, of all or each; ``kept`` alone asks for it.
        streams: whether layers whose outputs are added to those of others are rearranged too, all in
            one order, which helps each of them less than an order of its own would.

    Returns:
        The new orders, and the named layers left alone.

    Raises:
        ModelError: torch cannot export the module.
        PlanError: the module has no layer of a name.
        RunError: the module's results changed by more than rounding, or cannot be compared; the module
            is as it was.
        UsageError: another `by`, a layer without a sparsity, or inputs that are no tensors.
    """
    if by not in get_args(By):
        raise UsageError(f"by must be one of {', '.join(get_args(By))}, but got {by!r}")
    wanted, left = _wanted(module, layers, by)
    spaces = channel_spaces(module, example_inputs)
    left |= _not_found(module, wanted, spaces)
    moves = []
    for space in spaces:
        named = [layer for layer in space.producers if layer in wanted]
        reason = space.pinned or (_STREAM if space.summed and not streams else "")
        if reason:
            left |= dict.fromkeys(named, reason)
        elif named:
            given = [_prunable(module, name, wanted[name], _of(sparsity, name)) for name in named]
            order = by_norm(given) if by == "l1" else by_kept(given)
            moves.append(Move(order=tuple(order.tolist()), ties=space.ties))
    found = Rearrangement(moves=tuple(moves), left=left)
    _move_verified(module, example_inputs, found)
    return found


def apply(module: nn.Module, rearrangement: Rearrangement) -> None:
    """Puts a module's channels into a saved order, in place, such as those of a dense checkpoint.

    Args:
        module: of the class and sizes of the one that was rearranged, in its original order.
        rearrangement: as `rearrange` gave it.

    Raises:
        ModelError: the module lacks a tensor, or it has other sizes; the module is as it was.
    """
    _move(module, rearrangement.moves)


def undo(module: nn.Module, rearrangement: Rearrangement) -> None:
    """Puts a module's channels back into the order that they had before, in place and bit for bit.

    Args:
        module: one that was rearranged, trained since or not.
        rearrangement: as `rearrange` gave it.

    Raises:
        ModelError: the module lacks a tensor, or it has other sizes; the module is as it was.
    """
    _move(module, [move.inverse() for move in reversed(rearrangement.moves)])


# ----------------------------------------------------------------------------------------- choosing


_STREAM = "its outputs are added to those of other layers, and such streams were to be left"


def _wanted(
    module: nn.Module, layers: Mapping[str, Pattern] | Iterable[str], by: By
) -> tuple[dict[str, Pattern | None], dict[str, str]]:
    """Gives the layers to rearrange with their patterns, and those that cannot gain, with reasons."""
    patterns = dict(layers) if isinstance(layers, Mapping) else dict.fromkeys(layers)
    known = dict(module.named_modules())
    for name in patterns:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise PlanError(
                f"a rearrangement may name only layers of its model, but got {name!r}{hint}"
            )
    reasons = {name: _why_not(pattern, by) for name, pattern in patterns.items()}
    wanted = {name: pattern for name, pattern in patterns.items() if not reasons[name]}
    return wanted, {name: reason for name, reason in reasons.items() if reason}


def _why_not(pattern: Pattern | None, by: By) -> str:
    if pattern is not None and pattern.group_out <= 1:
        return f"{pattern.name} has no groups of outputs, so no order is better than another"
    return why_not_by_kept(pattern) if by == "kept" else ""


def _of(sparsity: float | Mapping[str, float], layer: str) -> float:
    """Gives the sparsity of one layer."""
    if not isinstance(sparsity, Mapping):
        return sparsity
    if layer not in sparsity:
        raise UsageError(
            f"sparsity must be a number or name every layer, but got {sorted(sparsity)}; add {layer!r}"
        )
    return sparsity[layer]


def _not_found(module: nn.Module, wanted: Iterable[str], spaces: Iterable[Space]) -> dict[str, str]:
    """Gives the layers that make no channels, with the reasons."""
    made = {layer for space in spaces for layer in space.producers}
    return {name: _no_producer(module.get_submodule(name)) for name in wanted if name not in made}


def _no_producer(layer: nn.Module) -> str:
    if not isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.Linear):
        return f"a {type(layer).__name__} makes no channels"
    if "weight" not in layer._parameters:
        return "its weight is computed anew whenever it runs"
    if not isinstance(layer, nn.Linear) and layer.groups > 1:
        return "a depthwise convolution keeps the order of what it reads"
    return "evaluation does not run it, or under another name"


def _prunable(module: nn.Module, layer: str, pattern: Pattern | None, sparsity: float) -> Prunable:
    weight = module.get_parameter(f"{layer}.weight").detach()
    return Prunable(weight.to("cpu", torch.float64).numpy(), pattern, sparsity)


# ------------------------------------------------------------------------------------------- moving


def _move_verified(
    module: nn.Module, inputs: Sequence[torch.Tensor], rearrangement: Rearrangement
) -> None:
    """Applies a rearrangement, and takes it back if the module then computes anything else."""
    before = _results(module, inputs)
    apply(module, rearrangement)
    try:
        _compare(before, _results(module, inputs))
    except BaseException:
        undo(module, rearrangement)
        raise


@torch.no_grad()
def _results(module: nn.Module, inputs: Sequence[torch.Tensor]) -> list[Any]:
    """Gives the leaves of what a module computes."""
    with evaluation_mode(module):
        # Copies: a module may work in place on what it is given.
        leaves, _ = pytree.tree_flatten(module(*(value.clone() for value in inputs)))
    return [leaf.detach().double() for leaf in leaves if isinstance(leaf, torch.Tensor)]


def _compare(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor]) -> None:
    for one, other in zip(before, after, strict=True):
        if not one.numel():
            continue
        largest, change = float(one.abs().max()), float((one - other).abs().max())
        if not change <= TOLERANCE * largest:  # no comparison holds for what is not a number
            raise RunError(
                f"a rearranged module must compute what it did, to {TOLERANCE:g} of the largest entry, "
                f"{largest:g}, but a result changed by {change:g}; leave out layers, or use inputs and "
                "weights that are finite and a module that computes the same each time"
            )


@torch.no_grad()
def _move(module: nn.Module, moves: Iterable[Move]) -> None:
    """Permutes parameters and buffers, all or none."""
    tensors = module.state_dict(keep_vars=True)
    steps = [(tie, move.order) for move in moves for tie in move.ties]
    for tie, order in steps:
        _check_fit(tensors.get(tie.tensor), tie, len(order))
    for tie, order in steps:
        tensor = tensors[tie.tensor]
        entries = np.add.outer(np.asarray(order) * tie.run, np.arange(tie.run)).reshape(-1)
        stretch = tensor.narrow(tie.axis, tie.offset, entries.size)
        index = torch.from_numpy(entries).to(tensor.device)
        stretch.copy_(stretch.index_select(tie.axis, index))


def _check_fit(tensor: torch.Tensor | None, tie: Tie, channels: int) -> None:
    end = tie.offset + channels * tie.run
    if tensor is None or tensor.dim() <= tie.axis or tensor.shape[tie.axis] < end:
        found = "none of that name" if tensor is None else f"the shape {list(tensor.shape)}"
        raise ModelError(
            f"a rearrangement must fit its module, with {tie.tensor} of at least {end} entries along "
            f"axis {tie.axis}, but got {found}; apply it to the model that it was made of"
        )
