"""The kernel table as records: what kernels there are, what they run, and why they cannot."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import math
from dataclasses import dataclass

from autosparse.errors import NoKernel, UsageError
from autosparse.kernels import binding
from autosparse.kernels.binding import NativeOp, OpKind
from autosparse.kernels.native_op import ANY_KERNEL, COMPACT_KERNEL
from autosparse.patterns import family_of
from autosparse.patterns.pattern import Contract
from autosparse.records import LayerShape, Pattern, Record

# Structures that the executor reads: all inputs, or one list of kept inputs per group of outputs.
_KINDS = frozenset({"dense", "onexn"})


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
        isa_rank: its place among those there are; each comes behind those that it holds.
        block_n: N of the 1xN pattern that it runs; 0 is dense.
        tile_out: outputs per register tile.
        tile_pixels: pixels per register tile.
        dtype: arithmetic type.
        lanes: floats per vector of its instruction set.
        fuses: whether that multiplies and adds in one instruction; False where this build lacks it.
        window_in: inputs per side of a tile of Winograd's filtering; 1 for other methods.
        window_out: outputs per side of such a tile; 1 for other methods.
        row: its row in the native table.
    """

    name: str
    family: str
    method: str
    isa: str
    isa_rank: int
    block_n: int
    tile_out: int
    tile_pixels: int
    dtype: str = "f32"
    lanes: int
    fuses: bool
    window_in: int = 1
    window_out: int = 1
    row: int

    @property
    def contract(self) -> Contract:
        """What it promises, which patterns ask for."""
        return Contract(self.family.removeprefix("conv_"), self.block_n)

    @property
    def tier(self) -> str:
        """Its instruction set."""
        return self.isa

    @property
    def tier_rank(self) -> int:
        """Place of that among those there are."""
        return self.isa_rank

    @property
    def rate(self) -> float:
        """Floating-point operations per instruction, which differ between instruction sets."""
        return self.lanes * (1 + self.fuses)

    @property
    def expands_weights(self) -> bool:
        """Whether it keeps transformed weights, 1.8 to 4 times as many as it is given."""
        return self.window_out > 1


@functools.cache
def all_kernels() -> tuple[KernelSpec, ...]:
    """Lists every kernel of this build, whether or not it runs here."""
    return tuple(KernelSpec(**dataclasses.asdict(info)) for info in binding.kernel_table())


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
    if dtype not in (known := sorted({kernel.dtype for kernel in all_kernels()})):
        return f"kernels of processors compute in {' and '.join(known)}"
    baseline, *_ = names = binding.isa_names()
    isas = {kernel.isa for kernel in all_kernels() if kernel.dtype == dtype} - {baseline}
    needed = sorted(isas, key=names.index)
    has = binding.detect_isa()
    if any(names.index(isa) <= names.index(has) for isa in needed):
        return ""
    words = " or ".join(needed) or "another build"
    return f"kernels of {dtype} need {words}, but the widest that runs here is {has}"


def native_op(
    shape: LayerShape, block_n: int, *, inputs: tuple[int, ...] = (0,), output: int = 0
) -> NativeOp:
    """Gives a layer's convolution in groups of `block_n` outputs, 0 for dense; without weights."""
    top, left = shape.padding
    return NativeOp(
        kind=OpKind.CONV if shape.groups == 1 else OpKind.CONV_GROUPED,
        inputs=inputs,
        output=output,
        activation=binding.Activation[shape.activation.name],
        kernel_size=shape.kernel,
        stride=shape.stride,
        padding=(top, left, top, left),
        dilation=shape.dilation,
        groups=shape.groups,
        block_n=block_n,
    )


def why_not(kernel: KernelSpec, shape: LayerShape, pattern: Pattern) -> tuple[str, ...]:
    """Gives the reasons why `kernel` cannot run this layer here; empty if it can.

    Raises:
        PlanError: the pattern makes no sense.
    """
    wanted = family_of(pattern).contract(pattern)
    if wanted.kind not in _KINDS or (wanted.unit_in, wanted.nm) != (1, None):
        return (f"{kernel.contract} is not {wanted}, which {pattern.name} needs",)
    op = native_op(shape, wanted.group_out)
    return binding.kernel_why_not(kernel.row, op, shape.input_shape)


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


def expected_cycles(
    shape: LayerShape, pattern: Pattern, sparsity: float, dtype: str, *, compact_weights: bool = False
) -> float:
    """Gives the cycles that the executor expects of its own choice of kernel for a layer here.

    They come from the model that it chooses by, and tell which way to store a layer is faster; they are
    no times. Infinite where no kernel runs it.

    Args:
        shape: of the layer.
        pattern: how it is stored.
        sparsity: fraction of its blocks that are pruned.
        dtype: arithmetic type; cycles of two types do not compare.
        compact_weights: whether kernels that expand weights are left out.
    """
    op = native_op(shape, family_of(pattern).contract(pattern).group_out)
    op = dataclasses.replace(op, kernel=COMPACT_KERNEL if compact_weights else ANY_KERNEL)
    kept = (1 - sparsity) * shape.in_channels
    try:
        return binding.kernel_default(op, dtype, shape.input_shape, shape.output_shape, kept)[1]
    except NoKernel:
        return math.inf


def source_hash(kernel: KernelSpec) -> str:
    """Gives the hash, fixed at build time, of the sources and flags that decide a kernel's speed."""
    return binding.kernel_source_hash(kernel.row)
