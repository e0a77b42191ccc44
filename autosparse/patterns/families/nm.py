"""N:M: of M consecutive inputs, N live, for every output and kernel position by itself."""

from __future__ import annotations

import re

import numpy as np

from autosparse.errors import PlanError
from autosparse.patterns.blocks import norms, single_bpar_scores
from autosparse.patterns.family import Criterion, Found, Group, UnitFamily, Worked, register
from autosparse.patterns.pattern import Contract, Pattern, WeightShape
from autosparse.patterns.structure import STRAY_ZEROS, Array, BoolArray, IntArray

_LABEL = re.compile(r"([1-9]\d*):([1-9]\d*)")
_OFFERED = ((1, 4), (2, 4))


@register
class NmFamily(UnitFamily):
    """A row of M units per run of M inputs; all rows keep N, so there is one sparsity, ``1 - N / M``.

    Runs lie along the inputs, as sparse tensor cores of NVIDIA read a weight ``[outputs, inputs]``, and
    for a convolution at every kernel position, as its APEX library prunes one.

    Source: Zhou et al., "Learning N:M Fine-grained Structured Sparse Neural Networks From Scratch",
    arXiv 2102.04010, section 3.1; Mishra et al., "Accelerating Sparse Deep Neural Networks",
    arXiv 2104.08378, section 3 (2:4).
    Differs: a layer whose inputs M does not divide is refused, and never padded.
    """

    example = "2:4"

    def label(self, pattern: Pattern) -> str:
        """Writes ``2:4``."""
        kept = pattern.nm or (0, 0)
        own = f"{kept[0]}:{kept[1]}"
        return own if not self.flaw(pattern) else f"{own}?{pattern.to_json()}"

    def parse(self, label: str) -> Pattern | None:
        """Reads ``2:4``; None too where more are to be kept than there are."""
        match = _LABEL.fullmatch(label)
        if match is None or int(match[1]) >= int(match[2]):
            return None
        return nm(int(match[1]), int(match[2]))

    def flaw(self, pattern: Pattern) -> str:
        """Refuses a pattern without N:M, with N of M and more, and any granularity beside it."""
        if pattern.nm is None or not 1 <= pattern.nm[0] < pattern.nm[1]:
            return f"N of M inputs live, 1 <= N < M, but nm is {pattern.nm}"
        if pattern != nm(*pattern.nm):
            return "N of M inputs live for every output by itself, equally many everywhere"
        return ""

    def worked(self) -> tuple[Worked, ...]:
        """Gives 2:4 at two kernel positions: runs lie along the inputs, never along positions."""
        weight = np.array([[[1.0, -8.0], [-4.0, 7.0], [3.0, 1.0], [2.0, 0.5]]])[..., None]
        kept = np.array([[[0, 1], [1, 1], [1, 0], [0, 0]]], dtype=bool)[..., None]
        source = "arXiv 2102.04010, section 3.1: the N largest of M consecutive weights are kept"
        return (Worked(weight=weight, pattern=nm(2, 4), sparsity=0.5, mask=kept, source=source),)

    def grid(self, shape: WeightShape) -> tuple[Pattern, ...]:
        """Gives 1:4 and 2:4 where the inputs allow."""
        return tuple(p for p in (nm(*kept) for kept in _OFFERED) if not self.why_not(p, shape))

    def why_not(self, pattern: Pattern, shape: WeightShape) -> str:
        """Refuses inputs that M does not divide."""
        size = _run(pattern)
        return f"the layer's {shape[1]} inputs are no multiple of {size}" if shape[1] % size else ""

    def why_not_sparsity(self, pattern: Pattern, sparsity: float) -> str:
        """Refuses all but ``1 - N / M``."""
        exact = 1 - _kept(pattern) / _run(pattern)
        if abs(sparsity - exact) < 1e-9:
            return ""
        return f"{pattern.name} prunes exactly {exact:g}, but got {sparsity:g}"

    def rank(self, pattern: Pattern) -> float:
        """Gives 0: one weight is a unit."""
        return 0.0

    def units(self, pattern: Pattern, shape: WeightShape) -> tuple[int, int]:
        """Gives runs over all outputs and kernel positions, and M."""
        self._check(pattern, shape)
        return int(np.prod(shape)) // _run(pattern), _run(pattern)

    def kept_weights(self, pattern: Pattern, shape: WeightShape, kept: int) -> int:
        """Counts the units: weights."""
        return int(np.prod(shape)) // _run(pattern) * kept

    def scores(
        self, weight: Array, pattern: Pattern, criterion: Criterion, *, alpha: float = 1.0
    ) -> Array:
        """Gives the size of every weight; ``bpar`` makes shares of it and ranks alike."""
        runs = self._runs(weight, pattern)
        if criterion == "bpar":
            return single_bpar_scores(runs, alpha)
        return norms(runs[..., None], "l1")

    def expand(self, units: BoolArray, shape: WeightShape, pattern: Pattern) -> BoolArray:
        """Puts runs back in their place."""
        self._check(pattern, shape)
        return np.moveaxis(units.reshape(shape[0], *shape[2:], shape[1]), -1, 1).copy()

    def reduce(self, mask: BoolArray, pattern: Pattern) -> BoolArray:
        """Gives the runs, output by output and position by position."""
        return self._runs(mask, pattern)

    def violation(self, mask: BoolArray, pattern: Pattern) -> str | None:
        """Names the first run that keeps another number than N."""
        if why := self.why_not(pattern, mask.shape):
            return why
        counts = np.count_nonzero(self._runs(mask, pattern), axis=1)
        wrong = np.flatnonzero(counts != _kept(pattern))
        if not wrong.size:
            return None
        per_output = counts.size // len(mask)
        run, output = wrong[0] % per_output, wrong[0] // per_output
        return f"run {run} of output {output} of {pattern.name} keeps {counts[wrong[0]]} weights"

    def groups(
        self, pattern: Pattern, shape: WeightShape, outputs: IntArray | None = None
    ) -> tuple[Group, ...]:
        """Gives every output by itself; units are columns, in the order in which M are a run."""
        columns = np.arange(int(np.prod(shape[1:])), dtype=np.int32)
        along = columns.reshape(shape[1], -1).T.reshape(-1, 1)
        return tuple(Group(row, along) for row in np.arange(shape[0], dtype=np.int32)[:, None])

    def find(self, weight: Array) -> tuple[Found, ...]:
        """Finds 1:4 and 2:4: at most N live in every run, and hardly any that could are zero."""
        live = np.count_nonzero(weight)
        return tuple(
            Found(pattern, 1 - _kept(pattern) / _run(pattern))
            for pattern in self.grid(weight.shape)
            if 1 - STRAY_ZEROS <= live * _run(pattern) / (weight.size * _kept(pattern)) <= 1
            and all(self._fits(part, pattern) for part in (weight[:1], weight))
        )

    def _fits(self, weight: Array, pattern: Pattern) -> bool:
        return bool(np.count_nonzero(self._runs(weight, pattern), axis=1).max() <= _kept(pattern))

    def contract(self, pattern: Pattern) -> Contract:
        """A kernel must run N:M along the inputs."""
        return Contract("nm", nm=pattern.nm)

    def _runs(self, weight: Array, pattern: Pattern) -> Array:
        self._check(pattern, weight.shape)
        return np.moveaxis(weight, 1, -1).reshape(-1, _run(pattern))

    def _check(self, pattern: Pattern, shape: WeightShape) -> None:
        if why := self.why_not(pattern, shape):
            raise PlanError(
                f"N:M needs inputs that M divides, but for {pattern.name} {why}; leave the layer dense"
            )


def nm(n: int, m: int) -> Pattern:
    """Gives the pattern that keeps `n` of `m` consecutive inputs."""
    return Pattern(family="nm", group_out=1, nm=(n, m))


def _kept(pattern: Pattern) -> int:
    assert pattern.nm is not None  # `flaw` refuses others
    return pattern.nm[0]


def _run(pattern: Pattern) -> int:
    assert pattern.nm is not None
    return pattern.nm[1]
