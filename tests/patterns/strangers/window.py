"""All outputs read one window of neighbouring inputs, which lies where the weights are largest.

Its inputs follow from the weights, so none of them can be scored before.
"""

from __future__ import annotations

import numpy as np

from autosparse.errors import PlanError
from autosparse.patterns.family import AbstractFamily, Found, Group, Worked, register
from autosparse.patterns.pattern import Contract, Pattern, kept_blocks

WINDOW = Pattern(family="window", group_out=1)


@register
class WindowFamily(AbstractFamily):
    """A width, and a place that the weights decide."""

    example = "window"

    def label(self, pattern):
        return "window" if pattern == WINDOW else f"window?{pattern.to_json()}"

    def parse(self, label):
        return WINDOW if label == "window" else None

    def flaw(self, pattern):
        return "" if pattern == WINDOW else "there is one kind of window"

    def worked(self):
        weight = np.array([[5.0, 1.0, 3.0, 4.0]])
        kept = np.array([[0, 0, 1, 1]], dtype=bool)  # 6, 4 or 7
        return (Worked(weight=weight, pattern=WINDOW, sparsity=0.5, mask=kept, source="made up"),)

    def grid(self, shape):
        return (WINDOW,)

    def rank(self, pattern):
        return 12.0

    def why_not_criterion(self, pattern, criterion):
        return "" if criterion == "l1" else f"windows take l1, but got {criterion}"

    def kept(self, pattern, shape, sparsity):
        return kept_blocks(shape[1], sparsity)

    def kept_weights(self, pattern, shape, kept):
        return kept * int(np.prod(shape)) // shape[1]

    def _at(self, shape, first, width):
        mask = np.zeros(shape, dtype=bool)
        mask[:, first : first + width] = True
        return mask

    def mask(self, weight, pattern, sparsity, *, criterion="l1", scores=None, alpha=1.0):
        if scores is not None:
            raise PlanError("windows take no scores")
        width = self.kept(pattern, weight.shape, sparsity)
        size = np.moveaxis(np.abs(weight), 1, 0).reshape(weight.shape[1], -1).sum(axis=1)
        sums = np.convolve(size, np.ones(width), mode="valid") if width else [0]
        return self._at(weight.shape, int(np.argmax(sums)), width)

    def random(self, pattern, shape, sparsity, generator):
        width = self.kept(pattern, shape, sparsity)
        return self._at(shape, int(generator.integers(shape[1] - width + 1)), width)

    def _live(self, weight):
        return np.moveaxis(weight != 0, 1, 0).reshape(weight.shape[1], -1).any(axis=1)

    def violation(self, mask, pattern):
        live = np.flatnonzero(self._live(mask))
        whole = self._at(mask.shape, *((live[0], live[-1] - live[0] + 1) if live.size else (0, 0)))
        return None if np.array_equal(whole, mask) else "inputs that live are no window"

    def groups(self, pattern, shape, outputs=None):
        columns = np.arange(int(np.prod(shape[1:])), dtype=np.int32)
        return (Group(np.arange(shape[0], dtype=np.int32), columns.reshape(shape[1], -1)),)

    def sparsity_of(self, weight, pattern):
        return 1.0 - float(self._live(weight).mean())

    def find(self, weight):
        live = np.flatnonzero(self._live(weight))
        if not live.size or live[-1] - live[0] + 1 == weight.shape[1]:
            return ()
        return (Found(WINDOW, self.sparsity_of(weight, WINDOW)),)

    def contract(self, pattern):
        return Contract("window")
