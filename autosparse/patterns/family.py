"""What a family of patterns must be able to do, and the registry of those that exist.

A family is one file in `families/` with one class under `@register`; the folder is scanned, so there
is no list to edit. All else asks the family: plans and files for labels, spaces for what a layer may
become, the tuner for contracts and amounts, the search for rank and kind, training for masks, the
engine for what zeros show. Masks and scores are numpy arrays; weights are OIHW or OI.

    AbstractFamily   any family
    UnitFamily       one whose units are known before any weight is: scores, units kept, mask
"""

from __future__ import annotations

import difflib
import functools
import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import ClassVar, TypeVar

import numpy as np

from autosparse.errors import PlanError
from autosparse.patterns.blocks import highest_per_group
from autosparse.patterns.facts import CRITERIA, Criterion, Found, Group, Worked
from autosparse.patterns.pattern import Contract, Pattern, WeightShape, kept_blocks
from autosparse.patterns.structure import Array, BoolArray, IntArray

__all__ = [
    "CRITERIA",
    "AbstractFamily",
    "Criterion",
    "Found",
    "Group",
    "UnitFamily",
    "Worked",
    "all_families",
    "family_of",
    "finest_first",
    "is_at_least_as_accurate",
    "named",
    "register",
    "unit_family_of",
]


class AbstractFamily(ABC):
    """One kind of sparse structure. Stateless: everything it needs is in the `Pattern`."""

    name: ClassVar[str] = ""  # its file's, set by `register`
    example: ClassVar[str] = ""  # a label, for messages

    # ------------------------------------------------------------------------------------- naming

    @abstractmethod
    def label(self, pattern: Pattern) -> str:
        """Names a pattern of this family; no two patterns of any families share a name."""

    @abstractmethod
    def parse(self, label: str) -> Pattern | None:
        """Reads what `label` writes; None for anything else."""

    def flaw(self, pattern: Pattern) -> str:
        """Says what makes no sense in a pattern that calls itself of this family; empty if nothing."""
        return ""

    @abstractmethod
    def worked(self) -> tuple[Worked, ...]:
        """Gives masks of this family that were worked out by hand, as its source prunes."""

    # ------------------------------------------------------------------------------------- choices

    @abstractmethod
    def grid(self, shape: WeightShape) -> tuple[Pattern, ...]:
        """Gives the patterns worth offering for a weight, finest first; may be empty."""

    def why_not(self, pattern: Pattern, shape: WeightShape) -> str:
        """Says why a weight cannot have a pattern; empty if it can."""
        return ""

    @abstractmethod
    def rank(self, pattern: Pattern) -> float:
        """Gives how coarse a pattern is, comparable between families: log2 of the weights per unit
        and kernel position. Of equal sparsity, the coarser loses the more accuracy, as a rule.
        """

    def kind(self, pattern: Pattern) -> tuple[str, ...]:
        """Tells apart patterns whose losses do not say anything of each other.

        Between two of one kind a loss may be interpolated in `rank`.
        """
        inside = "" if pattern.nm is None else f"{pattern.nm[0]}:{pattern.nm[1]}"
        return (self.name, "uniform" if pattern.uniform else "layerwide", pattern.order, inside)

    def embeds(
        self, finer: tuple[Pattern, int], coarser: tuple[Pattern, int], shape: WeightShape
    ) -> bool:
        """Whether every mask of one pattern and amount lies inside some mask of another.

        Then the finer one is at least as accurate, once weights are chosen well. Both patterns'
        families are asked, so a newer one can speak for itself against those that do not know it.

        Args:
            finer: pattern and `kept`, which shall be able to hold the other.
            coarser: pattern and `kept`.
            shape: the weight.
        """
        return False

    # ------------------------------------------------------------------------------------- amounts

    @abstractmethod
    def kept(self, pattern: Pattern, shape: WeightShape, sparsity: float) -> int:
        """Counts the units that a mask of that sparsity keeps, per group or in the whole layer.

        Sparsities of equal `kept` are one structure; one that keeps as many as 0 does prunes nothing.
        """

    @abstractmethod
    def kept_weights(self, pattern: Pattern, shape: WeightShape, kept: int) -> int:
        """Counts the weights that are left where `kept` units are: the least number, where masks
        of one amount differ. Work follows: two operations per weight, output pixel and sample.
        """

    def achieved(self, pattern: Pattern, shape: WeightShape, sparsity: float) -> float:
        """Gives the fraction of units that a mask of that sparsity really prunes, rounding done."""
        full = self.kept(pattern, shape, 0.0)
        return 1.0 - self.kept(pattern, shape, sparsity) / full if full else 0.0

    def why_not_sparsity(self, pattern: Pattern, sparsity: float) -> str:
        """Says why a pattern cannot have a sparsity; empty if it can."""
        return ""

    def why_not_criterion(self, pattern: Pattern, criterion: Criterion) -> str:
        """Says why units of a pattern cannot be scored by a criterion; empty if they can."""
        return ""

    # --------------------------------------------------------------------------------------- masks

    @abstractmethod
    def mask(
        self,
        weight: Array,
        pattern: Pattern,
        sparsity: float,
        *,
        criterion: Criterion = "l1",
        scores: Array | None = None,
        alpha: float = 1.0,
    ) -> BoolArray:
        """Chooses which weights live: bool of the weight's shape.

        Args:
            weight: OIHW or OI.
            pattern: of this family.
            sparsity: fraction of units to prune.
            criterion: importance of a unit.
            scores: importance of every unit, shaped as the family's; None computes it.
            alpha: weight of the redundancy in ``bpar``; others do without.
        """

    @abstractmethod
    def violation(self, mask: BoolArray, pattern: Pattern) -> str | None:
        """Gives the first rule of `pattern` that `mask` breaks, naming the group; None if none."""

    @abstractmethod
    def groups(
        self, pattern: Pattern, shape: WeightShape, outputs: IntArray | None = None
    ) -> tuple[Group, ...]:
        """Gives who shares what in a weight: together, every group and unit that a mask may keep.

        Args:
            pattern: of this family.
            shape: the weight.
            outputs: outputs that are left, where the family prunes whole ones first; None is all.
        """

    @abstractmethod
    def random(
        self, pattern: Pattern, shape: WeightShape, sparsity: float, generator: np.random.Generator
    ) -> BoolArray:
        """Draws a mask of that sparsity, every one as likely as any other: bool of `shape`."""

    # ----------------------------------------------------------------------- structure of real zeros

    @abstractmethod
    def sparsity_of(self, weight: Array, pattern: Pattern) -> float:
        """Gives the fraction of a pattern's units that hold no weight but zeros."""

    @abstractmethod
    def find(self, weight: Array) -> tuple[Found, ...]:
        """Finds the patterns that a weight's own zeros follow, best first, whoever made them.

        Each must cover all non-zeros; those that prune nothing are left out.
        """

    @abstractmethod
    def contract(self, pattern: Pattern) -> Contract:
        """Gives what a kernel must be able to run; see `Contract`."""


