"""Which ways to run a layer are worth timing, decided from rows and bounds alone.

Nothing random and no clock takes part, so the same rows always lead to the same decisions: a tuning
that was killed goes on where it was, and a second one asks only for rows that are there already.

Per distinct shape, dense first:

1. Every dense kernel is timed against the best so far, and given up once its interval lies above it.
2. For each N all kernels race at one *anchor* sparsity near 75 %; those clearly behind are dropped.
3. The finalists race at the other sparsities, sparsest first. A sparsity is left out if the roofline
   says that it cannot beat a choice at least as accurate (dense, or a smaller N dividing this one,
   pruned no more), or if this N was slower than dense with even more pruned.
4. What was learnt serves later shapes: kernels of narrower vectors that lost clearly on the first
   shapes are not tried on the rest of their kind (those of few pixels are a kind of their own), and
   layers that differ in their epilogue alone share finalists.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from autosparse.errors import NoKernel
from autosparse.kernels import spec
from autosparse.kernels.spec import KernelSpec
from autosparse.records import (
    DENSE,
    LayerShape,
    Measurement,
    Pattern,
    Status,
    kept_blocks,
    onexn,
)
from autosparse.tuning.roofline import Roofline

ANCHOR = 0.75
# A kernel whose interval begins this far above the winner's end is out of the race.
BEHIND = 1.15
# Kernels that go on from the anchor at most.
FINALISTS = 3
# Shapes on which kernels of narrower vectors must lose before they are left out, and by how much.
SCOUTS = 2
OUTCLASSED = 1.3

_FEW_PIXELS = 16

BOUND = "the roofline rules out that it wins"
SLOWER = "slower than dense with even more pruned"
LOST = "another kernel won clearly at the anchor sparsity"
SIBLING = "another kernel won clearly on the same layer with another epilogue"
NARROW = "narrower vectors lost clearly on other shapes"
NO_BLOCK = "the sparsity prunes no block of so few inputs"
NO_TIME = "the time budget was used up"
FAILED = "no kernel worked at the anchor sparsity"

_ISA_RANK = {"generic": 0, "avx2": 1, "avx512": 2, "avx512bf16": 3, "amx": 4}


@dataclass(frozen=True, slots=True)
class Option:
    """One way to run one shape: a structure and a kernel."""

    shape: LayerShape
    pattern: Pattern
    kept: int
    sparsity: float
    kernel: KernelSpec


@dataclass(frozen=True, slots=True)
class Step:
    """A sparsity of the grid, or several that keep equally many blocks of this shape."""

    kept: int
    sparsities: tuple[float, ...]


Ask = Callable[[Option, float | None], Measurement | None]
"""Gives the row of an option, measured if need be against a rival; None once time is used up."""


class Catalogue:
    """Which kernels there are, and by which sources.

    Args:
        kernels_for: gives the kernels that can run a layer here in a dtype, or raises `NoKernel`.
        source_hash: gives the hash of a kernel's sources.
        dtype: arithmetic type that they compute in.
        compact_weights: leaves out kernels that expand weights.
    """

    def __init__(
        self,
        kernels_for: Callable[[LayerShape, Pattern, str], tuple[KernelSpec, ...]] = spec.kernels_for,
        source_hash: Callable[[KernelSpec], str] = spec.source_hash,
        dtype: str = "f32",
        *,
        compact_weights: bool = False,
    ) -> None:
        self._dtype = dtype
        self._compact_weights = compact_weights
        self._kernels_for = kernels_for
        self._able: dict[tuple[LayerShape, Pattern], tuple[KernelSpec, ...]] = {}
        self.source_hash = source_hash

    def kernels(self, shape: LayerShape, pattern: Pattern) -> tuple[KernelSpec, ...]:
        """Gives the kernels that can run a layer here, widest vectors first; empty if none can."""
        if (shape, pattern) not in self._able:
            try:
                able = self._kernels_for(shape, pattern, self._dtype)
            except NoKernel:
                able = ()
            if self._compact_weights:
                able = tuple(kernel for kernel in able if not kernel.expands_weights)
            self._able[shape, pattern] = tuple(sorted(able, key=lambda kernel: -_rank(kernel)))
        return self._able[shape, pattern]


def _rank(kernel: KernelSpec) -> int:
    return _ISA_RANK.get(kernel.isa, 0)


def steps(shape: LayerShape, sparsities: Iterable[float]) -> tuple[Step, ...]:
    """Groups sparsities by the blocks that they keep, sparsest first; also those that prune nothing."""
    groups: dict[int, list[float]] = defaultdict(list)
    for sparsity in sorted(set(sparsities)):
        groups[kept_blocks(shape.in_channels, sparsity)].append(sparsity)
    return tuple(Step(kept, tuple(groups[kept])) for kept in sorted(groups))


@dataclass(slots=True)
class Rows:
    """The good rows of one shape, by N (0 for dense) and kept blocks."""

    by_structure: dict[tuple[int, int], list[Measurement]] = field(default_factory=dict)

    def best(self, block_n: int, kept: int) -> Measurement | None:
        """Gives the fastest row of one structure, None without any."""
        return fastest(self.by_structure.get((block_n, kept), ()))

    def as_accurate(self, block_n: int, kept: int) -> list[Measurement]:
        """Gives the fastest rows of all structures that lose no more accuracy than this one must.

        Whatever 1xN keeps, 1xM with M dividing N can keep too. So dense, and every such M that keeps as
        much or more, is at least as accurate.
        """
        found = [
            self.best(n, k)
            for n, k in self.by_structure
            if n == 0 or (block_n % n == 0 and k >= kept and (n, k) != (block_n, kept))
        ]
        return [row for row in found if row is not None]


def fastest(rows: Iterable[Measurement]) -> Measurement | None:
    """Gives the row with the least median; of equals the first by name."""
    return min(rows, key=lambda row: (_median(row), row.key.kernel), default=None)


class Narrowing:
    """Decides, asks, and keeps account.

    Args:
        ask: gives rows.
        roofline: gives bounds; None decides without them.
        catalogue: which kernels there are.
        advance: called with the number of options settled.
    """

    def __init__(
        self,
        ask: Ask,
        roofline: Roofline | None,
        catalogue: Catalogue,
        advance: Callable[[int], None] = lambda count: None,
    ) -> None:
        self._ask = ask
        self._roofline = roofline
        self._catalogue = catalogue
        self._advance = advance
        self._scouted: dict[tuple[int, str, bool], list[bool]] = defaultdict(list)
        self._finalists: dict[tuple[str, int], tuple[str, ...]] = {}
        self.rows: dict[str, Rows] = defaultdict(Rows)
        self.skipped: Counter[str] = Counter()
        self.out_of_time: set[str] = set()

    def dense(self, shape: LayerShape) -> None:
        """Finds the fastest dense kernel."""
        options = self._options(shape, DENSE, Step(-1, (0.0,)))
        self._race_and_learn(options, rival=None)

    def sparse(self, shape: LayerShape, block_n: int, sparsities: Sequence[float]) -> None:
        """Finds the fastest kernel of every sparsity of one N that can be of use."""
        pattern = onexn(block_n)
        todo = []
        for step in steps(shape, sparsities):
            options = self._options(shape, pattern, step)
            if step.kept == shape.in_channels:
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
                self._follow(shape, block_n, step.kept, options)

    def at(self, shape: LayerShape, block_n: int, sparsity: float) -> Measurement | None:
        """Finds the fastest kernel of one N at one sparsity, be it of use or not.

        The first call of an N races all kernels, later ones its finalists against dense.

        Returns:
            Its row; None if no kernel worked or time is used up.
        """
        pattern = onexn(block_n)
        [step] = steps(shape, (sparsity,))
        dense = self.rows[shape.key].best(DENSE.group_out, -1)
        raced = (_core(shape), block_n) in self._finalists
        rival = _high(dense) if raced and dense is not None else None
        self._race_and_learn(self._options(shape, pattern, step), rival)
        return self.rows[shape.key].best(block_n, step.kept)

    def _follow(self, shape: LayerShape, block_n: int, kept: int, options: list[Option]) -> None:
        """Races the anchor's finalists at another sparsity."""
        if self._is_slower_than_dense(shape, block_n, kept):
            self._skip(options, SLOWER)
        elif self._is_ruled_out(options):
            self._skip(options, BOUND)
        elif (_core(shape), block_n) not in self._finalists:
            self._skip(options, NO_TIME if shape.key in self.out_of_time else FAILED)
        else:
            finalists = self._finalists[_core(shape), block_n]
            self._skip([o for o in options if o.kernel.name not in finalists], LOST)
            rivals = self.rows[shape.key].as_accurate(block_n, kept)
            racers = [o for o in options if o.kernel.name in finalists]
            racers.sort(key=lambda option: finalists.index(option.kernel.name))
            self._race(racers, min((_high(row) for row in rivals), default=None))

    # ---------------------------------------------------------------------------------- races

    def _race_and_learn(self, options: list[Option], rival: float | None) -> None:
        """Races all kernels of a structure, or the finalists if a sibling's race is known."""
        if not options:
            return
        place = (_core(options[0].shape), options[0].pattern.group_out)
        if place in self._finalists:
            known = self._finalists[place]
            self._skip([o for o in options if o.kernel.name not in known], SIBLING)
            self._race([o for o in options if o.kernel.name in known], rival)
            return
        outclassed = [o for o in options if self._is_outclassed(o, _rank(options[0].kernel))]
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
                structure = (option.pattern.group_out, option.kept)
                self.rows[option.shape.key].by_structure.setdefault(structure, []).append(row)
        return found

    def _scout(self, options: list[Option], found: list[Measurement], best: Measurement) -> None:
        """Notes which instruction sets were far behind in a race of all kernels."""
        if options[0].shape.key in self.out_of_time:
            return
        isa_of = {option.kernel.name: option.kernel.isa for option in options}
        widest = _rank(options[0].kernel)
        for isa in {o.kernel.isa for o in options if _rank(o.kernel) < widest}:
            rows = [row for row in found if isa_of[row.key.kernel] == isa]
            lost = all(_low(row) > OUTCLASSED * _high(best) for row in rows)
            option = next(option for option in options if option.kernel.isa == isa)
            self._scouted[_territory(option)].append(lost)

    # -------------------------------------------------------------------------------- decisions

    def _is_outclassed(self, option: Option, widest: int) -> bool:
        if _rank(option.kernel) >= widest:
            return False
        scouted = self._scouted[_territory(option)]
        return len(scouted) >= SCOUTS and all(scouted[:SCOUTS])

    def _is_ruled_out(self, options: list[Option]) -> bool:
        """Whether no kernel can make this structure faster than one at least as accurate."""
        if not options:
            return False
        one = options[0]
        bound = min(self._bound_us(option) for option in options)
        rivals = self.rows[one.shape.key].as_accurate(one.pattern.group_out, one.kept)
        return any(bound >= _median(row) for row in rivals)

    def _is_slower_than_dense(self, shape: LayerShape, block_n: int, kept: int) -> bool:
        rows = self.rows[shape.key]
        dense = rows.best(0, -1)
        sparser = [rows.best(n, k) for n, k in rows.by_structure if n == block_n and 0 <= k < kept]
        return dense is not None and any(
            row is not None and _low(row) > _high(dense) for row in sparser
        )

    def _bound_us(self, option: Option) -> float:
        if self._roofline is None:
            return 0.0
        return self._roofline.bound_us(option.shape, option.kept, option.kernel)

    def _options(self, shape: LayerShape, pattern: Pattern, step: Step) -> list[Option]:
        """Gives all kernels for one structure: widest vectors, then least bound first."""
        kernels = self._catalogue.kernels(shape, pattern)
        options = [Option(shape, pattern, step.kept, step.sparsities[0], each) for each in kernels]
        return sorted(options, key=lambda option: (-_rank(option.kernel), self._bound_us(option)))

    def _skip(self, options: Sequence[Option], reason: str) -> None:
        if options:
            self.skipped[reason] += len(options)
            self._advance(len(options))


def _finalists(found: list[Measurement], best: Measurement) -> tuple[str, ...]:
    near = [row for row in found if _low(row) <= BEHIND * _high(best)]
    near.sort(key=lambda row: (_median(row), row.key.kernel))
    return tuple(row.key.kernel for row in near[:FINALISTS])


def _territory(option: Option) -> tuple[int, str, bool]:
    """Gives what a scouted race speaks for: layers of few pixels leave wide vectors half empty."""
    few = option.shape.out_height * option.shape.out_width < _FEW_PIXELS
    return option.pattern.group_out, option.kernel.isa, few


def _core(shape: LayerShape) -> str:
    return dataclasses.replace(shape, activation="none", residual=False).key


def _median(row: Measurement) -> float:
    assert row.median_us is not None
    return row.median_us


def _low(row: Measurement) -> float:
    return _median(row) if row.ci_low_us is None else row.ci_low_us


def _high(row: Measurement) -> float:
    return _median(row) if row.ci_high_us is None else row.ci_high_us
