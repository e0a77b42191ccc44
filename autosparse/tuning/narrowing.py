"""Which ways to run a layer are worth timing, decided from rows and bounds alone.

Nothing random and no clock takes part, so the same rows always lead to the same decisions: a tuning
that was killed goes on where it was, and a second one asks only for rows that are there already.

Per distinct shape, dense first:

1. Every dense kernel is timed against the best so far, and given up once its interval lies above it.
2. For each pattern, finest first, all kernels race at one *anchor* sparsity near 75 %; those clearly
   behind are dropped.
3. The finalists race at the other sparsities, sparsest first. A sparsity is left out if the roofline
   says that it cannot beat a choice at least as accurate (dense, or a pattern that can keep whatever
   this one keeps), or if this pattern was slower than dense with even more pruned.
4. What was learnt serves later shapes: kernels of lower tiers (narrower vectors) that lost clearly on
   the first shapes are not tried on the rest of their kind (those of few pixels are a kind of their
   own), and layers that differ in their epilogue alone share finalists.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from autosparse.devices.device import Bounds, Device, Kernel
from autosparse.errors import NoKernel
from autosparse.patterns.family import family_of, is_at_least_as_accurate
from autosparse.records import (
    DENSE,
    Activation,
    LayerShape,
    Measurement,
    Pattern,
    Status,
)

ANCHOR = 0.75
# A kernel whose interval begins this far above the winner's end is out of the race.
BEHIND = 1.15
# Kernels, with launch parameters, that go on from the anchor at most.
FINALISTS = 3
# Shapes on which kernels of a lower tier must lose before they are left out, and by how much.
SCOUTS = 2
OUTCLASSED = 1.3

_FEW_PIXELS = 16

BOUND = "the roofline rules out that it wins"
SLOWER = "slower than dense with even more pruned"
LOST = "another kernel won clearly at the anchor sparsity"
SIBLING = "another kernel won clearly on the same layer with another epilogue"
NARROW = "narrower vectors lost clearly on other shapes"
NO_BLOCK = "the sparsity prunes nothing of a layer so small"
NO_TIME = "the time budget was used up"
UNKNOWN = "nobody has measured it on the recorded device"
FAILED = "no kernel worked at the anchor sparsity"


Variant = tuple[str, str]
"""A kernel's name, and its launch parameters."""


@dataclass(frozen=True, slots=True)
class Option:
    """One way to run one shape: a structure, a kernel and its launch parameters."""

    shape: LayerShape
    pattern: Pattern
    kept: int
    sparsity: float
    kernel: Kernel
    config: str = ""

    @property
    def variant(self) -> Variant:
        """What runs it."""
        return self.kernel.name, self.config

    @property
    def kept_inputs(self) -> int:
        """Inputs that an output reads on average, rounded down; -1 for all."""
        return kept_inputs(self.shape, self.pattern, self.kept)


@dataclass(frozen=True, slots=True)
class Step:
    """A sparsity of the grid, or several that keep as much of this shape.

    Attributes:
        kept: units, as the pattern's family counts them.
        sparsities: ascending.
        prunes: whether anything is pruned.
    """

    kept: int
    sparsities: tuple[float, ...]
    prunes: bool = True


Ask = Callable[[Option, float | None], Measurement | None]
"""Gives the row of an option, measured if need be against a rival; None once time is used up."""