class UnitFamily(AbstractFamily):
    """A family whose units are fixed by pattern and shape alone, as soft, regrowing masks need."""

    @abstractmethod
    def units(self, pattern: Pattern, shape: WeightShape) -> tuple[int, int]:
        """Gives groups and units per group: the shape of scores."""

    @abstractmethod
    def scores(
        self, weight: Array, pattern: Pattern, criterion: Criterion, *, alpha: float = 1.0
    ) -> Array:
        """Gives the importance of every unit, ``[groups, units]``; higher is kept longer.

        Every criterion ranks units of every size. Of units of a single weight, all three agree: the
        norms are its size, and under ``bpar`` any two of a group point alike.
        """

    @abstractmethod
    def expand(self, units: BoolArray, shape: WeightShape, pattern: Pattern) -> BoolArray:
        """Spreads kept units, shaped as `scores`, over a weight: bool of `shape`."""

    @abstractmethod
    def reduce(self, mask: BoolArray, pattern: Pattern) -> BoolArray:
        """Gives which units keep anything, shaped as `scores`."""

    def rows(self, scores: Array, pattern: Pattern) -> Array:
        """Arranges scores in rows within which units compete: the groups, or the whole layer."""
        return scores if pattern.uniform else scores.reshape(1, -1)

    def choose(self, scores: Array, pattern: Pattern, sparsity: float) -> BoolArray:
        """Keeps the highest units of every row; of equals, the later ones."""
        rows = self.rows(scores, pattern)
        kept = highest_per_group(rows, kept_blocks(rows.shape[1], sparsity))
        return kept.reshape(scores.shape)

    def kept(self, pattern: Pattern, shape: WeightShape, sparsity: float) -> int:
        """Counts the units of a row that a mask of that sparsity keeps."""
        groups, units = self.units(pattern, shape)
        return kept_blocks(units if pattern.uniform else groups * units, sparsity)

    def mask(
        self,
        weight: Array,
        pattern: Pattern,
        sparsity: float,
        *,
        criterion: Criterion = "l1",
        scores: Array | None = None,
        alpha: float = 1.0,
    ) -> BoolArray:
        """Keeps the units of the highest scores."""
        if scores is None:
            scores = self.scores(weight, pattern, criterion, alpha=alpha)
        return self.expand(self.choose(scores, pattern, sparsity), weight.shape, pattern)

    def random(
        self, pattern: Pattern, shape: WeightShape, sparsity: float, generator: np.random.Generator
    ) -> BoolArray:
        """Keeps units of every row at random."""
        kept = np.zeros(self.units(pattern, shape), dtype=bool)
        for row in self.rows(kept, pattern):  # views
            row[generator.permutation(row.size)[: kept_blocks(row.size, sparsity)]] = True
        return self.expand(kept, shape, pattern)

    def sparsity_of(self, weight: Array, pattern: Pattern) -> float:
        """Gives the fraction of units that hold no weight but zeros."""
        return 1.0 - float(self.reduce(weight != 0, pattern).mean())


