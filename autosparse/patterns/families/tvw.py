"""TVW, tile-vector-wise: TW, and N of M consecutive inputs of those that a tile keeps."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Sequence

import numpy as np

from autosparse.patterns.family import Found, Worked, register
from autosparse.patterns.pattern import Pattern, WeightShape
from autosparse.patterns.structure import CANDIDATES, Array, BoolArray, group_count
from autosparse.patterns.tiles import kept_inside, nm_groups, to_columns, unit_sizes, unit_starts
from autosparse.patterns.tilewise import ORDER, TileWiseFamily, left_of

_LABEL = re.compile(r"tvw([1-9]\d*)(?:k([1-9]\d*))?(?:-([1-9]\d*):([1-9]\d*))?(-ranked)?(-inputs)?")
_TILES = (256, 128, *(size for size in CANDIDATES if size > 1))
_HALF = (2, 4)


@register
class TvwFamily(TileWiseFamily):
    """TW with N:M inside, 2:4 unless it says else; the tiles prune ``1 - (1 - s) * M / N``.

    N:M is over M consecutive columns of those that a tile keeps, as a kernel sees them once they are
    gathered; what is 2:4 in the order of the layer is not 2:4 there. A tail of fewer than M keeps N
    too, or all it has.

    Source: Guo et al., arXiv 2402.10876: TW for tiles in memory, 2:4 for sparse tensor cores.
    Differs: as `tw` differs; tiles keep any number of columns, and kernels fill the last M up.
    """

    example = "tvw64"
    counted = "weights per output"

    def of(self, pattern: Pattern) -> Pattern:
        """Gives the pattern of tiles with N:M inside; 2:4 where there is none that makes sense."""
        sound = pattern.nm is not None and 1 <= pattern.nm[0] < pattern.nm[1]
        return tvw(
            pattern.group_out,
            pattern.unit_in,
            inside=pattern.nm if sound and pattern.nm else _HALF,
            uniform=pattern.uniform,
            split=pattern.split,
        )

    def flaw(self, pattern: Pattern) -> str:
        """Refuses what has no N:M inside, too."""
        if pattern.nm is None or not 1 <= pattern.nm[0] < pattern.nm[1]:
            return f"tvw has N of M inside, 1 <= N < M, but nm is {pattern.nm}"
        return super().flaw(pattern)

    def label(self, pattern: Pattern) -> str:
        """Writes ``tvw64``, with ``k8`` for runs, ``-1:4`` for other than 2:4, and as `tw` does."""
        runs = "" if pattern.unit_in == 1 else f"k{pattern.unit_in}"
        kept = pattern.nm or _HALF
        inside = "" if kept == _HALF else f"-{kept[0]}:{kept[1]}"
        return f"tvw{pattern.group_out}{runs}{inside}{self.suffix(pattern)}"

    def parse(self, label: str) -> Pattern | None:
        """Reads what `label` writes."""
        match = _LABEL.fullmatch(label)
        if match is None or match[2] == "1":
            return None
        inside = (int(match[3]), int(match[4])) if match[3] else _HALF
        if inside[0] >= inside[1] or (match[3] and inside == _HALF):
            return None
        split = "inputs" if match[6] else "even"
        runs = int(match[2] or 1)
        return tvw(int(match[1]), runs, inside=inside, uniform=not match[5], split=split)

    def worked(self) -> tuple[Worked, ...]:
        """Gives a weight at sparsity 0.75 in which gathering moves inputs into other fours.

        Tiles prune 1 - 1/4 * 2 = 1/2 of the inputs: the one tile sums to 12, 8, 2, 13, 2, 14, 2, 3 and
        keeps 0, 1, 3 and 5, which are one four. Output 0 has 9, 4, 8, 6 there and keeps 0 and 3, output
        1 has 3, 4, 5, 8 and keeps 3 and 5. In the order of the layer, input 5 would stay for output 0
        too, the best of inputs 4 to 7.
        """
        weight = np.array([[9.0, -4, 1, 8, 1, 6, 1, -1], [3.0, 4, 1, -5, 1, 8, 1, 2]])
        kept = np.array([[1, 0, 0, 1, 0, 0, 0, 0], [0, 0, 0, 1, 0, 1, 0, 0]], dtype=bool)
        pattern = tvw(2, split="inputs")
        source = "arXiv 2402.10876: TW, and 2:4 within the columns that are left"
        return (Worked(weight=weight, pattern=pattern, sparsity=0.75, mask=kept, source=source),)

    def of_tile(self, tile: BoolArray, pattern: Pattern, shape: WeightShape) -> tuple[str, int | None]:
        """Says what is wrong with N:M in one tile, and counts the weights that each output keeps.

        A column that all rows pruned cannot be told from one that the tile did not keep. So the rules
        are those that hold whichever it was: rows keep equally many, no more than N:M leaves of all
        columns, in no more groups than so many weights fill.
        """
        assert pattern.nm is not None  # `flaw` refuses others
        kept = np.count_nonzero(tile, axis=1)
        count = int(kept[0])
        if (kept != count).any():
            return "has outputs that keep unequal numbers of inputs", None
        groups = group_count(count, pattern.nm[0])
        live = np.logical_or.reduceat(tile.any(axis=0), unit_starts(shape, pattern.unit_in))
        columns = np.repeat(live, unit_sizes(shape, pattern.unit_in))
        fits = (
            count <= kept_inside(tile.shape[1], pattern.nm)
            and np.count_nonzero(columns) <= groups * pattern.nm[1]
            and sum(1 for _ in nm_groups(tile[:, columns], pattern.nm)) <= groups
        )
        inside = f"is not {pattern.nm[0]}:{pattern.nm[1]} over the inputs that it keeps"
        return "" if fits else inside, None if shape[1] % pattern.unit_in else count

    def find(self, weight: Array) -> tuple[Found, ...]:
        """Finds 2:4 in tiles of the zeros, largest first; nothing where outputs in pairs read the same.

        What holds for a tile holds for its halves, and what holds for runs, for theirs.
        """
        mask = weight != 0
        columns = to_columns(mask)
        if columns.all() or not columns.any():
            return ()
        split = "inputs" if columns.any(axis=1).all() else "even"
        rows = columns[left_of(columns, tvw(1, split=split))]
        counts = np.count_nonzero(rows, axis=1)
        pairs = rows[: len(rows) // 2 * 2]
        if counts.max() > kept_inside(rows.shape[1], _HALF) or (pairs[::2] == pairs[1::2]).all():
            return ()
        pattern = tvw(1, uniform=bool((counts == counts[0]).all()), split=split)
        tiles = self._fitting(mask, pattern, "group_out", [t for t in _TILES if t <= len(weight)])
        if not tiles:
            return ()
        wide = dataclasses.replace(pattern, group_out=tiles[0])
        widths = [run for run in CANDIDATES if run <= weight.shape[1]]
        runs = self._fitting(mask, wide, "unit_in", widths)
        sparsity = self.sparsity_of(weight, pattern)
        return tuple(
            Found(dataclasses.replace(pattern, group_out=tile, unit_in=run), sparsity)
            for tile, run in itertools.product(tiles, runs)
        )

    def _fitting(
        self, mask: BoolArray, pattern: Pattern, field: str, sizes: Sequence[int]
    ) -> Sequence[int]:
        """Gives the sizes, falling, of which one field of a pattern may be for a mask to follow it."""
        patterns = (Pattern.from_json(pattern.to_json() | {field: size}) for size in sizes)
        able = (at for at, each in enumerate(patterns) if not self.violation(mask, each))
        return sizes[next(able, len(sizes)) :]


def tvw(
    group_out: int,
    unit_in: int = 1,
    *,
    inside: tuple[int, int] = _HALF,
    uniform: bool = True,
    split: str = "even",
) -> Pattern:
    """Gives the pattern of tiles of `group_out` outputs by runs of `unit_in` inputs, N:M inside."""
    return Pattern(
        family="tvw",
        group_out=group_out,
        unit_in=unit_in,
        uniform=uniform,
        order=ORDER,
        nm=inside,
        split=split,
    )
