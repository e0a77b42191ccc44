"""Whole outputs live or die: what a kernel sees is one list per output, full or empty."""

from __future__ import annotations

import numpy as np

from autosparse.errors import PlanError
from autosparse.patterns.family import Found, UnitFamily, register
from autosparse.patterns.pattern import Contract, Pattern

FILTER = Pattern(family="filter", group_out=1, uniform=False)


@register
class FilterFamily(UnitFamily):
    """One group, a unit per output."""

    example = "filter"

    def label(self, pattern):
        return "filter" if pattern == FILTER else f"filter?{pattern.group_out}{pattern.uniform}"

    def parse(self, label):
        return FILTER if label == "filter" else None

    def flaw(self, pattern):
        return "" if pattern == FILTER else "there is one way to prune outputs"

    def grid(self, shape):
        return (FILTER,)

    def rank(self, pattern):
        return 10.0

    def units(self, pattern, shape):
        return 1, shape[0]

    def kept_weights(self, pattern, shape, kept):
        return kept * int(np.prod(shape[1:]))

    def scores(self, weight, pattern, criterion):
        if criterion == "bpar":
            raise PlanError("outputs are not compared by angle")
        return np.abs(weight).reshape(1, weight.shape[0], -1).sum(axis=2, dtype=np.float64)

    def expand(self, units, shape, pattern):
        column = units.reshape(-1, *[1] * (len(shape) - 1))
        return np.array(np.broadcast_to(column, shape))

    def reduce(self, mask, pattern):
        return mask.reshape(mask.shape[0], -1).any(axis=1)[None]

    def violation(self, mask, pattern):
        rows = mask.reshape(mask.shape[0], -1)
        mixed = np.flatnonzero(rows.any(axis=1) != rows.all(axis=1))
        return f"output {mixed[0]} is only partly pruned" if mixed.size else None

    def find(self, weight):
        dead = 1.0 - float(self.reduce(weight != 0, FILTER).mean())
        return (Found(FILTER, dead),) if dead else ()

    def contract(self, pattern):
        return Contract("onexn", 1)
