"""Is a contestant's output right? Nobody is timed before that is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autosparse.compare.task import Task

Array = NDArray[Any]

# Largest difference over the largest output. Engines that sum in another order differ by some 1e-6 in
# float32, and bf16, with its 8 significant bits, makes some 5e-3 of a whole network. A wrong border or
# a missing channel is far beyond either. int8 keeps 256 values per tensor: 2e-2 to 8e-2 of networks
# with random weights, the latter where channels are few (MobileNetV2).
TOLERANCE = {"f32": 1e-4, "bf16": 3e-2, "f16": 4e-3, "int8": 0.2}


def reference(task: Task) -> list[Array]:
    """Gives the outputs of a task's model by torch in float32, leaf by leaf."""
    import torch
    from torch.utils import _pytree as pytree

    with torch.inference_mode():
        return [leaf.numpy() for leaf in pytree.tree_leaves(task.module()(task.tensor()))]


def error(got: Sequence[Array], expected: Sequence[Array]) -> float:
    """Gives the largest difference over the largest expected value, over all leaves.

    Infinite where the number or the shapes of the leaves differ, or a value is not finite.
    """
    if [leaf.shape for leaf in got] != [leaf.shape for leaf in expected]:
        return math.inf
    worst = 0.0
    for ours, theirs in zip(got, expected, strict=True):
        if not np.isfinite(ours).all():
            return math.inf
        scale = max(float(np.abs(theirs).max(initial=0.0)), float(np.finfo(np.float32).tiny))
        difference = np.abs(np.asarray(ours, np.float64) - np.asarray(theirs, np.float64))
        worst = max(worst, float(difference.max(initial=0.0)) / scale)
    return worst


def why_wrong(found: float, dtype: str) -> str:
    """Gives what is wrong with an output of such an error; empty if nothing is."""
    if found <= TOLERANCE[dtype]:
        return ""
    if math.isinf(found):
        return "its output has another shape than torch's, or values that are not finite"
    return (
        f"an output in {dtype} must be within {TOLERANCE[dtype]:g} of torch's in float32, relative to "
        f"the largest, but it is off by {found:.3g}"
    )
