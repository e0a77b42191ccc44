"""Whole inputs live or die, for all outputs alike."""

from __future__ import annotations

import numpy as np

from autosparse.patterns.blocks import bpar_scores, norms
from autosparse.patterns.family import Found, Group, UnitFamily, Worked, register
from autosparse.patterns.pattern import Contract, Pattern

INPUTS = Pattern(family="inputs", group_out=1, uniform=False)


@register
class InputFamily(UnitFamily):
    """One row, a unit per input."""

    example = "inputs"

    def label(self, pattern):
        return "inputs" if pattern == INPUTS else f"inputs?{pattern.to_json()}"

    def parse(self, label):
        return INPUTS if label == "inputs" else None

    def flaw(self, pattern):
        return "" if pattern == INPUTS else "there is one way to prune inputs"

    def worked(self):
        weight, kept = np.array([[1.0, 5.0, 2.0], [3.0, 1.0, 1.0]]), np.ones((2, 3), dtype=bool)
        kept[:, 2] = False  # of 4, 6 and 3
        return (Worked(weight=weight, pattern=INPUTS, sparsity=1 / 3, mask=kept, source="made up"),)

    def grid(self, shape):
        return (INPUTS,)

    def rank(self, pattern):
        return 10.0

    def units(self, pattern, shape):
        return 1, shape[1]

    def kept_weights(self, pattern, shape, kept):
        return kept * int(np.prod(shape)) // shape[1]

    def scores(self, weight, pattern, criterion, *, alpha=1.0):
        vectors = np.moveaxis(weight, 1, 0).reshape(1, weight.shape[1], -1)
        return bpar_scores(vectors, alpha=alpha) if criterion == "bpar" else norms(vectors, criterion)

    def expand(self, units, shape, pattern):
        return np.array(np.broadcast_to(units.reshape(1, -1, *[1] * (len(shape) - 2)), shape))

    def reduce(self, mask, pattern):
        return np.moveaxis(mask, 1, 0).reshape(mask.shape[1], -1).any(axis=1)[None]

    def violation(self, mask, pattern):
        whole = self.expand(self.reduce(mask, pattern), mask.shape, pattern)
        return None if np.array_equal(whole, mask) else "an input is only partly pruned"

    def groups(self, pattern, shape, outputs=None):
        columns = np.arange(int(np.prod(shape[1:])), dtype=np.int32)
        return (Group(np.arange(shape[0], dtype=np.int32), columns.reshape(shape[1], -1)),)

    def find(self, weight):
        dead = 1.0 - float(self.reduce(weight != 0, INPUTS).mean())
        return (Found(INPUTS, dead),) if dead else ()

    def contract(self, pattern):
        return Contract("inputs")
