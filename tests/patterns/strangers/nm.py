"""N of M consecutive inputs live, for every output and kernel position by itself."""

from __future__ import annotations

import re

import numpy as np

from autosparse.patterns.family import Found, UnitFamily, register
from autosparse.patterns.pattern import Contract, Pattern

_LABEL = re.compile(r"([1-9]\d*):([1-9]\d*)")


def nm(n, m):
    return Pattern(family="nm", group_out=1, nm=(n, m))


@register
class NmFamily(UnitFamily):
    """A row of scores per run of M inputs."""

    example = "2:4"

    def label(self, pattern):
        n, m = pattern.nm or (0, 0)
        return f"{n}:{m}" + ("" if pattern.uniform else "-layerwide")

    def parse(self, label):
        match = _LABEL.fullmatch(label)
        return nm(int(match[1]), int(match[2])) if match else None

    def flaw(self, pattern):
        return "" if pattern.nm and pattern == nm(*pattern.nm) else "N of M inputs, and nothing else"

    def grid(self, shape):
        return tuple(p for p in (nm(1, 4), nm(2, 4)) if not self.why_not(p, shape))

    def why_not(self, pattern, shape):
        return f"{shape[1]} inputs are no multiple" if shape[1] % pattern.nm[1] else ""

    def why_not_sparsity(self, pattern, sparsity):
        exact = 1 - pattern.nm[0] / pattern.nm[1]
        return "" if sparsity == exact else f"{pattern.name} prunes exactly {exact:g}"

    def rank(self, pattern):
        return 0.0

    def units(self, pattern, shape):
        return int(np.prod(shape)) // pattern.nm[1], pattern.nm[1]

    def kept_weights(self, pattern, shape, kept):
        return int(np.prod(shape)) // pattern.nm[1] * kept

    def _runs(self, weight, pattern):
        return np.moveaxis(weight, 1, -1).reshape(-1, pattern.nm[1])

    def scores(self, weight, pattern, criterion):
        return np.abs(self._runs(weight, pattern)).astype(np.float64)

    def expand(self, units, shape, pattern):
        return np.moveaxis(units.reshape(shape[0], *shape[2:], shape[1]), -1, 1).copy()

    def reduce(self, mask, pattern):
        return self._runs(mask, pattern)

    def violation(self, mask, pattern):
        counts = self._runs(mask, pattern).sum(axis=1)
        wrong = np.flatnonzero(counts != pattern.nm[0])
        return f"run {wrong[0]} keeps {counts[wrong[0]]}" if wrong.size else None

    def find(self, weight):
        able = (p for p in self.grid(weight.shape) if not self.violation(weight != 0, p))
        return tuple(Found(p, 1 - p.nm[0] / p.nm[1]) for p in able)

    def contract(self, pattern):
        return Contract("nm", 0, 1, pattern.nm)
