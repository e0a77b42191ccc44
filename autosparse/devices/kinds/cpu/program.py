"""A layer as a native program, timed as the executor runs it.

As an operator inside a program, between barriers, its input in the executor's own layout and just
written by another operator, threads awake.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from autosparse.devices.device import Built
from autosparse.devices.layer import FloatArray, Layer
from autosparse.kernels import spec
from autosparse.kernels.binding import NativeOp, NativeProgram, OpKind
from autosparse.kernels.layer import structure_of
from autosparse.kernels.spec import KernelSpec
from autosparse.measuring.stopwatch import Runner
from autosparse.patterns.structure import BlockStructure
from autosparse.records import LayerShape


class LayerOnCpu(Built):
    """A program of `copies` operators that all compute the same, each with its own weights.

    Args:
        layer: what they compute.
        kernel: computes it.
        threads: worker threads.
        copies: how many.
        writes_inputs: let other operators write the inputs of each, as in a model: those before it,
            where it can read what they give, else copies that nobody times. What is added was written
            earlier still, and has left the nearest caches.

    Attributes:
        program: the program.
    """

    def __init__(
        self,
        layer: Layer,
        kernel: KernelSpec,
        threads: int,
        *,
        copies: int = 1,
        writes_inputs: bool = False,
    ) -> None:
        shape, structure = layer.shape, _structure(layer)
        self._copied = (
            len(layer.inputs) if writes_inputs and not is_chained(shape) else 0
        )  # operators before each
        self._dtype = kernel.dtype
        self.program = program = NativeProgram(threads, pin=True)
        given = program.tensor(shape.input_shape, kernel.dtype)
        program.input(given)
        residual = -1
        if shape.residual:
            residual = program.tensor(shape.output_shape, kernel.dtype)
            program.input(residual)
        operator = dataclasses.replace(
            spec.native_op(shape, structure.block_n if structure else 0, inputs=(given,)),
            kernel=kernel.row,
            weight=layer.weight,
            bias=layer.bias,
            group_start=structure.group_start if structure else None,
            kept=structure.kept if structure else None,
        )
        source, added = given, residual
        first = -1
        for _ in range(copies):
            if self._copied:
                added = added if residual < 0 else self._written(residual, shape.output_shape)
                source = self._written(given, shape.input_shape)
            sink = program.tensor(shape.output_shape, kernel.dtype)
            if first < 0:
                first = program.op(
                    dataclasses.replace(operator, inputs=(source,), residual=added, output=sink)
                )
            else:
                program.op_again(first, x=source, residual=added, output=sink)
            if writes_inputs and is_chained(shape):
                source, added = sink, added if residual < 0 else source
        program.output(sink)
        program.finish()

    def _written(self, given: int, extents: tuple[int, ...]) -> int:
        """Adds an operator that copies a tensor; gives the copy."""
        copy = self.program.tensor(extents, self._dtype)
        self.program.op(NativeOp(kind=OpKind.ACTIVATION, inputs=(given,), output=copy))
        return copy

    @property
    def weight_bytes(self) -> int:
        """Of the packed weights."""
        return self.program.weight_bytes

    def run(self, inputs: Sequence[FloatArray], output: FloatArray) -> None:
        """Runs the program once."""
        self.program.run_into(list(inputs), [output])

    def runner(self, inputs: Sequence[FloatArray]) -> Runner:
        """Times each operator of ours, by the wall clock."""
        every = 1 + self._copied
        copies = self.program.op_count // every

        def run(count: int) -> NDArray[Any]:
            _, op_ns = self.program.time(list(inputs), math.ceil(count / copies), per_op=True)
            assert op_ns is not None
            return op_ns[:, every - 1 :: every].ravel()

        return run

    def close(self) -> None:
        """Frees the program, and lets its threads end."""
        self.program.close()


def is_chained(shape: LayerShape) -> bool:
    """Whether a layer can read what another of its shape has written."""
    return shape.input_shape == shape.output_shape


# A layer is built twice per kernel, and its kernels follow each other.
@functools.lru_cache(maxsize=1)
def _structure(layer: Layer) -> BlockStructure | None:
    return None if layer.pattern.is_dense else structure_of(layer.weight, layer.pattern)