class Catalogue:
    """Which kernels a device has for a layer, and by which sources.

    Args:
        device: whose.
        dtype: arithmetic type that they compute in.
        compact_weights: leaves out kernels that expand weights.
    """

    def __init__(self, device: Device, dtype: str = "f32", *, compact_weights: bool = False) -> None:
        self._device = device
        self._dtype = dtype
        self._compact_weights = compact_weights
        self._able: dict[tuple[LayerShape, Pattern], tuple[Kernel, ...]] = {}

    def source_hash(self, kernel: Kernel) -> str:
        """Gives the hash of what decides a kernel's speed."""
        return self._device.source_hash(kernel)

    def kernels(self, shape: LayerShape, pattern: Pattern) -> tuple[Kernel, ...]:
        """Gives the kernels that can run a layer here, highest tier first; empty if none can."""
        if (shape, pattern) not in self._able:
            try:
                able = tuple(self._device.kernels_for(shape, pattern, self._dtype))
            except NoKernel:
                able = ()
            if self._compact_weights:
                able = tuple(kernel for kernel in able if not kernel.expands_weights)
            self._able[shape, pattern] = tuple(sorted(able, key=lambda kernel: -kernel.tier_rank))
        return self._able[shape, pattern]

    def variants(self, shape: LayerShape, pattern: Pattern) -> list[tuple[Kernel, str]]:
        """Gives those kernels with every choice of launch parameters."""
        return [
            (kernel, config)
            for kernel in self.kernels(shape, pattern)
            for config in self._device.configs(kernel, shape, pattern)
        ]


def steps(shape: LayerShape, pattern: Pattern, sparsities: Iterable[float]) -> tuple[Step, ...]:
    """Groups the sparsities that a pattern can have by what they keep, sparsest first.

    Those that prune nothing are among them.
    """
    family, extents = family_of(pattern), shape.weight_shape
    groups: dict[int, list[float]] = defaultdict(list)
    for sparsity in sorted(set(sparsities)):
        if not family.why_not_sparsity(pattern, sparsity):
            groups[family.kept(pattern, extents, sparsity)].append(sparsity)
    full = family.kept(pattern, extents, 0.0)
    return tuple(Step(kept, tuple(groups[kept]), kept < full) for kept in sorted(groups))


def kept_inputs(shape: LayerShape, pattern: Pattern, kept: int) -> int:
    """Gives the inputs that an output reads on average, rounded down; -1 where it reads all."""
    if pattern.is_dense:
        return -1
    weights = family_of(pattern).kept_weights(pattern, shape.weight_shape, kept)
    return weights // (shape.out_channels * shape.taps)


Structure = tuple[Pattern, int]
"""A pattern and what it keeps, as its family counts."""

_DENSE: Structure = (DENSE, -1)


@dataclass(slots=True)
class Rows:
    """The good rows of one shape, by structure."""

    by_structure: dict[Structure, list[Measurement]] = field(default_factory=dict)

    @property
    def dense(self) -> Measurement | None:
        """The fastest dense row."""
        return self.best(_DENSE)

    def best(self, structure: Structure) -> Measurement | None:
        """Gives the fastest row of one structure, None without any."""
        return fastest(self.by_structure.get(structure, ()))

    def as_accurate(self, structure: Structure, shape: LayerShape) -> list[Measurement]:
        """Gives the fastest rows of all other structures that lose no more accuracy than this must."""
        found = [
            self.best(other)
            for other in self.by_structure
            if other != structure and is_at_least_as_accurate(other, structure, shape.weight_shape)
        ]
        return [row for row in found if row is not None]


def fastest(rows: Iterable[Measurement]) -> Measurement | None:
    """Gives the row with the least median; of equals the first by name."""
    return min(rows, key=_rank, default=None)