# ---------------------------------------------------------------------------------------- registry

_FAMILIES: dict[str, AbstractFamily] = {}
_F = TypeVar("_F", bound=type[AbstractFamily])


def register(family: _F) -> _F:
    """Adds a family to the registry, under its file's name."""
    family.name = family.__module__.rsplit(".", 1)[-1]
    _FAMILIES[family.name] = family()
    return family


@functools.cache
def all_families() -> Mapping[str, AbstractFamily]:
    """Gives every family by name."""
    folder = importlib.import_module("autosparse.patterns.families")
    for file in sorted(module.name for module in pkgutil.iter_modules(folder.__path__)):
        importlib.import_module(f"{folder.__name__}.{file}")
    return _FAMILIES


def named(name: str) -> AbstractFamily:
    """Gives a family by its name.

    Raises:
        PlanError: there is none of that name.
    """
    known = all_families()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise PlanError(
            f"a pattern must belong to a family of {', '.join(known)}, but got {name!r}{hint}"
        )
    return known[name]


def family_of(pattern: Pattern) -> AbstractFamily:
    """Gives the family that a pattern belongs to.

    Raises:
        PlanError: there is none, or the pattern makes no sense in it.
    """
    family = named(pattern.family)
    if flaw := family.flaw(pattern):
        raise PlanError(f"a pattern must belong to its family, but got {family.label(pattern)}: {flaw}")
    return family


def finest_first(patterns: Iterable[Pattern]) -> list[Pattern]:
    """Gives distinct patterns by rising rank; of equals, by name."""
    return sorted(set(patterns), key=lambda pattern: (family_of(pattern).rank(pattern), pattern.name))


def unit_family_of(pattern: Pattern) -> UnitFamily:
    """Gives the family of a pattern whose units can be pruned and regrown one by one.

    Raises:
        PlanError: units of its family are known only once weights are.
    """
    family = family_of(pattern)
    if not isinstance(family, UnitFamily):
        raise PlanError(
            f"soft masks regrow units that are known beforehand, but those of {pattern.name} follow "
            "from the weights"
        )
    return family


def is_at_least_as_accurate(
    one: tuple[Pattern, int], other: tuple[Pattern, int], shape: WeightShape
) -> bool:
    """Whether a pattern and amount can keep whatever another keeps; dense can, always.

    Args:
        one: pattern and `AbstractFamily.kept`.
        other: the same, of what shall be kept.
        shape: the weight.
    """
    if one[0].is_dense:
        return True
    if one[0] == other[0]:
        return one[1] >= other[1]
    asked = (family_of(pattern) for pattern in (one[0], other[0]))
    return any(family.embeds(one, other, shape) for family in asked)
