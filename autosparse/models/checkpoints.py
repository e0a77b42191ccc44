"""Which tensors of a checkpoint are a model's weights: out of wrappers, under the model's own names.

Training code saves weights in many ways: alone, or in a dict beside optimizer and epoch; under names
that a wrapper has put a prefix before; as a moving average beside the weights; with masks of torch's
pruning not yet multiplied in. No list of names covers that. What decides is the model: its own names,
after one common prefix, somewhere in the file.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping, Set
from dataclasses import dataclass

import torch
from torch import Tensor

from autosparse.errors import ModelError

log = logging.getLogger(__name__)

State = dict[str, Tensor]

_DEEPEST = 4
_SHOWN = 4
_PROBES = 5
# Counters of batches decide nothing in eval mode, and old files do not have them.
_COUNTER = "num_batches_tracked"
_AVERAGED = ("ema", "average", "swa", "teacher", "shadow")


@dataclass(frozen=True, slots=True)
class Found:
    """A mapping of tensors inside a checkpoint.

    Attributes:
        label: the keys that lead to it, and the prefix that was removed from its names or put before.
        state: name to tensor.
    """

    label: str
    state: State

    @property
    def is_averaged(self) -> bool:
        """Whether its label tells of a moving average of the weights."""
        return any(word in self.label.lower() for word in _AVERAGED)


def states(content: object, path: str) -> tuple[Found, ...]:
    """Gives every mapping of tensors in a checkpoint, the outermost first.

    Args:
        content: what was read from the file.
        path: of the file, for messages.

    Raises:
        ModelError: there is none, or tensors are sparse or without values.
    """
    if not isinstance(content, Mapping):
        raise ModelError(
            f"weights must be a dict of tensors, but {path} holds {type(content).__name__}"
        )
    found = tuple(_nested(content, (), _DEEPEST))
    if not found:
        keys = ", ".join(str(key) for key in list(content)[:_SHOWN])
        raise ModelError(f"weights must be a dict of tensors, but {path} has none; keys: {keys}")
    return found


def _nested(content: Mapping[object, object], keys: tuple[str, ...], depth: int) -> Iterator[Found]:
    own = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if own:
        yield Found(".".join(keys), own)
    for key, value in content.items():
        if isinstance(value, Mapping) and depth > 0:
            yield from _nested(value, (*keys, str(key)), depth - 1)


def of_model(found: Collection[Found], own: Collection[str], path: str) -> State:
    """Gives the weights of a model from a checkpoint, under the model's own names.

    Where nothing fits, gives what fits best, so that whoever fills the model can name the differences.

    Args:
        found: the mappings of the checkpoint.
        own: names of the model's parameters and buffers.
        path: of the file, for messages.

    Raises:
        ModelError: different weights in the file fit equally well, or weights are parametrised.
    """
    needed = {name for name in own if not name.endswith(_COUNTER)}
    renamed = [each for one in found for each in _renamed(one, needed)]
    fitting = [each for each in renamed if needed <= each.state.keys()]
    if not fitting:
        return _nearest(renamed or list(found), needed, path).state
    distinct: list[Found] = []
    for each in fitting:
        if not any(_equal(each.state, other.state, needed) for other in distinct):
            distinct.append(each)
    plain = [each for each in distinct if not each.is_averaged] or distinct
    if len(plain) > 1:
        labels = ", ".join(repr(each.label) for each in plain)
        raise ModelError(
            f"a file must hold one set of weights for its model, but {path} holds several: {labels}; "
            "save the one you mean: torch.save(model.state_dict(), FILE)"
        )
    for other in distinct:
        if other is not plain[0]:
            log.warning("%s: taken are the weights %r, not %r", path, plain[0].label, other.label)
    return plain[0].state


def alone(found: Collection[Found]) -> State:
    """Gives a checkpoint's weights where no model is at hand: the mapping with most names.

    A prefix is removed that every name has, if a wrapper is known to put it there.
    """
    largest = max(found, key=lambda each: (len(each.state), not each.is_averaged))
    state = baked(largest.state)
    stripped = True
    while stripped:
        stripped = False
        for prefix in ("module.", "_orig_mod."):  # left by DataParallel and by torch.compile
            if all(name.startswith(prefix) for name in state):
                state = {name.removeprefix(prefix): value for name, value in state.items()}
                stripped = True
    return state


def _renamed(found: Found, needed: Set[str]) -> Iterator[Found]:
    """Gives a mapping under the model's names, once for every prefix that makes any of them fit."""
    yield from _without_prefix(found, needed)
    whole = baked(found.state)
    if whole.keys() != found.state.keys():
        yield from _without_prefix(Found(found.label, whole), needed)


