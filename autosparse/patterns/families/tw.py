"""TW, tile-wise: outputs are pruned, survivors regrouped in tiles, then runs of inputs per tile."""

from __future__ import annotations

import itertools
import re

import numpy as np

from autosparse.patterns.family import Found, Worked, register
from autosparse.patterns.pattern import Pattern, WeightShape
from autosparse.patterns.structure import CANDIDATES, Array, BoolArray
from autosparse.patterns.tiles import to_columns, unit_starts
from autosparse.patterns.tilewise import ORDER, TileWiseFamily, left_of

_LABEL = re.compile(r"tw([1-9]\d*)(?:k([1-9]\d*))?(-ranked)?(-inputs)?")
_TILES = (256, 128, *(size for size in CANDIDATES if size > 1))


@register
class TwFamily(TileWiseFamily):
    """Tiles of G surviving outputs by runs of inputs, dense inside: irregular between tiles alone.

    Source: Guo et al., "Accelerating Sparse DNN Models without Hardware-Support via Tile-Wise
    Sparsity", SC'20, and its release: outputs first, then rows of tiles; both prune
    ``1 - sqrt(1 - s)`` (tw2), or inputs alone prune ``s`` (tw1). A unit scores the L2 norm of the
    scores of its weights over their number.
    Differs: the sparsity is a layer's own, where the source ranks units of many layers at once
    (`autosparse.plans.ranking`), so tiles keep equally many units unless ``-ranked``; runs may be of
    several inputs (``k8``); ``l1`` takes the mean of absolute values; a score is divided by the outputs
    that survive in a tile, in the release by all that it spans. The step of outputs ranks them by
    the same criterion.
    """

    example = "tw64"

    def of(self, pattern: Pattern) -> Pattern:
        """Gives the pattern of tiles, dense inside."""
        return tw(pattern.group_out, pattern.unit_in, uniform=pattern.uniform, split=pattern.split)

    def label(self, pattern: Pattern) -> str:
        """Writes ``tw64``, with ``k8`` for runs, ``-ranked`` and ``-inputs``."""
        runs = "" if pattern.unit_in == 1 else f"k{pattern.unit_in}"
        return f"tw{pattern.group_out}{runs}{self.suffix(pattern)}"

    def parse(self, label: str) -> Pattern | None:
        """Reads what `label` writes."""
        match = _LABEL.fullmatch(label)
        if match is None or match[2] == "1":
            return None
        split = "inputs" if match[4] else "even"
        return tw(int(match[1]), int(match[2] or 1), uniform=not match[3], split=split)

    def worked(self) -> tuple[Worked, ...]:
        """Gives both splits of a weight at sparsity 0.75, in tiles of two outputs.

        Even: each step prunes 1 - sqrt(1/4) = 1/2. Outputs sum to 10, 5, 12, 9, 5, 10, so 0, 2 and 5
        survive. Tile (0, 2) sums to 8, 3, 2, 9 over the inputs and keeps 0 and 3; tile (5), the short
        last one, keeps 1 and 2 of 1, 5, 3, 1. Inputs alone prune 3/4: tiles (0, 1), (2, 3) and (4, 5)
        keep the largest of 6, 2, 2, 5, of 5, 6, 3, 7 and of 2, 6, 5, 2.
        """
        weight = np.array(
            [[4, 1, 1, 4], [2, 1, 1, 1], [4, -2, 1, 5], [1, 4, 2, 2], [1, 1, -2, 1], [1, 5, 3, -1]]
        ).astype(float)
        even, inputs = np.zeros((2, 6, 4), dtype=bool)
        even[np.ix_([0, 2], [0, 3])] = even[5, 1:3] = True
        inputs[:2, 0] = inputs[2:4, 3] = inputs[4:, 1] = True
        return tuple(
            Worked(
                weight=weight,
                pattern=tw(2, split=split),
                sparsity=0.75,
                mask=mask,
                source=f"SC'20, tile-wise sparsity, as {variant} of its release",
            )
            for split, mask, variant in (("even", even, "tw2"), ("inputs", inputs, "tw1"))
        )

    def find(self, weight: Array) -> tuple[Found, ...]:
        """Finds tiles in the zeros, largest first: outputs of one tile read the same.

        Where outputs change what they read, tiles end, which one pass over the weight shows.
        """
        columns = to_columns(weight) != 0
        if columns.all() or not columns.any():
            return ()
        split = "inputs" if columns.any(axis=1).all() else "even"
        rows = columns[left_of(columns, tw(1, split=split))]
        changes = np.flatnonzero((rows[1:] != rows[:-1]).any(axis=1)) + 1
        every = int(np.gcd.reduce(changes)) if changes.size else 0
        tiles = [size for size in _TILES if size <= len(weight) and every % size == 0]
        if not tiles:
            return ()
        sparsity = self.sparsity_of(weight, tw(1))
        return tuple(
            Found(tw(tile, run, uniform=uniform, split=split), sparsity)
            for tile, (run, uniform) in itertools.product(tiles, _runs(rows[:: tiles[0]], weight.shape))
        )


def _runs(rows: BoolArray, shape: WeightShape) -> list[tuple[int, bool]]:
    """Gives the runs, largest first, in which tiles keep inputs, and whether all keep equally many.

    Args:
        rows: one output of every tile, ``[tiles, columns]``.
        shape: the weight.
    """
    runs = []
    for run in (size for size in CANDIDATES if size <= shape[1]):
        starts = unit_starts(shape, run)
        some = np.logical_or.reduceat(rows, starts, axis=1)
        if np.array_equal(some, np.logical_and.reduceat(rows, starts, axis=1)):
            counts = np.count_nonzero(some, axis=1)
            runs.append((run, bool((counts == counts[0]).all())))
    return runs


def tw(group_out: int, unit_in: int = 1, *, uniform: bool = True, split: str = "even") -> Pattern:
    """Gives the pattern of tiles of `group_out` outputs by runs of `unit_in` inputs."""
    return Pattern(
        family="tw",
        group_out=group_out,
        unit_in=unit_in,
        uniform=uniform,
        order=ORDER,
        split=split,
    )
