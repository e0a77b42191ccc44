"""What a pattern is: plain data, below everything that uses it. Families give it meaning."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from autosparse.errors import UsageError
from autosparse.storage.serial import Record, added

WeightShape = tuple[int, ...]
"""Extents of a weight, OIHW or OI; inputs are those of one convolution group."""


class Contract(NamedTuple):
    """What a kernel must be able to run: kernels of one contract are interchangeable, on any device.

    Several families may ask for one contract: a block of 16 outputs by 16 inputs is, to a kernel, a
    group of 16 outputs that share a list of kept inputs.

    Attributes:
        kind: ``dense``, ``onexn`` (a group of outputs shares one list of kept inputs), or what else
            kernels promise.
        group_out: outputs per group; 0 where there are none.
        unit_in: consecutive inputs per entry of a list.
        nm: (n, m) inside of what is kept; None without.
    """

    kind: str
    group_out: int = 0
    unit_in: int = 1
    nm: tuple[int, int] | None = None

    def __str__(self) -> str:
        """``onexn16``, ``tw64`` with ``k8`` and ``+2:4`` where there is more than one input, or N:M."""
        units = "" if self.unit_in == 1 else f"k{self.unit_in}"
        inside = "" if self.nm is None else f"+{self.nm[0]}:{self.nm[1]}"
        return f"{self.kind}{self.group_out or ''}{units}{inside}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern(Record):
    """A sparse structure: a family, and the granularities that it shares with others.

    `group_out` consecutive outputs share one list of kept inputs, and inputs are kept in runs of
    `unit_in`. 1xN on CPUs and tile-wise (TW) on GPUs are both of this kind; what sets them apart, and
    which values make sense, is the family's to say (`autosparse.patterns.family`).

    Attributes:
        group_out: outputs per group; 0 means dense, 1 means one list per output.
        unit_in: consecutive input channels per block.
        uniform: every group keeps equally many blocks (SUBP) instead of a layer-wide choice (1xN).
        order: whether groups follow the natural order of outputs or another that the family knows.
        nm: (n, m) fine-grained structure inside kept blocks, such as (2, 4) for TVW; None without.
        split: of a family with two steps, whether both prune an ``even`` share of what they are given,
            or ``inputs`` alone are pruned.
        family: a file of `autosparse/patterns/families`; by default ``dense`` without groups, else
            ``onexn``, as in files that say nothing of it.
    """

    group_out: int = 0
    unit_in: int = 1
    uniform: bool = True
    order: str = "natural"
    nm: tuple[int, int] | None = None
    family: str = added("", unwritten=("dense", "onexn"))
    split: str = added("even")

    def __post_init__(self) -> None:
        if self.group_out < 0:
            raise UsageError(f"group_out must be 0 (dense) or more, but got {self.group_out}")
        if self.unit_in < 1:
            raise UsageError(f"unit_in must be at least 1, but got {self.unit_in}")
        if not self.family:
            object.__setattr__(self, "family", "onexn" if self.group_out else "dense")
        if (self.family == "dense") != (self.group_out == 0):
            raise UsageError(
                f"exactly the dense pattern has no groups, but got family={self.family!r} "
                f"with group_out={self.group_out}"
            )

    @property
    def is_dense(self) -> bool:
        """Whether nothing is pruned."""
        return self.group_out == 0

    @property
    def name(self) -> str:
        """The family's label, such as ``dense`` or ``1x16``; equal for equal patterns alone."""
        from autosparse.patterns.family import named

        return named(self.family).label(self)


DENSE = Pattern()


def onexn(block_n: int, *, uniform: bool = True) -> Pattern:
    """Gives the 1xN pattern: blocks of `block_n` consecutive outputs by one input, all taps."""
    if block_n < 1:
        raise UsageError(f"block_n must be at least 1, but got {block_n}")
    return Pattern(group_out=block_n, uniform=uniform)


def kept_blocks(in_channels: int, sparsity: float) -> int:
    """Blocks a uniform group keeps: ``Cin - floor(sparsity * Cin)`` (SUBP's rounding rule).

    The small addend undoes binary rounding, so that 0.7 * 10 prunes 7 blocks and not 6.
    """
    return in_channels - math.floor(sparsity * in_channels + 1e-9)
