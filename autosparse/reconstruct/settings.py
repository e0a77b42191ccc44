"""How a model is reconstructed: one frozen record."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from autosparse.errors import UsageError
from autosparse.patterns import CRITERIA, Criterion
from autosparse.records import Record

Target = Literal["own", "dense"]
TARGETS: tuple[Target, ...] = ("own", "dense")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconstructionSettings(Record):
    """All that decides a reconstruction besides the model, the plan and the images.

    Attributes:
        samples: calibration images, at most.
        positions: output positions of a layer that are looked at per image, at most; drawn anew for
            every batch. 0 takes all.
        damping: added to the diagonal of the second moment, as a fraction of its mean. It keeps weights
            near what they were in directions that the images hardly show.
        target: what a layer shall give back: ``own``, its output on the inputs that it gets from layers
            pruned before it, or ``dense``, the dense model's output.
        dtype: arithmetic type of the elimination, which decides what is kept. Moments are summed and
            weights are solved for in float64 whatever it says.
        criterion: importance of a unit for the plain mask that a reconstruction is held against.
        seed: decides which positions are looked at.
    """

    samples: int = 512
    positions: int = 64
    damping: float = 1e-2
    target: Target = "dense"
    dtype: Literal["float32", "float64"] = "float32"
    criterion: Criterion = "l1"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise UsageError(f"samples must be at least 1, but got {self.samples}")
        if self.positions < 0:
            raise UsageError(f"positions must be 0 (all) or more, but got {self.positions}")
        if not (math.isfinite(self.damping) and self.damping > 0):
            raise UsageError(
                f"damping must be finite and above 0, but got {self.damping}; 0.01 suits most layers"
            )
        for name, known in (
            ("target", TARGETS),
            ("dtype", ("float32", "float64")),
            ("criterion", CRITERIA),
        ):
            if getattr(self, name) not in known:
                raise UsageError(
                    f"{name} must be one of {', '.join(known)}, but got {getattr(self, name)!r}"
                )
