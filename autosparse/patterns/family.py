"""What a family of patterns must be able to do, and the registry of those that exist.

A family is one file in `families/` with one class under `@register`; the folder is scanned, so there
is no list to edit. Masks and scores are numpy arrays; weights are OIHW or OI.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Literal, TypeVar

from autosparse.errors import PlanError
from autosparse.patterns.blocks import highest_per_group
from autosparse.patterns.structure import Array, BoolArray
from autosparse.records import Pattern, kept_blocks

Criterion = Literal["l1", "l2", "bpar"]
CRITERIA: tuple[Criterion, ...] = ("l1", "l2", "bpar")


class AbstractFamily(ABC):
    """One kind of sparse structure. Stateless: everything it needs is in the `Pattern`."""

    @abstractmethod
    def accepts(self, pattern: Pattern) -> bool:
        """Whether this family is the one that `pattern` belongs to."""

    @abstractmethod
    def scores(self, weight: Array, pattern: Pattern, criterion: Criterion) -> Array:
        """Gives the importance of every unit, ``[groups, units]``; higher is kept longer."""

    @abstractmethod
    def expand(self, units: BoolArray, shape: tuple[int, ...], pattern: Pattern) -> BoolArray:
        """Spreads kept units, shaped as `scores`, over a weight: bool of `shape`."""

    @abstractmethod
    def violation(self, mask: BoolArray, pattern: Pattern) -> str | None:
        """Gives the first rule of `pattern` that `mask` breaks, naming the group; None if none."""

    def choose(self, scores: Array, pattern: Pattern, sparsity: float) -> BoolArray:
        """Keeps the highest units of every group, or of the layer; of equals, the later ones."""
        if pattern.uniform:
            return highest_per_group(scores, kept_blocks(scores.shape[1], sparsity))
        kept = highest_per_group(scores.reshape(1, -1), kept_blocks(scores.size, sparsity))
        return kept.reshape(scores.shape)


_FAMILIES: dict[str, AbstractFamily] = {}
_F = TypeVar("_F", bound=type[AbstractFamily])


def register(family: _F) -> _F:
    """Adds a family to the registry, under its file's name."""
    _FAMILIES[family.__module__.rsplit(".", 1)[-1]] = family()
    return family


@functools.cache
def families() -> Mapping[str, AbstractFamily]:
    """Gives every family by name."""
    folder = importlib.import_module("autosparse.patterns.families")
    for file in sorted(module.name for module in pkgutil.iter_modules(folder.__path__)):
        importlib.import_module(f"{folder.__name__}.{file}")
    return _FAMILIES


def family_of(pattern: Pattern) -> AbstractFamily:
    """Finds the family that `pattern` belongs to.

    Raises:
        PlanError: there is none.
    """
    for family in families().values():
        if family.accepts(pattern):
            return family
    raise PlanError(
        f"a pattern must belong to a family of {', '.join(families())}, but got {pattern.name}"
    )
