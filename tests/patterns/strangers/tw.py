"""Tile-wise: outputs are pruned, survivors regrouped in tiles of G, then runs of inputs per tile.

With 2:4 inside of what a tile keeps it is TVW. Units follow from the weights: which outputs share a
tile is known only once outputs are pruned.
"""

from __future__ import annotations

import math
import re

import numpy as np

from autosparse.patterns.family import AbstractFamily, Found, register
from autosparse.patterns.pattern import Contract, Pattern, kept_blocks

_LABEL = re.compile(r"t(v?)w([1-9]\d*)k([1-9]\d*)")


def tw(group_out, unit_in, inside=None):
    return Pattern(family="tw", group_out=group_out, unit_in=unit_in, order="survivors", nm=inside)


@register
class TileWiseFamily(AbstractFamily):
    """Two steps of equal shares: ``(1 - s') ** 2 == 1 - s``."""

    example = "tw64k8"

    def label(self, pattern):
        wide = "" if pattern.uniform else "-ranked"
        return f"t{'v' if pattern.nm else ''}w{pattern.group_out}k{pattern.unit_in}{wide}"

    def parse(self, label):
        match = _LABEL.fullmatch(label)
        return tw(int(match[2]), int(match[3]), (2, 4) if match[1] else None) if match else None

    def flaw(self, pattern):
        same = pattern == tw(pattern.group_out, pattern.unit_in, pattern.nm)
        return "" if same and pattern.nm in (None, (2, 4)) else "survivors, equal tiles, 2:4 or nothing"

    def grid(self, shape):
        sizes = [(g, u) for g in (16, 32, 64) for u in (4, 8) if g <= shape[0] and u <= shape[1]]
        return tuple(tw(g, u, inside) for g, u in sizes for inside in (None, (2, 4)))

    def rank(self, pattern):
        return math.log2(pattern.group_out * pattern.unit_in)

    def why_not_sparsity(self, pattern, sparsity):
        return "2:4 alone prunes a half" if pattern.nm and sparsity < 0.5 else ""

    def _shares(self, pattern, shape, sparsity):
        """Outputs kept, and runs of inputs kept per tile."""
        of_tiles = sparsity if pattern.nm is None else max(0.0, 1 - 2 * (1 - sparsity))
        each = 1 - math.sqrt(1 - of_tiles)
        return kept_blocks(shape[0], each), kept_blocks(-(-shape[1] // pattern.unit_in), each)

    def kept(self, pattern, shape, sparsity):
        outputs, runs = self._shares(pattern, shape, sparsity)
        return outputs * (shape[1] + 1) + runs

    def kept_weights(self, pattern, shape, kept):
        outputs, runs = divmod(kept, shape[1] + 1)
        missing = -shape[1] % pattern.unit_in
        inputs = max(0, runs * pattern.unit_in - missing)
        if pattern.nm:
            inputs = 2 * (inputs // 4) + min(2, inputs % 4)
        return outputs * inputs * int(np.prod(shape[2:]))

    def mask(self, weight, pattern, sparsity, *, criterion="l1", scores=None):
        outputs, runs = self._shares(pattern, weight.shape, sparsity)
        size = np.abs(weight).reshape(*weight.shape[:2], -1)
        strongest = np.argsort(size.sum(axis=(1, 2)), kind="stable")[weight.shape[0] - outputs :]
        kept = np.zeros(weight.shape, dtype=bool)
        unit = pattern.unit_in
        for tile in self._tiles(np.sort(strongest), pattern):
            starts = np.arange(0, weight.shape[1], unit)
            share = np.add.reduceat(size[tile].sum(axis=(0, 2)), starts)
            best = np.argsort(share, kind="stable")[len(starts) - runs :]
            inputs = np.concatenate(
                [np.arange(s, min(s + unit, weight.shape[1])) for s in unit * np.sort(best)] or [[]]
            )
            inputs = inputs.astype(int)
            kept[np.ix_(tile, inputs)] = True
            if pattern.nm:
                self._halve(kept, np.abs(weight), tile, inputs)
        return kept

    def _halve(self, kept, size, tile, inputs):
        for output in tile:
            for tap in np.ndindex(size.shape[2:]):
                for first in range(0, len(inputs), 4):
                    four = inputs[first : first + 4]
                    order = np.argsort(size[(output, four, *tap)], kind="stable")
                    kept[(output, four[order[: max(0, len(four) - 2)]], *tap)] = False

    def _tiles(self, survivors, pattern):
        size = pattern.group_out
        return [survivors[first : first + size] for first in range(0, len(survivors), size)]

    def violation(self, mask, pattern):
        live = mask.reshape(*mask.shape[:2], -1).any(axis=2)
        for index, tile in enumerate(self._tiles(np.flatnonzero(live.any(axis=1)), pattern)):
            starts = np.arange(0, live.shape[1], pattern.unit_in)
            runs = np.logical_or.reduceat(live[tile].any(axis=0), starts)
            inputs = np.flatnonzero(np.repeat(runs, pattern.unit_in)[: live.shape[1]])
            inside = mask[np.ix_(tile, inputs)]
            if pattern.nm is None and not inside.all():
                return f"tile {index} has a run that is only partly pruned"
            for first in range(0, len(inputs) if pattern.nm else 0, 4):
                four = inside[:, first : first + 4]
                if (four.sum(axis=1) != min(2, four.shape[1])).any():
                    return f"tile {index} is not 2:4 over the inputs it keeps"
        return None

    def random(self, pattern, shape, sparsity, generator):
        return self.mask(generator.standard_normal(shape), pattern, sparsity)

    def sparsity_of(self, weight, pattern):
        return 1.0 - float((weight != 0).mean())

    def find(self, weight):
        mask = weight != 0
        if mask.all():
            return ()
        able = (p for p in self.grid(weight.shape) if not self.violation(mask, p))
        return tuple(Found(p, self.sparsity_of(weight, p)) for p in able)

    def contract(self, pattern):
        return Contract("tw", pattern.group_out, pattern.unit_in, pattern.nm)
