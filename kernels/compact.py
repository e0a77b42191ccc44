"""What `compact_weights` leaves out, for who is short of memory: kernels that expand weights.

`KernelSpec.expands_weights` says which these are. Tuner and engine pass them over, and the executor
chooses by `COMPACT_KERNEL`.
"""

from __future__ import annotations

import functools

from autosparse.errors import PlanError
from autosparse.kernels import spec
from autosparse.plans.plan import Plan


@functools.cache
def expanding_kernels() -> frozenset[str]:
    """Gives the names of all kernels that expand weights."""
    return frozenset(kernel.name for kernel in spec.all_kernels() if kernel.expands_weights)


def check_compact(plan: Plan) -> None:
    """Refuses a plan that names a kernel that expands weights.

    Raises:
        PlanError: names the first such layer.
    """
    for layer, choice in plan.layers.items():
        if choice.kernel in expanding_kernels():
            raise PlanError(
                f"with compact_weights a plan must name kernels that do not expand weights, but names "
                f"{choice.kernel} for {layer!r}; leave compact_weights out, or search again with it"
            )
