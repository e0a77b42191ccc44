"""Every output reads either its even inputs or its odd ones: a half, and no other sparsity."""

from __future__ import annotations

import numpy as np

from autosparse.patterns.blocks import bpar_scores, norms
from autosparse.patterns.family import Found, Group, UnitFamily, Worked, register
from autosparse.patterns.pattern import Contract, Pattern

PARITY = Pattern(family="parity", group_out=1, unit_in=2)


@register
class ParityFamily(UnitFamily):
    """A row of two units per output."""

    example = "parity"

    def label(self, pattern):
        return "parity" if pattern == PARITY else f"parity?{pattern.to_json()}"

    def parse(self, label):
        return PARITY if label == "parity" else None

    def flaw(self, pattern):
        return "" if pattern == PARITY else "even or odd inputs, and nothing else"

    def worked(self):
        weight = np.array([[1.0, 5.0, 2.0, 1.0], [3.0, 1.0, 1.0, 2.0]])
        kept = np.array([[0, 1, 0, 1], [1, 0, 1, 0]], dtype=bool)  # 3 or 6, then 4 or 3
        return (Worked(weight=weight, pattern=PARITY, sparsity=0.5, mask=kept, source="made up"),)

    def grid(self, shape):
        return () if self.why_not(PARITY, shape) else (PARITY,)

    def why_not(self, pattern, shape):
        return "" if shape[1] > 1 else "one input is even alone"

    def why_not_sparsity(self, pattern, sparsity):
        return "" if sparsity == 0.5 else "parity prunes exactly 0.5"

    def rank(self, pattern):
        return -1.0

    def units(self, pattern, shape):
        return shape[0], 2

    def kept_weights(self, pattern, shape, kept):
        fewest = (0, shape[1] // 2, shape[1])[kept]
        return shape[0] * fewest * int(np.prod(shape[2:]))

    def scores(self, weight, pattern, criterion, *, alpha=1.0):
        halves = np.zeros((weight.shape[0], 2, *weight.shape[1:]))
        halves[:, 0, ::2], halves[:, 1, 1::2] = weight[:, ::2], weight[:, 1::2]
        vectors = halves.reshape(weight.shape[0], 2, -1)
        return bpar_scores(vectors, alpha=alpha) if criterion == "bpar" else norms(vectors, criterion)

    def expand(self, units, shape, pattern):
        mask = np.zeros(shape, dtype=bool)
        for parity in (0, 1):
            mask[units[:, parity], parity::2] = True
        return mask

    def reduce(self, mask, pattern):
        rows = [mask[:, parity::2].reshape(len(mask), -1).any(axis=1) for parity in (0, 1)]
        return np.stack(rows, axis=1)

    def violation(self, mask, pattern):
        units = self.reduce(mask, pattern)
        wrong = (units.sum(axis=1) != 1).any()
        partly = not np.array_equal(self.expand(units, mask.shape, pattern), mask)
        return "an output reads other than its even or odd inputs" if wrong or partly else None

    def groups(self, pattern, shape, outputs=None):
        columns = np.arange(int(np.prod(shape[1:])), dtype=np.int32).reshape(shape[1], -1)
        even, odd = columns[::2].reshape(-1), columns[1::2].reshape(-1)
        odd = np.pad(odd, (0, even.size - odd.size), constant_values=-1)
        units = np.stack([even, odd])
        return tuple(Group(row, units) for row in np.arange(shape[0], dtype=np.int32)[:, None])

    def find(self, weight):
        if weight.shape[1] < 2 or self.violation(weight != 0, PARITY):
            return ()
        return (Found(PARITY, 0.5),)

    def contract(self, pattern):
        return Contract("parity")
