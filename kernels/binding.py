"""The C interface of the executor, through ctypes: programs, the kernel table, machine limits.

No torch, no compilation at run time: the library is built with the package.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from autosparse.errors import UsageError
from autosparse.kernels.native import ANY_ISA, BAD_ARGUMENT, CKernelInfo, checked, native
from autosparse.kernels.native_op import (
    BUILTIN_KERNEL,
    Activation,
    FloatArray,
    IntArray,
    NativeOp,
    OpKind,
    c_op,
)
from autosparse.kernels.probes import (
    probe_bf16_gflops,
    probe_f32_gflops,
    probe_handover_ns,
    probe_read_bytes_per_s,
    probe_slowest_gflops,
    probe_slowest_integers_per_s,
    probe_slowest_read_bytes_per_s,
)

__all__ = [
    "DTYPE_NAMES",
    "Activation",
    "FloatArray",
    "IntArray",
    "KernelInfo",
    "MovedLines",
    "NativeOp",
    "NativeProgram",
    "OpKind",
    "detect_isa",
    "isa_names",
    "kernel_default",
    "kernel_source_hash",
    "kernel_table",
    "kernel_why_not",
    "limit_isa",
    "probe_bf16_gflops",
    "probe_f32_gflops",
    "probe_handover_ns",
    "probe_read_bytes_per_s",
    "probe_slowest_gflops",
    "probe_slowest_integers_per_s",
    "probe_slowest_read_bytes_per_s",
    "time_in_turn",
]

DTYPE_NAMES = ("f32", "bf16")


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelInfo:
    """One row of the native kernel table, as the library lists it (`as_kernel_info`)."""

    name: str
    family: str
    method: str
    isa: str
    isa_rank: int
    block_n: int
    tile_out: int
    tile_pixels: int
    dtype: str
    lanes: int
    fuses: bool
    window_in: int
    window_out: int
    row: int


class MovedLines(NamedTuple):
    """Cache lines of 64 bytes that move between workers, as `as_program_moved_lines` counts them.

    As if every worker did its own run of tasks and its cache kept everything; computed from what
    operators state of their tasks, not measured.

    Attributes:
        read: those that a worker reads and another one wrote since it last had them.
        written: the same of those that it writes.
    """

    read: int
    written: int


@functools.cache
def isa_names() -> tuple[str, ...]:
    """Lists the instruction sets that this version knows, each behind those that it holds.

    The first is the portable baseline. A build has some of them.
    """
    count = checked(native().as_isa_count())
    return tuple(native().as_isa_name(isa).decode() for isa in range(count))


def detect_isa() -> str:
    """Gives the widest usable instruction set, one of `isa_names`."""
    return isa_names()[int(native().as_detect_isa())]


def limit_isa(isa: str | None) -> None:
    """Keeps new programs from using more than `isa` and what it holds; None lifts that. For tests.

    Raises:
        UsageError: not one of `isa_names`.
    """
    if isa is not None and isa not in isa_names():
        raise UsageError(f"isa must be one of {', '.join(isa_names())}, but got {isa!r}")
    checked(native().as_limit_isa(ANY_ISA if isa is None else isa_names().index(isa)))


def kernel_table() -> tuple[KernelInfo, ...]:
    """Lists the native kernel table, in its own order."""
    rows = []
    for row in range(checked(native().as_kernel_count())):
        info = CKernelInfo()
        checked(native().as_kernel_get(row, ctypes.byref(info)))
        rows.append(
            KernelInfo(
                name=info.name.decode(),
                family=info.family.decode(),
                method=info.method.decode(),
                isa=isa_names()[info.isa],
                isa_rank=info.isa,
                block_n=info.block_n,
                tile_out=info.tile_out,
                tile_pixels=info.tile_pixels,
                dtype=info.dtype.decode(),
                lanes=info.lanes,
                fuses=bool(info.fuses),
                window_in=info.window_in,
                window_out=info.window_out,
                row=row,
            )
        )
    return tuple(rows)


def kernel_source_hash(row: int) -> str:
    """Gives the hash of the sources and flags that decide the speed of a kernel table row."""
    digest = native().as_kernel_source_hash(row)
    assert isinstance(digest, bytes)
    return digest.decode()


def kernel_why_not(row: int, op: NativeOp, in_shape: Sequence[int]) -> tuple[str, ...]:
    """Gives the reasons why a kernel table row cannot run `op` on this machine; empty if it can."""
    buffer = ctypes.create_string_buffer(4096)
    shape = (ctypes.c_int32 * 4)(*in_shape)
    checked(native().as_kernel_why_not(row, ctypes.byref(c_op(op)[0]), shape, buffer, len(buffer)))
    return tuple(buffer.value.decode().splitlines())


def kernel_default(
    op: NativeOp, dtype: str, in_shape: Sequence[int], out_shape: Sequence[int], kept: float
) -> tuple[int, float]:
    """Gives the row that the executor would choose for a convolution, and the cycles it expects of it.

    Args:
        op: the convolution, its weights left out.
        dtype: arithmetic type.
        in_shape: of its input.
        out_shape: of its output.
        kept: inputs kept per group of outputs, on average.
    """
    cycles = ctypes.c_double()
    shapes = [(ctypes.c_int32 * 4)(*shape) for shape in (in_shape, out_shape)]
    number = DTYPE_NAMES.index(dtype)
    row = native().as_kernel_default(
        ctypes.byref(c_op(op)[0]), number, *shapes, kept, ctypes.byref(cycles)
    )
    return checked(row), cycles.value


class NativeProgram:
    """A static program of fused operators, built once and run by one call.

    Runs of one program must not overlap (the second is refused); different programs are independent.

    Args:
        threads: workers, the caller included.
        pin: binds every worker to a processor while it runs, one that no other run of this process is
            bound to; where too few are left, none is bound.
    """

    def __init__(self, threads: int = 1, pin: bool = True) -> None:
        self._handle: int | None = None
        self._shapes: list[tuple[int, int, int, int]] = []
        self._inputs: list[int] = []
        self._outputs: list[int] = []
        self.threads = threads
        self._handle = native().as_program_new(threads, int(pin))
        if not self._handle:
            checked(BAD_ARGUMENT)

    @classmethod
    def load(cls, path: Path, threads: int = 1, pin: bool = True) -> NativeProgram:
        """Gives the finished program of an artifact.

        Raises:
            ArtifactError: the file is missing, no artifact, damaged, changed, or too new.
            NoKernel: no kernel runs one of its layers here.
        """
        handle = native().as_program_load(os.fsencode(path), threads, int(pin))
        if not handle:
            checked(native().as_last_status())
        program = NativeProgram.__new__(NativeProgram)
        program._handle, program.threads = handle, threads
        program._inputs, program._outputs, program._shapes = [], [], []
        for what, ids in (("input", program._inputs), ("output", program._outputs)):
            for index in range(checked(getattr(native(), f"as_program_{what}_count")(handle))):
                extents = (ctypes.c_int32 * 4)()
                checked(getattr(native(), f"as_program_{what}_shape")(handle, index, extents))
                ids.append(len(program._shapes))
                batch, channels, height, width = extents
                program._shapes.append((batch, channels, height, width))
        return program

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Frees the native program; the object cannot be used any more."""
        if getattr(self, "_handle", None):
            native().as_program_free(self._handle)
            self._handle = None

    @property
    def handle(self) -> int:
        """Address of the native program.

        Raises:
            UsageError: the program was closed.
        """
        if not self._handle:
            raise UsageError("the program was closed; build it again")
        return self._handle

    def tensor(self, shape: Sequence[int], dtype: str = "f32") -> int:
        """Adds a tensor of shape (batch, channels, height, width); gives its id.

        Args:
            shape: its extents.
            dtype: ``f32`` or ``bf16``, inside the program; inputs and outputs are given as float32.
        """
        if len(shape) != 4:
            raise UsageError(f"a tensor must have 4 extents (NCHW), but got {tuple(shape)}")
        if any(not 1 <= extent < 2**31 for extent in shape):
            raise UsageError(f"extents must lie in 1..2^31-1, but got {tuple(shape)}")
        if dtype not in DTYPE_NAMES:
            raise UsageError(f"dtype must be one of {', '.join(DTYPE_NAMES)}, but got {dtype!r}")
        batch, channels, height, width = shape
        extents = (ctypes.c_int32 * 4)(*shape)
        out = checked(native().as_program_tensor(self.handle, extents, DTYPE_NAMES.index(dtype)))
        self._shapes.append((batch, channels, height, width))
        return out

    def input(self, tensor: int) -> None:
        """Names a tensor as the next input of `run`."""
        checked(native().as_program_input(self.handle, tensor))
        self._inputs.append(tensor)

    def output(self, tensor: int) -> None:
        """Names a tensor as the next output of `run`."""
        checked(native().as_program_output(self.handle, tensor))
        self._outputs.append(tensor)

    def op(self, op: NativeOp) -> int:
        """Adds an operator behind all earlier ones; gives its index.

        Raises:
            UsageError: shapes, attributes or structure break a rule.
            NoKernel: the kernel named in `op` cannot run it here.
        """
        self._check_arrays(op)
        described, alive = c_op(op)
        index = checked(native().as_program_op(self.handle, ctypes.byref(described)))
        del alive
        return index

    def op_again(self, earlier: int, *, x: int, output: int, residual: int = -1) -> int:
        """Adds a convolution once more, with a copy of its packed weights; gives its index.

        Packing takes many times as long as copying, and a layer is timed in many copies.

        Args:
            earlier: index of the convolution; not a depthwise one.
            x: tensor like its input.
            output: tensor like its output.
            residual: tensor like its residual, -1 if it has none.

        Raises:
            UsageError: there is no such operator, or the tensors are not like its own.
        """
        return checked(native().as_program_op_again(self.handle, earlier, x, residual, output))

    def _check_arrays(self, op: NativeOp) -> None:
        """The C side cannot see how long an array is."""
        ids = (*op.inputs, op.output)
        if any(not 0 <= tensor < len(self._shapes) for tensor in ids):
            raise UsageError(
                f"inputs and output must be tensor ids below {len(self._shapes)}, but got {ids}"
            )
        inputs, outputs = self._shapes[op.inputs[0]][1], self._shapes[op.output][1]
        if op.kind in (OpKind.CONV, OpKind.CONV_GROUPED):
            expected: tuple[int, ...] = (outputs, inputs // max(1, op.groups), *op.kernel_size)
        else:
            expected = (outputs,)
        if op.weight is not None and op.weight.shape != expected:
            raise UsageError(f"weight must have shape {expected}, but got {op.weight.shape}")
        if op.bias is not None and op.bias.shape != (outputs,):
            raise UsageError(f"bias must have shape {(outputs,)}, but got {op.bias.shape}")
        if op.block_n > 0:
            self._check_structure(op, outputs)

    @staticmethod
    def _check_structure(op: NativeOp, outputs: int) -> None:
        groups = -(-outputs // op.block_n)
        if op.group_start is None or op.group_start.shape != (groups + 1,):
            got = None if op.group_start is None else op.group_start.shape
            raise UsageError(f"group_start must have {groups + 1} entries, but got {got}")
        if op.kept is None or op.kept.ndim != 1 or int(op.group_start[-1]) != len(op.kept):
            raise UsageError(f"kept must have group_start[-1] = {int(op.group_start[-1])} entries")

    def share_weights(self) -> None:
        """Lets operators whose packed weights are equal, such as calls of one layer, hold them once."""
        checked(native().as_program_share_weights(self.handle))

    def finish(self) -> None:
        """Plans the arena and packs the weights; no more operators after this."""
        checked(native().as_program_finish(self.handle))

    def input_shapes(self) -> list[tuple[int, int, int, int]]:
        """Gives the shapes of the inputs, in order."""
        return [self._shapes[tensor] for tensor in self._inputs]

    def output_shapes(self) -> list[tuple[int, int, int, int]]:
        """Gives the shapes of the outputs, in order."""
        return [self._shapes[tensor] for tensor in self._outputs]

    def run(self, inputs: Sequence[FloatArray]) -> list[FloatArray]:
        """Runs one inference on contiguous NCHW arrays; gives new arrays."""
        outputs = [np.empty(shape, np.float32) for shape in self.output_shapes()]
        self.run_into(inputs, outputs)
        return outputs

    def run_into(self, inputs: Sequence[FloatArray], outputs: Sequence[FloatArray]) -> None:
        """Runs one inference into existing arrays, copying nothing.

        Raises:
            UsageError: an array is not contiguous float32 of the tensor's shape, or another thread's
                call is at work on this program.
        """
        sources, sinks = self.pointers(inputs, outputs)
        checked(native().as_program_run(self.handle, sources, sinks))

    def time(
        self, inputs: Sequence[FloatArray], repeats: int, per_op: bool = False
    ) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
        """Runs `repeats` times and gives nanoseconds: one per run, and with `per_op` (repeats, ops)."""
        outputs = [np.empty(shape, np.float32) for shape in self.output_shapes()]
        sources, sinks = self.pointers(inputs, outputs)
        run_ns = np.zeros(repeats, np.int64)
        op_ns = np.zeros((repeats, self.op_count), np.int64) if per_op else None
        op_pointer = None if op_ns is None else op_ns.ctypes.data
        checked(
            native().as_program_time(
                self.handle, sources, sinks, repeats, run_ns.ctypes.data, op_pointer
            )
        )
        return run_ns, op_ns

    def pointers(
        self, inputs: Sequence[FloatArray], outputs: Sequence[FloatArray]
    ) -> tuple[ctypes.Array[ctypes.c_void_p], ctypes.Array[ctypes.c_void_p]]:
        """Gives the addresses of checked arrays, as the C interface takes them."""
        self._check_borders("input", self._inputs, inputs)
        self._check_borders("output", self._outputs, outputs)
        return (
            (ctypes.c_void_p * max(1, len(inputs)))(*(array.ctypes.data for array in inputs)),
            (ctypes.c_void_p * max(1, len(outputs)))(*(array.ctypes.data for array in outputs)),
        )

    def _check_borders(self, what: str, tensors: Sequence[int], arrays: Sequence[FloatArray]) -> None:
        if len(arrays) != len(tensors):
            raise UsageError(f"the program has {len(tensors)} {what}s, but got {len(arrays)} arrays")
        for index, (tensor, array) in enumerate(zip(tensors, arrays, strict=True)):
            shape = self._shapes[tensor]
            if array.shape != shape or array.dtype != np.float32 or not array.flags.c_contiguous:
                raise UsageError(
                    f"{what} {index} must be contiguous float32 of shape {shape}, but got "
                    f"{array.dtype} {array.shape}"
                    + (
                        ""
                        if array.flags.c_contiguous
                        else ", not contiguous; use numpy.ascontiguousarray"
                    )
                )
            if what == "output" and not array.flags.writeable:
                raise UsageError(f"output {index} must be writeable")

    def moved_lines(self) -> tuple[MovedLines, ...]:
        """Counts the cache lines of activations that move between workers in one of many inferences.

        Returns:
            One count per operator, and last that of copying inputs and outputs.
        """
        read, written = np.zeros((2, self.op_count + 1), np.int64)
        checked(native().as_program_moved_lines(self.handle, read.ctypes.data, written.ctypes.data))
        return tuple(map(MovedLines, read.tolist(), written.tolist()))

    @property
    def op_count(self) -> int:
        """Operators added so far."""
        return checked(native().as_program_op_count(self.handle))

    @property
    def weight_bytes(self) -> int:
        """Bytes of packed weights, biases and index lists."""
        return checked(native().as_program_weight_bytes(self.handle))

    @property
    def arena_bytes(self) -> int:
        """Bytes of all activations and workspaces."""
        return checked(native().as_program_arena_bytes(self.handle))

    @property
    def manifest(self) -> str:
        """What the artifact says of itself, as JSON; empty if the program was not loaded."""
        text = native().as_program_manifest(self.handle)
        assert isinstance(text, bytes)
        return text.decode()

    def op_notes(self) -> tuple[str, ...]:
        """Gives per operator why it has another kernel than the artifact names, or an empty text."""
        notes = (native().as_program_op_note(self.handle, op) for op in range(self.op_count))
        return tuple(note.decode() for note in notes)

    def op_kernels(self) -> tuple[str | None, ...]:
        """Gives the kernel name of every operator; None outside the kernel table."""
        table = kernel_table()
        row, names = ctypes.c_int32(), []
        for op in range(self.op_count):
            checked(native().as_program_op_kernel(self.handle, op, ctypes.byref(row)))
            names.append(None if row.value == BUILTIN_KERNEL else table[row.value].name)
        return tuple(names)


def time_in_turn(
    programs: Sequence[NativeProgram], inputs: Sequence[FloatArray], repeats: int
) -> NDArray[np.int64]:
    """Runs equal programs in turn, `repeats` times in all; gives nanoseconds per run.

    With enough programs each finds its weights as cold as the others' weights leave them.
    """
    if not programs:
        raise UsageError("programs timed in turn must be at least one, but got none")
    outputs = [np.empty(shape, np.float32) for shape in programs[0].output_shapes()]
    sources, sinks = programs[0].pointers(inputs, outputs)
    handles = (ctypes.c_void_p * len(programs))(*(program.handle for program in programs))
    run_ns = np.zeros(repeats, np.int64)
    checked(
        native().as_programs_time(handles, len(programs), sources, sinks, repeats, run_ns.ctypes.data)
    )
    return run_ns
