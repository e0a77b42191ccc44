"""Every kernel of the table, in every situation that its tile makes special."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from autosparse.kernels import spec
from autosparse.kernels.layer import LayerProgram, random_blocks
from autosparse.kernels.spec import KernelSpec
from autosparse.patterns.structure import BlockStructure
from autosparse.records import LayerShape, Pattern

# (kernel, stride, padding, dilation, height, width)
GEOMETRIES = (
    ((1, 1), (1, 1), (0, 0), (1, 1), 5, 7),
    ((1, 1), (2, 2), (0, 0), (1, 1), 9, 11),
    ((1, 1), (1, 1), (2, 1), (1, 1), 4, 6),
    ((3, 3), (1, 1), (1, 1), (1, 1), 7, 7),
    ((3, 3), (1, 1), (1, 1), (1, 1), 14, 13),
    ((3, 3), (1, 1), (0, 0), (1, 1), 8, 19),
    ((3, 3), (1, 1), (3, 3), (1, 1), 3, 5),
    ((3, 3), (2, 2), (1, 1), (1, 1), 15, 29),
    ((3, 3), (2, 1), (1, 1), (1, 1), 8, 31),
    ((3, 3), (1, 2), (0, 1), (1, 1), 6, 17),
    ((3, 3), (3, 3), (0, 0), (1, 1), 17, 13),
    ((3, 3), (1, 1), (2, 2), (2, 2), 9, 10),
    ((3, 3), (2, 2), (2, 2), (2, 2), 11, 12),
    ((5, 5), (1, 1), (2, 2), (1, 1), 11, 9),
    ((5, 5), (2, 2), (0, 0), (1, 1), 13, 14),
    ((7, 7), (2, 2), (3, 3), (1, 1), 19, 23),
    ((7, 7), (1, 1), (3, 3), (1, 1), 2, 3),
    ((1, 3), (1, 1), (0, 1), (1, 1), 1, 37),
    ((3, 1), (1, 1), (1, 0), (1, 3), 37, 1),
    ((1, 5), (1, 3), (0, 4), (1, 2), 3, 16),
    ((2, 2), (2, 2), (0, 0), (1, 1), 12, 34),
    ((3, 3), (1, 1), (0, 1), (1, 1), 5, 67),
    ((3, 3), (1, 1), (2, 0), (1, 1), 29, 3),
    ((3, 3), (1, 1), (1, 1), (1, 1), 28, 30),
    ((3, 3), (1, 1), (1, 1), (1, 1), 1, 1),
    ((3, 3), (1, 1), (1, 1), (1, 1), 17, 32),
    ((3, 3), (1, 1), (1, 1), (1, 1), 33, 16),
    ((7, 7), (2, 2), (3, 3), (1, 1), 33, 67),
    ((7, 7), (2, 2), (3, 3), (1, 1), 14, 16),
    ((7, 7), (2, 2), (0, 2), (1, 1), 8, 41),
    ((7, 7), (2, 2), (3, 3), (1, 1), 1, 2),
    ((7, 7), (2, 2), (5, 6), (1, 1), 30, 31),
    ((3, 3), (1, 1), (1, 1), (1, 1), 21, 8),
    ((3, 3), (1, 1), (1, 1), (1, 1), 7, 7),  # with a residual
)
CHANNELS_IN = (1, 2, 3, 8, 17, 31)
BATCHES = (1, 2, 1, 3, 1, 5)
WINOGRAD = {"wg": 2, "wf": 4, "wp": 4}
"""Pixels per side of a tile."""
NAME = operator.attrgetter("name")
SPARSITIES: tuple[float | str, ...] = (0.5, 0.0, "uneven", 1.0, 0.75)


def layer(kernel: KernelSpec, index: int, geometry: tuple[Any, ...], **changes: Any) -> LayerShape:
    """The other dimensions run through their values at different paces."""
    size, stride, padding, dilation, height, width = geometry
    unit = max(kernel.tile_out, kernel.block_n)
    outs = (unit, unit - 1, unit + 1, 2 * unit, 1, 2 * unit + max(1, unit // 2), 13)
    values: dict[str, Any] = {
        "op": "conv2d",
        "batch_size": BATCHES[index % len(BATCHES)],
        "in_channels": CHANNELS_IN[(index * 5 + kernel.row) % len(CHANNELS_IN)],
        "out_channels": max(1, outs[(index + kernel.row) % len(outs)]),
        "in_height": height,
        "in_width": width,
        "kernel": size,
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "activation": ("none", "relu", "relu6")[index % 3],
        "residual": index % 4 == 1,
    }
    return LayerShape(**(values | changes))


def uneven_blocks(shape: LayerShape, block_n: int, rng: np.random.Generator) -> BlockStructure:
    """Groups that keep nothing, everything, and something in between, in turn."""
    groups = -(-shape.out_channels // block_n)
    counts = [
        (0, shape.in_channels, int(rng.integers(0, shape.in_channels + 1)))[g % 3]
        for g in range(groups)
    ]
    lists = [np.sort(rng.permutation(shape.in_channels)[:count]) for count in counts]
    return BlockStructure(
        block_n=block_n,
        group_start=np.cumsum([0, *counts]).astype(np.int32),
        kept=np.concatenate(lists).astype(np.int32),
    )


def to_bf16(values: Any) -> Any:
    """Rounds to the nearest bf16, ties to even, and gives float32."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


