"""One measurement of one kernel on one layer, as plain data, and how it is carried out.

`run` is what the measuring process calls: it builds the layer with random weights of the wanted
sparsity, checks the kernel's output, and only then times it. A layer is timed as the executor runs it:
as an operator inside a program, between barriers, its input in the executor's own layout and just
written by another operator, threads awake.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autosparse.errors import NoKernel, UsageError
from autosparse.kernels import spec
from autosparse.kernels.bf16 import round_to_bf16
from autosparse.kernels.binding import NativeOp, NativeProgram, OpKind
from autosparse.kernels.layer import random_blocks
from autosparse.kernels.spec import KernelSpec
from autosparse.patterns.structure import BlockStructure
from autosparse.records import LayerShape, Pattern, Status, kept_blocks
from autosparse.serial import Record
from autosparse.tuning import stopwatch
from autosparse.tuning.stopwatch import MeasurementPolicy
from autosparse.tuning.verify import reference, tolerance, twin, why_wrong

FloatArray = NDArray[np.float32]

_SEED = 20_260_101
_PILOT_RUNS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerJob(Record):
    """What to measure.

    Attributes:
        shape: the layer.
        pattern: dense or 1xN.
        sparsity: fraction of blocks pruned.
        kernel: name of the kernel.
        dtype: arithmetic type.
        threads: worker threads.
        policy: how to measure.
        rival_us: upper end of the interval of the option to beat, None without.
        floor_us: the machine's lower bound, 0 where unknown.
        l3_bytes: size of the last cache, 0 where unknown.
    """

    shape: LayerShape
    pattern: Pattern
    sparsity: float
    kernel: str
    dtype: str
    threads: int
    policy: MeasurementPolicy
    rival_us: float | None = None
    floor_us: float = 0.0
    l3_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome(Record):
    """What came of a job.

    Attributes:
        status: how it ended.
        median_us: median latency, None unless the status is ok.
        ci_low_us: lower end of its 95 % confidence interval.
        ci_high_us: upper end.
        repeats: samples.
        beaten: whether sampling ended early because the rival had won.
        message: reason of a failure, or empty.
    """

    status: Status
    median_us: float | None = None
    ci_low_us: float | None = None
    ci_high_us: float | None = None
    repeats: int = 0
    beaten: bool = False
    message: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A layer with random contents, scaled such that its outputs are about 1."""

    shape: LayerShape
    weight: FloatArray
    bias: FloatArray
    structure: BlockStructure | None
    inputs: list[FloatArray]

    @property
    def terms(self) -> int:
        """Products summed per output."""
        kept = self.shape.in_channels
        if self.structure is not None:
            kept = int(self.structure.kept_per_group.max())
        return kept * self.shape.taps


def run(values: dict[str, Any]) -> dict[str, Any]:
    """Carries out a `LayerJob` given as plain values; gives an `Outcome` as plain values."""
    return measure(LayerJob.from_json(values)).to_json()


def measure(job: LayerJob) -> Outcome:
    """Verifies a kernel, then times it."""
    kernel = spec.get(job.kernel)
    if kernel.dtype != job.dtype:
        return Outcome(status=Status.ERROR, message=f"{kernel.name} does not compute in {job.dtype}")
    try:
        return _verified_and_timed(job, kernel)
    except (NoKernel, UsageError, MemoryError) as error:
        return Outcome(status=Status.ERROR, message=f"{type(error).__name__}: {error}")


def _verified_and_timed(job: LayerJob, kernel: KernelSpec) -> Outcome:
    layer = random_layer(job.shape, job.pattern, job.sparsity, job.dtype)
    with build(layer, kernel, job.threads) as program:
        if wrong := _wrong(job, kernel, program):
            return Outcome(status=Status.WRONG, message=wrong)
        copies = _copies(job, layer, program)
    writes_inputs = job.policy.writes_inputs
    with build(layer, kernel, job.threads, copies=copies, writes_inputs=writes_inputs) as program:
        return _timed(job, layer, program)


def _wrong(job: LayerJob, kernel: KernelSpec, program: NativeProgram) -> str:
    """Gives what is wrong with a kernel's output, or an empty string."""
    layer, expected = _verification(twin(job.shape), job.pattern, job.sparsity, job.dtype)
    got = np.full(spec.output_shape(layer.shape), np.nan, np.float32)
    if layer.shape == job.shape:
        program.run_into(layer.inputs, [got])
    else:
        with build(layer, kernel, job.threads) as small:
            small.run_into(layer.inputs, [got])
    return why_wrong(got, expected, tolerance(layer.terms, job.dtype, kernel.method))


def _timed(job: LayerJob, layer: Layer, program: NativeProgram) -> Outcome:
    written = 0 if is_chained(job.shape) or not job.policy.writes_inputs else len(layer.inputs)
    timing = stopwatch.measure(
        _operator_times(program, layer.inputs, every=1 + written),
        job.policy,
        rival_us=job.rival_us,
        floor_us=job.floor_us,
    )
    if timing.problem:
        return Outcome(status=Status.UNSTABLE, repeats=timing.repeats, message=timing.problem)
    return Outcome(
        status=Status.OK,
        median_us=timing.median_us,
        ci_low_us=timing.ci_low_us,
        ci_high_us=timing.ci_high_us,
        repeats=timing.repeats,
        beaten=timing.beaten,
    )