def _without_prefix(found: Found, needed: Set[str]) -> Iterator[Found]:
    if needed <= found.state.keys():
        yield found
        return
    # Few other names end with the longest ones, and not all of them need be missing from a misfit.
    probes = sorted(needed, key=lambda name: (-name.count("."), -len(name)))[:_PROBES]
    removed = {
        name.removesuffix(probe)
        for probe in probes
        for name in found.state
        if name == probe or name.endswith(f".{probe}")
    }
    for prefix in sorted(removed):
        state = {n.removeprefix(prefix): v for n, v in found.state.items() if n.startswith(prefix)}
        yield Found(_labelled(found.label, prefix), state)
    if removed or not probes:
        return
    probe = probes[0]
    # A model may itself be a wrapper of what was saved: then all its names have the prefix.
    first, dot, _ = probe.partition(".")
    while dot:
        prefix = f"{first}."
        if all(name.startswith(prefix) for name in needed):
            state = {f"{prefix}{name}": value for name, value in found.state.items()}
            if needed <= state.keys():
                yield Found(_labelled(found.label, f"+{prefix}"), state)
                return
        following, dot, _ = probe[len(prefix) :].partition(".")
        first = f"{first}.{following}"


def _labelled(label: str, prefix: str) -> str:
    return ".".join(filter(None, (label, prefix.removesuffix("."))))


def _equal(state: State, other: State, names: Collection[str]) -> bool:
    return all(
        state[name].shape == other[name].shape and torch.equal(state[name], other[name])
        for name in names
    )


def _nearest(found: list[Found], needed: Set[str], path: str) -> Found:
    nearest = max(found, key=lambda each: len(needed & each.state.keys()))
    _refuse_parametrised(nearest.state, needed, path)
    return nearest


# ------------------------------------------------------------------------------------ parametrisations


def baked(state: State) -> State:
    """Multiplies the masks of torch's pruning in, and puts weight_norm's two parts together.

    A name that the model has itself must be looked for before.
    """
    made = dict(state)
    for name in state:
        stem = name.removesuffix("_orig")
        if stem != name and f"{stem}_mask" in state:
            made[stem] = made.pop(name) * made.pop(f"{stem}_mask")
    for scale_end, vector_end, end in (
        ("weight_g", "weight_v", "weight"),
        ("parametrizations.weight.original0", "parametrizations.weight.original1", "weight"),
    ):
        for name in state:
            stem = name.removesuffix(scale_end)
            if stem == name or f"{stem}{vector_end}" not in state:
                continue
            scale, vector = made.pop(name), made.pop(f"{stem}{vector_end}")
            made[f"{stem}{end}"] = _normed(vector, scale)
    return made


def _normed(vector: Tensor, scale: Tensor) -> Tensor:
    axes = [axis for axis, size in enumerate(scale.shape) if size == 1]
    length: Tensor = torch.linalg.vector_norm(vector, dim=axes or None, keepdim=True)
    return scale * vector / length


def _refuse_parametrised(state: State, needed: Set[str], path: str) -> None:
    """Names the remedy where weights are kept as the operands of a computation."""
    for name in needed:
        if name in state:
            continue
        stem, _, leaf = name.rpartition(".")
        before = f"{stem}." if stem else ""
        parts = [
            other
            for other in state
            if other.startswith((f"{before}parametrizations.{leaf}.", f"{before}{leaf}_orig"))
        ]
        if parts:
            raise ModelError(
                f"weights must be those that the model computes with, but {path} holds {parts[0]} in "
                f"place of {name}: the layer is parametrised; bake it before saving, with "
                "torch.nn.utils.parametrize.remove_parametrizations, remove_spectral_norm or "
                "prune.remove"
            )
