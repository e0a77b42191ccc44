"""What `compact_weights` leaves out, for who is short of memory: kernels that expand weights.

`KernelSpec.expands_weights` says which these are. Tuner and engine pass them over, and where the
executor would be free to choose one, `compact_choice` names another.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

from autosparse.errors import PlanError
from autosparse.kernels import binding, spec
from autosparse.kernels.binding import Activation, NativeOp, NativeProgram
from autosparse.kernels.spec import KernelSpec
from autosparse.plan import Plan

# Kernels that expand weights apply no activation but ReLU and ReLU6.
_APPLIED_BY_OTHERS = Activation.SILU


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


def compact_choice(
    op: NativeOp, input_shape: Sequence[int], output_shape: Sequence[int], dtype: str
) -> KernelSpec | None:
    """Gives the executor's own choice for a convolution among the kernels that do not expand weights.

    Args:
        op: the convolution, with weights; what its tensor ids are is of no matter.
        input_shape: NCHW.
        output_shape: NCHW.
        dtype: of both tensors.

    Returns:
        The kernel; None where no kernel that expands weights runs the operator, so that the executor
        may choose for itself.

    Raises:
        UsageError: the executor refuses the operator.
        NoKernel: none of its kernels runs the operator.
    """
    if not any(
        kernel.expands_weights
        and kernel.dtype == dtype
        and not binding.kernel_why_not(kernel.row, op, input_shape)
        for kernel in spec.all_kernels()
    ):
        return None
    # The executor ranks kernels by shapes and structure alone. Asked for an activation that kernels
    # with expanded weights do not apply, it answers with the best of the others.
    with NativeProgram(threads=1, pin=False) as program:
        source, sink = program.tensor(input_shape, dtype), program.tensor(output_shape, dtype)
        program.input(source)
        asked = dataclasses.replace(op, activation=_APPLIED_BY_OTHERS)
        program.op(dataclasses.replace(asked, inputs=(source,), output=sink, residual=-1))
        [name] = program.op_kernels()
    assert name is not None and name not in expanding_kernels()
    return spec.get(name)