def _copies(job: LayerJob, layer: Layer, program: NativeProgram) -> int:
    pilot = _operator_times(program, layer.inputs)(_PILOT_RUNS)
    return job.policy.copies(
        program.weight_bytes,
        # The weights as they were given, and as they are packed.
        memory_bytes=layer.weight.nbytes + program.weight_bytes,
        run_us=float(pilot.min()) / 1e3,
        rival_us=job.rival_us,
        l3_bytes=job.l3_bytes,
    )


def _operator_times(
    program: NativeProgram, inputs: list[FloatArray], *, every: int = 1
) -> stopwatch.Runner:
    """Times operators of a program: all, or each `every`-th, the last one among them."""
    copies = program.op_count // every

    def runner(count: int) -> NDArray[Any]:
        _, op_ns = program.time(inputs, math.ceil(count / copies), per_op=True)
        assert op_ns is not None
        return op_ns[:, every - 1 :: every].ravel()

    return runner


def is_chained(shape: LayerShape) -> bool:
    """Whether a layer can read what another of its shape has written."""
    return spec.input_shape(shape) == spec.output_shape(shape)


def build(
    layer: Layer, kernel: KernelSpec, threads: int, *, copies: int = 1, writes_inputs: bool = False
) -> NativeProgram:
    """Makes a program of `copies` operators that all compute the same, each with its own weights.

    Args:
        layer: what they compute.
        kernel: computes it.
        threads: worker threads.
        copies: how many.
        writes_inputs: let other operators write the inputs of each, as in a model: those before it,
            where it can read what they give, else copies that nobody times. What is added was written
            earlier still, and has left the nearest caches.
    """
    shape, structure = layer.shape, layer.structure
    pattern = Pattern(group_out=structure.block_n if structure else 0)
    program = NativeProgram(threads, pin=True)
    given = program.tensor(spec.input_shape(shape), kernel.dtype)
    program.input(given)
    output = spec.output_shape(shape)
    residual = -1
    if shape.residual:
        residual = program.tensor(output, kernel.dtype)
        program.input(residual)
    operator = dataclasses.replace(
        spec.native_op(shape, pattern, inputs=(given,)),
        kernel=kernel.row,
        weight=layer.weight,
        bias=layer.bias,
        group_start=structure.group_start if structure else None,
        kept=structure.kept if structure else None,
    )
    source, added = given, residual
    for _ in range(copies):
        if writes_inputs and not is_chained(shape):
            added = added if residual < 0 else _written(program, residual, output, kernel.dtype)
            source = _written(program, given, spec.input_shape(shape), kernel.dtype)
        sink = program.tensor(output, kernel.dtype)
        program.op(dataclasses.replace(operator, inputs=(source,), residual=added, output=sink))
        if writes_inputs and is_chained(shape):
            source, added = sink, added if residual < 0 else source
    program.output(sink)
    program.finish()
    return program


def _written(program: NativeProgram, given: int, extents: tuple[int, ...], dtype: str) -> int:
    """Adds an operator that copies a tensor; gives the copy."""
    copy = program.tensor(extents, dtype)
    program.op(NativeOp(kind=OpKind.ACTIVATION, inputs=(given,), output=copy))
    return copy


# Kernel variants of one layer follow each other, so the last layer is worth keeping.
@functools.lru_cache(maxsize=1)
def random_layer(shape: LayerShape, pattern: Pattern, sparsity: float, dtype: str = "f32") -> Layer:
    """Makes a layer with random weights, pruned as the pattern says, and random inputs.

    All values but the bias are such that `dtype` can hold them.
    """
    hold = round_to_bf16 if dtype == "bf16" else np.asarray
    generator = np.random.default_rng(_SEED)
    kept = shape.in_channels if pattern.is_dense else kept_blocks(shape.in_channels, sparsity)
    scale = np.float32(1 / math.sqrt(max(kept * shape.taps, 1)))
    weight = _random_weight((shape.out_channels, shape.in_channels, *shape.kernel)) * scale
    structure = None
    if not pattern.is_dense:
        structure = random_blocks(shape, pattern, sparsity, _SEED)
        rows = np.arange(shape.out_channels) // structure.block_n
        weight *= structure.to_mask(shape.in_channels)[rows][:, :, None, None]
    borders = [spec.input_shape(shape)] + [spec.output_shape(shape)] * shape.residual
    return Layer(
        shape=shape,
        weight=hold(weight),
        bias=generator.standard_normal(shape.out_channels, dtype=np.float32),
        structure=structure,
        inputs=[hold(generator.standard_normal(border, dtype=np.float32)) for border in borders],
    )


@functools.lru_cache(maxsize=1)
def _random_weight(size: tuple[int, ...]) -> FloatArray:
    return np.random.default_rng(_SEED + 1).standard_normal(size, dtype=np.float32)


@functools.lru_cache(maxsize=1)
def _verification(
    shape: LayerShape, pattern: Pattern, sparsity: float, dtype: str
) -> tuple[Layer, NDArray[np.float64]]:
    layer = random_layer(shape, pattern, sparsity, dtype)
    residual = layer.inputs[1] if shape.residual else None
    return layer, reference(shape, layer.inputs[0], layer.weight, layer.bias, residual)
