"""What a pruning method must be able to do while a model trains, and the registry of those that exist.

A method is one file in this folder with a class under `@register` and a frozen record of its settings;
the folder is scanned, so there is no list to edit. The loop (`autosparse.train.loop`) is the same for
all of them:

    method = open_method(recipe.method, layers, settings, epochs=..., seed=...)
    for epoch in ...:
        method.start_epoch(epoch, probe)       # which weights live
        for images, labels in ...:
            method.start_step()
            with layers.masked():              # parameters hold latent * mask
                loss(...).backward()
            method.shape_gradients()           # what pruned weights feel
            optimizer.step()                   # on the latent weights
"""

from __future__ import annotations

import difflib
import functools
import importlib
import math
import pkgutil
import zlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
from torch import Tensor

from autosparse.errors import UsageError
from autosparse.patterns.structure import Array
from autosparse.storage.serial import Record
from autosparse.train.methods.latent import MaskedLayers


class Phase(NamedTuple):
    """A stretch of a training with a learning rate's rise and fall of its own.

    Attributes:
        start: its first epoch.
        lr: its highest learning rate, as a multiple of the recipe's.
        warmup_epochs: over which the rate rises; None is the recipe's.
    """

    start: int
    lr: float = 1.0
    warmup_epochs: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodSettings(Record):
    """What a method can be told. Each method has a subclass; this one has nothing to tell."""

    def first_final_epoch(self, epochs: int) -> int:
        """Gives the first epoch whose masks are the plan's; only from there on a model is chosen."""
        return 0

    def phases(self, epochs: int) -> tuple[Phase, ...]:
        """Gives the stretches of a training of so many epochs, the first from epoch 0."""
        return (Phase(0),)


Probe = Callable[[int], Mapping[str, Array]]
"""Gives, from so many batches of training data, the sum of squares of gradient times weight of every
sparse layer's weights: first-order Taylor importance. Source: Molchanov et al., 2019, equation 8."""


class Method(ABC):
    """The masks of one training run, as one method moves them.

    Args:
        layers: the sparse layers of the model, all kept at first.
        settings: an instance of the method's own `Settings`.
        epochs: of the whole run.
        seed: of whatever the method draws.

    Raises:
        PlanError: the method cannot train a pattern of the plan; says which can.
    """

    name: ClassVar[str] = ""  # its file's, set by `register`
    Settings: ClassVar[type[MethodSettings]] = MethodSettings
    settings: Any

    def __init__(
        self, layers: MaskedLayers, settings: MethodSettings, *, epochs: int, seed: int
    ) -> None:
        self.layers = layers
        self.settings = settings
        self.epochs = epochs
        self.seed = seed
        self.check()

    def check(self) -> None:  # noqa: B027 - most methods take any pattern
        """Refuses patterns that the method cannot train.

        Raises:
            PlanError: there is one.
        """

    @property
    def first_final_epoch(self) -> int:
        """First epoch whose masks are those of the plan."""
        return self.settings.first_final_epoch(self.epochs)  # type: ignore[no-any-return]

    @abstractmethod
    def start_epoch(self, epoch: int, probe: Probe) -> int:
        """Chooses the masks of an epoch, before its first step.

        Returns:
            How many weights were pruned or came back since the last epoch, over all layers.
        """

    def start_step(self) -> None:  # noqa: B027 - most methods keep masks for an epoch
        """Chooses the masks of a step, where a method moves them that often."""

    def shape_gradients(self) -> None:
        """Makes of the gradient of masked weights what latent weights feel: by default, nothing of it
        reaches pruned ones.
        """
        self.layers.mask_gradients()

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Gives what a checkpoint must hold for the method to go on."""
        return {"masks": self.layers.state()}

    def restore(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        """Takes the state of a checkpoint back.

        Raises:
            RunError: it belongs to another plan.
        """
        self.layers.restore(state["masks"])

    def random(self, epoch: int, layer: str) -> np.random.Generator:
        """Gives the source of a layer's draws in an epoch, so that a resumed run repeats them."""
        return np.random.default_rng([self.seed, epoch, zlib.crc32(layer.encode())])


def share_of(fraction: float, epochs: int) -> int:
    """Gives the first whole epoch at or after a fraction of all."""
    return math.ceil(fraction * epochs - 1e-9)


# ---------------------------------------------------------------------------------------- registry

_METHODS: dict[str, type[Method]] = {}
_M = TypeVar("_M", bound=type[Method])


def register(method: _M) -> _M:
    """Adds a method to the registry, under its file's name."""
    method.name = method.__module__.rsplit(".", 1)[-1]
    _METHODS[method.name] = method
    return method


@functools.cache
def all_methods() -> Mapping[str, type[Method]]:
    """Gives every method by name."""
    folder = importlib.import_module("autosparse.train.methods")
    for file in sorted(module.name for module in pkgutil.iter_modules(folder.__path__)):
        importlib.import_module(f"{folder.__name__}.{file}")
    return dict(sorted(_METHODS.items()))


def method_named(name: str) -> type[Method]:
    """Gives a method by its name.

    Raises:
        UsageError: there is none of that name.
    """
    known = all_methods()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"a method must be one of {', '.join(known)}, but got {name!r}{hint}")
    return known[name]


def read_settings(name: str, values: Mapping[str, Any]) -> MethodSettings:
    """Gives a method's settings from plain values; what is left out has its default.

    Raises:
        UsageError: no such method or setting, or a value that breaks its rule.
    """
    return method_named(name).Settings.from_json(values)
