"""The kernel table as records: what kernels there are, what they run, and why they cannot."""

from __future__ import annotations

import difflib
import functools
from dataclasses import dataclass

from autosparse.errors import NoKernel, UsageError
from autosparse.kernels import binding
from autosparse.kernels.binding import NativeOp, OpKind
from autosparse.records import LayerShape, Pattern, Record

# Winograd's filtering multiplies weights that were transformed once, more of them than there were.
_TRANSFORMING = frozenset({"wg", "wf", "wp"})


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelSpec(Record):
    """One compiled kernel variant.

    Attributes:
        name: ``<dtype>_<contract>__<isa>_<method><outputs>x<pixels>``; kernels with the same contract
            are interchangeable.
        family: ``conv_onexn`` or ``conv_dense``.
        method: ``px`` (vectors along pixels), ``oc`` (vectors along outputs), or another that
            kernels/README.md lists.
        isa: instruction set it was compiled for.
        block_n: N of the 1xN pattern that it runs; 0 is dense.
        tile_out: outputs per register tile.
        tile_pixels: pixels per register tile.
        dtype: arithmetic type.
        row: its row in the native table.
    """

    name: str
    family: str
    method: str
    isa: str
    block_n: int
    tile_out: int
    tile_pixels: int
    dtype: str = "f32"
    row: int

    @property
    def expands_weights(self) -> bool:
        """Whether it keeps transformed weights, 1.8 to 4 times as many as it is given."""
        return self.method in _TRANSFORMING


@functools.cache
def all_kernels() -> tuple[KernelSpec, ...]:
    """Lists every kernel of this build, whether or not it runs here."""
    return tuple(
        KernelSpec(
            name=info.name,
            family=info.family,
            method=info.method,
            isa=info.isa,
            block_n=info.block_n,
            tile_out=info.tile_out,
            tile_pixels=info.tile_pixels,
            dtype=info.dtype,
            row=info.row,
        )
        for info in binding.kernel_table()
    )


def get(name: str) -> KernelSpec:
    """Finds a kernel by name.

    Raises:
        UsageError: no such kernel; the message names the nearest.
    """
    names = {kernel.name: kernel for kernel in all_kernels()}
    if name in names:
        return names[name]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
    raise UsageError(
        f"kernel must be a name that `autosparse kernels` lists, but got {name!r}; nearest: {near[0]}"
    )


def why_not_native(dtype: str) -> str:
    """Says why no kernel computes in `dtype` with this CPU's own instructions; empty if one does.

    Every build has portable kernels of every type, but those of bf16 are for checking only: they
    convert each operand, and are far slower than kernels of float32.
    """
    if dtype == "f32":
        return ""
    isas = {kernel.isa for kernel in all_kernels() if kernel.dtype == dtype} - {"generic"}
    needed = sorted(isas, key=binding.ISA_NAMES.index)
    has = binding.detect_isa()
    if any(binding.ISA_NAMES.index(isa) <= binding.ISA_NAMES.index(has) for isa in needed):
        return ""
    words = " or ".join(needed) or "another build"
    return f"kernels of {dtype} need {words}, but the widest that runs here is {has}"


def native_op(
    shape: LayerShape, pattern: Pattern, *, inputs: tuple[int, ...] = (0,), output: int = 0
) -> NativeOp:
    """Gives the convolution operator of a layer, without weights."""
    top, left = shape.padding
    activation = {"none": 0, "relu": 1, "relu6": 2}[shape.activation]
    return NativeOp(
        kind=OpKind.CONV if shape.groups == 1 else OpKind.CONV_GROUPED,
        inputs=inputs,
        output=output,
        activation=binding.Activation(activation),
        kernel_size=shape.kernel,
        stride=shape.stride,
        padding=(top, left, top, left),
        dilation=shape.dilation,
        groups=shape.groups,
        block_n=pattern.group_out,
    )


def input_shape(shape: LayerShape) -> tuple[int, int, int, int]:
    """Gives the input tensor's extents, NCHW."""
    return (shape.batch_size, shape.in_channels, shape.in_height, shape.in_width)


def output_shape(shape: LayerShape) -> tuple[int, int, int, int]:
    """Gives the output tensor's extents, NCHW."""
    return (shape.batch_size, shape.out_channels, shape.out_height, shape.out_width)


def why_not(kernel: KernelSpec, shape: LayerShape, pattern: Pattern) -> tuple[str, ...]:
    """Gives the reasons why `kernel` cannot run this layer here; empty if it can."""
    reasons = []
    if pattern.unit_in != 1:
        reasons.append(f"keeps single inputs, but the pattern keeps runs of {pattern.unit_in}")
    if pattern.order != "natural":
        reasons.append("runs outputs in natural order only")
    if pattern.nm is not None:
        reasons.append("has no N:M structure inside blocks")
    op = native_op(shape, pattern)
    return (*reasons, *binding.kernel_why_not(kernel.row, op, input_shape(shape)))


def kernels_for(shape: LayerShape, pattern: Pattern, dtype: str = "f32") -> tuple[KernelSpec, ...]:
    """Lists the kernels that can run this layer here in `dtype`.

    Raises:
        NoKernel: there is none; carries every kernel's reasons.
    """
    kernels = [kernel for kernel in all_kernels() if kernel.dtype == dtype]
    reasons = {kernel.name: why_not(kernel, shape, pattern) for kernel in kernels}
    able = tuple(kernel for kernel in kernels if not reasons[kernel.name])
    if not able:
        some = "; ".join(sorted({reason for each in reasons.values() for reason in each}))
        raise NoKernel(
            f"no {dtype} kernel runs {shape.key} with pattern {pattern.name}: {some}", reasons
        )
    return able


def source_hash(kernel: KernelSpec) -> str:
    """Gives the hash, fixed at build time, of the sources and flags that decide a kernel's speed."""
    return binding.kernel_source_hash(kernel.row)
