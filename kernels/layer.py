"""Programs of one layer: what the tuner times and the conformance tests check."""

from __future__ import annotations

import dataclasses

import numpy as np

from autosparse.errors import PlanError, UsageError
from autosparse.kernels import spec
from autosparse.kernels.binding import FloatArray, NativeProgram
from autosparse.kernels.spec import KernelSpec
from autosparse.patterns import family_of
from autosparse.patterns.structure import Array, BlockStructure
from autosparse.records import LayerShape, Pattern


def random_blocks(shape: LayerShape, pattern: Pattern, sparsity: float, seed: int) -> BlockStructure:
    """Draws a mask of a pattern at random; gives it as kernels of the pattern's contract read it.

    Raises:
        UsageError: the pattern is dense, or `sparsity` lies outside [0, 1].
    """
    if pattern.is_dense:
        raise UsageError("a dense layer has no blocks to draw; pass structure=None instead")
    if not 0 <= sparsity <= 1:
        raise UsageError(f"sparsity must lie in [0, 1], but got {sparsity}")
    generator = np.random.default_rng(seed)
    return structure_of(
        family_of(pattern).random(pattern, shape.weight_shape, sparsity, generator), pattern
    )


def structure_of(weight: Array, pattern: Pattern) -> BlockStructure:
    """Gives the smallest structure of a pattern's contract that covers every non-zero weight.

    Raises:
        PlanError: kernels here know no lists for such a pattern.
    """
    contract = family_of(pattern).contract(pattern)
    if contract.kind != "onexn":
        raise PlanError(
            f"kernels here run lists of inputs per group, but {pattern.name} needs {contract}"
        )
    return BlockStructure.from_weight(weight, contract.group_out)


class LayerProgram:
    """One convolution or linear layer as a program of its own.

    Args:
        shape: the layer, activation and residual included.
        weight: OIHW (linear: (outputs, inputs) or (outputs, inputs, 1, 1)), float32. Only kept blocks
            are read.
        bias: one per output, or None.
        structure: kept blocks, or None for a dense layer.
        kernel: what shall run it, or None for the executor's own default.
        dtype: ``f32`` or ``bf16``: type of activations and weights inside.
        output_dtype: of the output (and residual), None for `dtype`; values cross the border as
            float32.
        threads: worker threads.
        pin: whether workers are bound to processors while they run.

    Raises:
        UsageError: arrays and shape do not fit together.
        NoKernel: the kernel cannot run this layer here.
    """

    def __init__(
        self,
        shape: LayerShape,
        *,
        weight: FloatArray,
        bias: FloatArray | None = None,
        structure: BlockStructure | None = None,
        kernel: KernelSpec | None = None,
        dtype: str = "f32",
        output_dtype: str | None = None,
        threads: int = 1,
        pin: bool = True,
    ) -> None:
        self.shape = shape
        self.program = NativeProgram(threads, pin)
        made = output_dtype or dtype
        source = self.program.tensor(shape.input_shape, dtype)
        self.program.input(source)
        residual = -1
        if shape.residual:
            residual = self.program.tensor(shape.output_shape, made)
            self.program.input(residual)
        sink = self.program.tensor(shape.output_shape, made)
        block_n = structure.block_n if structure else 0
        op = dataclasses.replace(
            spec.native_op(shape, block_n, inputs=(source,), output=sink),
            residual=residual,
            kernel=kernel.row if kernel else -1,
            weight=weight.reshape(shape.out_channels, shape.in_channels // shape.groups, *shape.kernel),
            bias=bias,
            group_start=structure.group_start if structure else None,
            kept=structure.kept if structure else None,
        )
        self.program.op(op)
        self.program.output(sink)
        self.program.finish()

    def run(self, x: FloatArray, residual: FloatArray | None = None) -> FloatArray:
        """Runs the layer on an NCHW array."""
        return self.program.run(self.arguments(x, residual))[0]

    def arguments(self, x: FloatArray, residual: FloatArray | None = None) -> list[FloatArray]:
        """Gives the program's inputs.

        Raises:
            UsageError: the layer adds a residual and got none, or the other way round.
        """
        if (residual is not None) != self.shape.residual:
            raise UsageError(
                f"a layer with residual={self.shape.residual} must get residual accordingly, "
                f"but got {'one' if residual is not None else 'none'}"
            )
        return [x] if residual is None else [x, residual]

    @property
    def kernel_name(self) -> str | None:
        """The kernel that runs the layer; None for a grouped convolution."""
        return self.program.op_kernels()[0]

    @property
    def weight_bytes(self) -> int:
        """Bytes of packed weights and index lists."""
        return self.program.weight_bytes

    def close(self) -> None:
        """Frees the native program."""
        self.program.close()