class Narrowing:
    """Decides, asks, and keeps account.

    Args:
        ask: gives rows.
        bounds: gives them; None decides without them.
        catalogue: which kernels there are.
        advance: called with the number of options settled.
    """

    def __init__(
        self,
        ask: Ask,
        bounds: Bounds | None,
        catalogue: Catalogue,
        advance: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._ask = ask
        self._bounds = bounds
        self._catalogue = catalogue
        self._advance = advance
        self._scouted: dict[tuple[Pattern, str, bool], list[bool]] = defaultdict(list)
        self._finalists: dict[tuple[str, Pattern], tuple[Variant, ...]] = {}
        self.rows: dict[str, Rows] = defaultdict(Rows)
        self.skipped: Counter[str] = Counter()
        self.out_of_time: set[str] = set()

    def dense(self, shape: LayerShape) -> None:
        """Finds the fastest dense kernel."""
        options = self._options(shape, DENSE, Step(-1, (0.0,)))
        self._race_and_learn(options, rival=None)

    def sparse(self, shape: LayerShape, pattern: Pattern, sparsities: Sequence[float]) -> None:
        """Finds the fastest kernel of every sparsity of one pattern that can be of use."""
        todo = []
        for step in steps(shape, pattern, sparsities):
            options = self._options(shape, pattern, step)
            if not step.prunes:
                self._skip(options, NO_BLOCK)
            elif self._is_ruled_out(options):
                self._skip(options, BOUND)
            else:
                todo.append((step, options))
        if not todo:
            return
        anchor = min(todo, key=lambda entry: (abs(max(entry[0].sparsities) - ANCHOR), entry[0].kept))
        self._race_and_learn(anchor[1], rival=None)
        for step, options in todo:
            if step is not anchor[0]:
                self._follow(shape, (pattern, step.kept), options)

    def at(self, shape: LayerShape, pattern: Pattern, sparsity: float) -> Measurement | None:
        """Finds the fastest kernel of one pattern at one sparsity, be it of use or not.

        The first call of a pattern races all kernels, later ones its finalists against dense.

        Returns:
            Its row; None if no kernel worked or time is used up.
        """
        [step] = steps(shape, pattern, (sparsity,))
        dense = self.rows[shape.key].dense
        raced = (_core(shape), pattern) in self._finalists
        rival = _high(dense) if raced and dense is not None else None
        self._race_and_learn(self._options(shape, pattern, step), rival)
        return self.rows[shape.key].best((pattern, step.kept))

    def _follow(self, shape: LayerShape, structure: Structure, options: list[Option]) -> None:
        """Races the anchor's finalists at another sparsity."""
        place = (_core(shape), structure[0])
        if self._is_slower_than_dense(shape, structure):
            self._skip(options, SLOWER)
        elif self._is_ruled_out(options):
            self._skip(options, BOUND)
        elif place not in self._finalists:
            self._skip(options, NO_TIME if shape.key in self.out_of_time else FAILED)
        else:
            finalists = self._finalists[place]
            self._skip([o for o in options if o.variant not in finalists], LOST)
            rivals = self.rows[shape.key].as_accurate(structure, shape)
            racers = [o for o in options if o.variant in finalists]
            racers.sort(key=lambda option: finalists.index(option.variant))
            self._race(racers, min((_high(row) for row in rivals), default=None))

    # ---------------------------------------------------------------------------------- races

    def _race_and_learn(self, options: list[Option], rival: float | None) -> None:
        """Races all kernels of a structure, or the finalists if a sibling's race is known."""
        if not options:
            return
        place = (_core(options[0].shape), options[0].pattern)
        if place in self._finalists:
            known = self._finalists[place]
            self._skip([o for o in options if o.variant not in known], SIBLING)
            self._race([o for o in options if o.variant in known], rival)
            return
        outclassed = [o for o in options if self._is_outclassed(o, options[0].kernel.tier_rank)]
        self._skip(outclassed, NARROW)
        found = self._race([o for o in options if o not in outclassed], rival)
        if best := fastest(found):
            self._finalists[place] = _finalists(found, best)
            self._scout(options, found, best)

    def _race(self, options: Sequence[Option], rival: float | None) -> list[Measurement]:
        """Asks for one option after another, each against the best so far; gives the good rows."""
        found: list[Measurement] = []
        for option in options:
            best = fastest(found)
            if best is not None and self._bound_us(option) >= _median(best):
                self._skip([option], BOUND)
                continue
            ends = [_high(row) for row in found] + ([] if rival is None else [rival])
            row = self._ask(option, min(ends, default=None))
            if row is None:
                self.out_of_time.add(option.shape.key)
                self._skip([option], NO_TIME)
                continue
            self._advance(1)
            if row.status is Status.OK:
                found.append(row)
                structure = (option.pattern, option.kept)
                self.rows[option.shape.key].by_structure.setdefault(structure, []).append(row)
        return found

    def _scout(self, options: list[Option], found: list[Measurement], best: Measurement) -> None:
        """Notes which tiers were far behind in a race of all kernels."""
        if options[0].shape.key in self.out_of_time:
            return
        tier_of = {option.kernel.name: option.kernel.tier for option in options}
        highest = options[0].kernel.tier_rank
        for tier in {o.kernel.tier for o in options if o.kernel.tier_rank < highest}:
            rows = [row for row in found if tier_of[row.key.kernel] == tier]
            lost = all(_low(row) > OUTCLASSED * _high(best) for row in rows)
            option = next(option for option in options if option.kernel.tier == tier)
            self._scouted[_territory(option)].append(lost)

    # -------------------------------------------------------------------------------- decisions

    def _is_outclassed(self, option: Option, highest: int) -> bool:
        if option.kernel.tier_rank >= highest:
            return False
        scouted = self._scouted[_territory(option)]
        return len(scouted) >= SCOUTS and all(scouted[:SCOUTS])

    def _is_ruled_out(self, options: list[Option]) -> bool:
        """Whether no kernel can make this structure faster than one at least as accurate."""
        if not options:
            return False
        one = options[0]
        bound = min(self._bound_us(option) for option in options)
        rivals = self.rows[one.shape.key].as_accurate((one.pattern, one.kept), one.shape)
        return any(bound >= _median(row) for row in rivals)

    def _is_slower_than_dense(self, shape: LayerShape, structure: Structure) -> bool:
        rows, (pattern, kept) = self.rows[shape.key], structure
        sparser = [rows.best((p, k)) for p, k in rows.by_structure if p == pattern and k < kept]
        dense = rows.dense
        return dense is not None and any(
            row is not None and _low(row) > _high(dense) for row in sparser
        )

    def _bound_us(self, option: Option) -> float:
        if self._bounds is None:
            return 0.0
        return self._bounds.bound_us(option.shape, option.kept_inputs, option.kernel)

    def _options(self, shape: LayerShape, pattern: Pattern, step: Step) -> list[Option]:
        """Gives all variants for one structure: highest tier, then least bound first."""
        variants = self._catalogue.variants(shape, pattern)
        options = [Option(shape, pattern, step.kept, step.sparsities[0], *each) for each in variants]
        return sorted(options, key=lambda option: (-option.kernel.tier_rank, self._bound_us(option)))

    def _skip(self, options: Sequence[Option], reason: str) -> None:
        if options:
            self.skipped[reason] += len(options)
            self._advance(len(options))


def _finalists(found: list[Measurement], best: Measurement) -> tuple[Variant, ...]:
    near = [row for row in found if _low(row) <= BEHIND * _high(best)]
    near.sort(key=_rank)
    return tuple(row.key.variant for row in near[:FINALISTS])


def _territory(option: Option) -> tuple[Pattern, str, bool]:
    """Gives what a scouted race speaks for: layers of few pixels leave wide vectors half empty."""
    few = option.shape.out_height * option.shape.out_width < _FEW_PIXELS
    return option.pattern, option.kernel.tier, few


def _core(shape: LayerShape) -> str:
    return dataclasses.replace(shape, activation=Activation.NONE, residual=False).key


def _rank(row: Measurement) -> tuple[float, Variant]:
    return _median(row), row.key.variant


def _median(row: Measurement) -> float:
    assert row.median_us is not None
    return row.median_us


def _low(row: Measurement) -> float:
    return _median(row) if row.ci_low_us is None else row.ci_low_us


def _high(row: Measurement) -> float:
    return _median(row) if row.ci_high_us is None else row.ci_high_us