class Case:
    """A layer with random arrays."""

    def __init__(self, kernel: KernelSpec, shape: LayerShape, sparsity: float | str, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.kernel, self.shape = kernel, shape
        # Every second layer of bf16 writes float32, as a classifier does.
        self.output_dtype = "f32" if seed % 2 else kernel.dtype
        self.structure = None
        if kernel.block_n and sparsity == "uneven":
            self.structure = uneven_blocks(shape, kernel.block_n, rng)
        elif kernel.block_n:
            self.structure = random_blocks(
                shape, Pattern(group_out=kernel.block_n), float(sparsity), seed
            )
        self.weight = self.draw(rng, (shape.out_channels, shape.in_channels, *shape.kernel))
        self.bias = self.draw(rng, (shape.out_channels,)) if seed % 3 else None
        self.x = self.draw(rng, shape.input_shape)
        self.residual = self.draw(rng, shape.output_shape) if shape.residual else None

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
        """Values that the kernel's type can hold, so that it rounds nothing but its result."""
        values = rng.standard_normal(shape, dtype=np.float32)
        return to_bf16(values) if self.kernel.dtype == "bf16" else values

    def program(self, threads: int = 1) -> LayerProgram:
        return LayerProgram(
            self.shape,
            weight=self.weight,
            bias=self.bias,
            structure=self.structure,
            kernel=self.kernel,
            dtype=self.kernel.dtype,
            output_dtype=self.output_dtype,
            threads=threads,
            pin=False,
        )

    def check(self, reference: Any, got: Any) -> None:
        weight = self.weight
        if self.structure is not None:
            weight = weight * reference.mask(
                self.structure, self.shape.out_channels, self.shape.in_channels
            )
        reference.check_layer(
            got,
            self.x,
            weight,
            self.shape,
            self.bias,
            self.residual,
            self.output_dtype,
            # Winograd's transforms of large tiles multiply errors by their constants.
            amplification={"wf": 2.0, "wp": 4.0}.get(self.kernel.method, 1.0),
        )


def home(kernel: KernelSpec) -> tuple[Any, ...]:
    """A geometry that the kernel runs: 3x3 of stride 1, or 7x7 of stride 2 if it takes nothing else."""
    return GEOMETRIES[27 if kernel.method == "wp" else 4]


def runnable(kernel: KernelSpec, shape: LayerShape) -> bool:
    return not spec.why_not(kernel, shape, Pattern(group_out=kernel.block_n))


@pytest.fixture(params=spec.all_kernels(), ids=NAME)
def kernel(request: pytest.FixtureRequest) -> Iterator[KernelSpec]:
    kernel: KernelSpec = request.param
    shape = layer(kernel, 0, home(kernel))
    if reasons := spec.why_not(kernel, shape, Pattern(group_out=kernel.block_n)):
        pytest.skip("; ".join(reasons))
    yield kernel


def test_geometries(kernel: KernelSpec, reference: Any) -> None:
    ran = 0
    for index, geometry in enumerate(GEOMETRIES):
        shape = layer(kernel, index, geometry)
        if runnable(kernel, shape):
            case = Case(kernel, shape, SPARSITIES[index % len(SPARSITIES)], index)
            program = case.program(threads=1 + index % 2)
            case.check(reference, program.run(case.x, case.residual))
            ran += 1
    # oc may refuse horizontal strides above 2, Winograd all but 3x3 of stride 1.
    assert ran >= ({"wg": 10, "wf": 10, "wp": 6}.get(kernel.method, len(GEOMETRIES) - 2))


def test_pixels_around_the_tile(kernel: KernelSpec, reference: Any) -> None:
    side = WINOGRAD.get(kernel.method, 1)
    tile = kernel.tile_pixels * side
    size, stride, padding, *_ = home(kernel)
    windows = [((1, 1), (1, 1), (0, 0)), ((1, 3), (1, 1), (0, 1))]
    if side > 1:
        windows = [(size, stride, padding)]
    for index, width in enumerate((1, tile - 1, tile, tile + 1, 2 * tile + 1)):
        for size, stride, padding in windows:
            extent = (side * stride[0], max(1, width * stride[1]))
            geometry = (size, stride, padding, (1, 1), *extent)
            case = Case(kernel, layer(kernel, index, geometry, in_channels=5), 0.5, index)
            case.check(reference, case.program().run(case.x, case.residual))


def test_outputs_around_the_tile(kernel: KernelSpec, reference: Any) -> None:
    sizes = {kernel.tile_out, max(1, kernel.block_n)}
    wanted = {max(1, n + delta) for n in sizes for delta in (-1, 0, 1)} | {2 * max(sizes) + 1, 61}
    for index, outputs in enumerate(sorted(wanted)):
        case = Case(kernel, layer(kernel, index, home(kernel), out_channels=outputs), 0.5, index + 1)
        case.check(reference, case.program().run(case.x, case.residual))


@pytest.mark.parametrize(
    "kernel", [k for k in spec.all_kernels() if k.block_n], indirect=True, ids=NAME
)
@pytest.mark.parametrize("sparsity", SPARSITIES)
def test_sparsities(kernel: KernelSpec, sparsity: float | str, reference: Any) -> None:
    shape = layer(kernel, 2, home(kernel), in_channels=23, out_channels=3 * kernel.block_n + 1)
    case = Case(kernel, shape, sparsity, 7)
    case.check(reference, case.program().run(case.x, case.residual))


def test_bits_are_the_same_at_any_thread_count(kernel: KernelSpec) -> None:
    for geometry in (home(kernel), GEOMETRIES[7], GEOMETRIES[23]):
        shape = layer(kernel, 1, geometry, in_channels=19, out_channels=67, batch_size=2)
        if not runnable(kernel, shape):
            continue
        case = Case(kernel, shape, 0.5, 4)
        first = case.program().run(case.x, case.residual)
        for threads in (1, 2, 3):
            program = case.program(threads)
            for _ in range(2):
                assert np.array_equal(first, program.run(case.x, case.residual))


def test_stale_memory_does_not_leak(kernel: KernelSpec, reference: Any) -> None:
    for index in (4, 6, 12, 23, 25, 26, 27, 28):
        shape = layer(kernel, index, GEOMETRIES[index], in_channels=9)
        if not runnable(kernel, shape):
            continue
        case = Case(kernel, shape, 0.5, index)
        program = case.program(threads=2).program
        inputs = [case.x] if case.residual is None else [case.x, case.residual]
        program.run([np.full_like(array, np.nan) for array in inputs])
        output = np.full(case.shape.output_shape, np.nan, np.float32)
        program.run_into(inputs, [output])
        case.check(reference, output)


def test_unaligned_arrays_with_guards(kernel: KernelSpec, reference: Any) -> None:
    case = Case(kernel, layer(kernel, 4, home(kernel), residual=False), 0.5, 5)

    def guarded(shape: tuple[int, ...]) -> tuple[Any, Any]:
        buffer = np.full(int(np.prod(shape)) + 34, 12345.0, np.float32)
        return buffer, buffer[17:-17].reshape(shape)

    source_buffer, source = guarded(case.shape.input_shape)
    sink_buffer, sink = guarded(case.shape.output_shape)
    source[...] = case.x
    case.program().program.run_into([source], [sink])
    case.check(reference, sink)
    for buffer in (source_buffer, sink_buffer):
        assert np.all(buffer[:17] == 12345.0) and np.all(buffer[-17:] == 12345.0)
    assert np.array_equal(source, case.x)


def test_nan_inputs_reach_only_their_outputs(kernel: KernelSpec) -> None:
    shape = layer(
        kernel, 0, home(kernel), in_channels=4, residual=False, batch_size=1, activation="none"
    )
    case = Case(kernel, shape, 0.0, 1)
    case.x[0, 2, 3, 3] = np.nan
    got = case.program().run(case.x)
    touched = np.zeros((shape.out_height, shape.out_width), bool)
    reached = slice(0, 4) if kernel.method == "wp" else slice(2, 5)
    touched[reached, reached] = True
    assert np.all(np.isnan(got[0, :, touched]))
    if side := WINOGRAD.get(kernel.method):  # all outputs of a tile depend on all its inputs
        whole = slice(reached.start // side * side, -(-reached.stop // side) * side)
        touched[whole, whole] = True
    assert np.all(np.isfinite(got[0, :, ~touched]))


def test_names_are_unique_and_say_what_they_mean() -> None:
    kernels = spec.all_kernels()
    assert len({kernel.name for kernel in kernels}) == len(kernels)
    for kernel in kernels:
        contract, method = kernel.name.split("__")
        family = f"conv_onexn{kernel.block_n}" if kernel.block_n else "conv_dense"
        assert contract == f"{kernel.dtype}_{family}"
        assert method == f"{kernel.isa}_{kernel.method}{kernel.tile_out}x{kernel.tile_pixels}"
        assert spec.get(kernel.name) == kernel
        assert kernel.family == family.rstrip("0123456789")


def test_every_block_size_has_a_portable_kernel() -> None:
    portable = {kernel.block_n for kernel in spec.all_kernels() if kernel.isa == "generic"}
    assert portable == {0, 1, 2, 4, 8, 16, 32, 64}
