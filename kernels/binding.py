"""The C interface of the executor, through ctypes: programs, the kernel table, machine limits.

No torch, no compilation at run time: the library is built with the package.
"""

from __future__ import annotations

import ctypes
import functools
import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from autosparse.errors import AutosparseError, MissingDependency, NoKernel, UsageError

FloatArray = NDArray[np.float32]
IntArray = NDArray[np.int32]

_ABI_VERSION = 1
_MAX_INPUTS = 8
_BAD_ARGUMENT, _UNSUPPORTED = -1, -2
_ISA_NAMES = ("generic", "avx2", "avx512")

_FLOAT_POINTER = ctypes.POINTER(ctypes.c_float)
_INT_POINTER = ctypes.POINTER(ctypes.c_int32)


class OpKind(IntEnum):
    """What an operator computes (`as_op_kind`)."""

    CONV = 1
    CONV_GROUPED = 2
    MAX_POOL = 3
    AVG_POOL = 4
    GLOBAL_AVG_POOL = 5
    ADD = 6
    MUL = 7
    CONCAT = 8
    AFFINE = 9
    ACTIVATION = 10
    SUBSAMPLE_PAD = 11
    FLATTEN = 12
    SOFTMAX = 13
    ADAPTIVE_AVG_POOL = 14


class Activation(IntEnum):
    """What is applied last (`as_activation`)."""

    NONE = 0
    RELU = 1
    RELU6 = 2
    SILU = 3
    HARD_SWISH = 4
    HARD_SIGMOID = 5
    SIGMOID = 6
    GELU = 7


_OP_INTEGERS = (
    *("output", "residual", "activation", "kernel", "kernel_h", "kernel_w", "stride_h", "stride_w"),
    *("pad_top", "pad_left", "pad_bottom", "pad_right", "dilation_h", "dilation_w", "groups"),
    *("channels_before", "count_include_pad"),
)


class _COp(ctypes.Structure):
    _fields_ = (
        ("kind", ctypes.c_int32),
        ("input_count", ctypes.c_int32),
        ("inputs", ctypes.c_int32 * _MAX_INPUTS),
        *((name, ctypes.c_int32) for name in _OP_INTEGERS),
        ("weight", _FLOAT_POINTER),
        ("bias", _FLOAT_POINTER),
        ("block_n", ctypes.c_int32),
        ("group_start", _INT_POINTER),
        ("kept", _INT_POINTER),
    )


class _CKernelInfo(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char * 96),
        ("family", ctypes.c_char * 32),
        ("method", ctypes.c_char * 32),
        ("isa", ctypes.c_int32),
        ("block_n", ctypes.c_int32),
        ("tile_out", ctypes.c_int32),
        ("tile_pixels", ctypes.c_int32),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeOp:
    """One fused operator; see `as_op` in include/autosparse.h.

    Attributes:
        kind: what it computes.
        inputs: tensor ids.
        output: tensor id.
        residual: tensor added before the activation (convolutions), or -1.
        activation: applied last.
        kernel: row of the kernel table, or -1 for the executor's own default.
        kernel_size: (height, width).
        stride: (height, width).
        padding: (top, left, bottom, right).
        dilation: (height, width).
        groups: convolution groups.
        channels_before: zero channels in front of a sub-sampled input.
        count_include_pad: whether padding counts in an average.
        weight: OIHW (convolutions), or one scale per channel (affine).
        bias: one per output channel, or None.
        block_n: N of the 1xN structure; 0 is dense.
        group_start: first entry of every group in `kept`, and its end.
        kept: kept input channels, group after group, ascending.
    """

    kind: OpKind
    inputs: tuple[int, ...]
    output: int
    residual: int = -1
    activation: Activation = Activation.NONE
    kernel: int = -1
    kernel_size: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    channels_before: int = 0
    count_include_pad: bool = False
    weight: FloatArray | None = None
    bias: FloatArray | None = None
    block_n: int = 0
    group_start: IntArray | None = None
    kept: IntArray | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KernelInfo:
    """One row of the native kernel table, as the library lists it."""

    name: str
    family: str
    method: str
    isa: str
    block_n: int
    tile_out: int
    tile_pixels: int
    row: int


_SIGNATURES: dict[str, tuple[object, tuple[object, ...]]] = {
    "as_abi_version": (ctypes.c_int, ()),
    "as_last_error": (ctypes.c_char_p, ()),
    "as_detect_isa": (ctypes.c_int, ()),
    "as_limit_isa": (ctypes.c_int, (ctypes.c_int,)),
    "as_kernel_count": (ctypes.c_int, ()),
    "as_kernel_get": (ctypes.c_int, (ctypes.c_int, ctypes.POINTER(_CKernelInfo))),
    "as_kernel_source_hash": (ctypes.c_char_p, (ctypes.c_int,)),
    "as_kernel_why_not": (
        ctypes.c_int,
        (ctypes.c_int, ctypes.POINTER(_COp), _INT_POINTER, ctypes.c_char_p, ctypes.c_size_t),
    ),
    "as_program_new": (ctypes.c_void_p, (ctypes.c_int32, ctypes.c_int32)),
    "as_program_free": (None, (ctypes.c_void_p,)),
    "as_program_tensor": (ctypes.c_int, (ctypes.c_void_p, _INT_POINTER)),
    "as_program_input": (ctypes.c_int, (ctypes.c_void_p, ctypes.c_int32)),
    "as_program_output": (ctypes.c_int, (ctypes.c_void_p, ctypes.c_int32)),
    "as_program_op": (ctypes.c_int, (ctypes.c_void_p, ctypes.POINTER(_COp))),
    "as_program_finish": (ctypes.c_int, (ctypes.c_void_p,)),
    "as_program_run": (ctypes.c_int, (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)),
    "as_program_time": (
        ctypes.c_int,
        (
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_int32,
            ctypes.c_void_p,
            ctypes.c_void_p,
        ),
    ),
    "as_programs_time": (
        ctypes.c_int,
        (
            ctypes.c_void_p,
            ctypes.c_int32,
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_int32,
            ctypes.c_void_p,
        ),
    ),
    "as_program_weight_bytes": (ctypes.c_int64, (ctypes.c_void_p,)),
    "as_program_arena_bytes": (ctypes.c_int64, (ctypes.c_void_p,)),
    "as_program_op_count": (ctypes.c_int, (ctypes.c_void_p,)),
    "as_program_op_kernel": (ctypes.c_int, (ctypes.c_void_p, ctypes.c_int32)),
    "as_probe_f32_gflops": (ctypes.c_double, (ctypes.c_int32, ctypes.c_double)),
    "as_probe_bf16_gflops": (ctypes.c_double, (ctypes.c_int32, ctypes.c_double)),
    "as_probe_read_bytes_per_s": (ctypes.c_double, (ctypes.c_int64, ctypes.c_double)),
}


@functools.cache
def _library() -> ctypes.CDLL:
    spec = importlib.util.find_spec("autosparse.kernels._native")
    if spec is None or spec.origin is None:
        raise MissingDependency(
            "the native library must be built with the package, but autosparse.kernels._native is not "
            "installed; reinstall autosparse with a C++17 compiler at hand"
        )
    library = ctypes.CDLL(spec.origin)
    library.as_abi_version.restype = ctypes.c_int
    if (version := library.as_abi_version()) != _ABI_VERSION:
        raise MissingDependency(
            f"the native library must have interface version {_ABI_VERSION}, but {spec.origin} has "
            f"{version}; reinstall autosparse"
        )
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype = result
        function.argtypes = arguments
    return library


def _checked(status: int) -> int:
    """Raises what a negative status stands for; gives other values back."""
    if status >= 0:
        return status
    message = (_library().as_last_error() or b"").decode() or f"native status {status}"
    if status == _BAD_ARGUMENT:
        raise UsageError(message)
    if status == _UNSUPPORTED:
        raise NoKernel(message, {})
    if status == -3:
        raise MemoryError(message)
    raise AutosparseError(message)


def detect_isa() -> str:
    """Gives the widest usable instruction set: ``generic``, ``avx2`` or ``avx512``."""
    return _ISA_NAMES[_library().as_detect_isa()]


def limit_isa(isa: str) -> None:
    """Keeps new programs from using anything wider than `isa`; for tests.

    Raises:
        UsageError: not one of ``generic``, ``avx2``, ``avx512``.
    """
    if isa not in _ISA_NAMES:
        raise UsageError(f"isa must be one of {', '.join(_ISA_NAMES)}, but got {isa!r}")
    _checked(_library().as_limit_isa(_ISA_NAMES.index(isa)))


def kernel_table() -> tuple[KernelInfo, ...]:
    """Lists the native kernel table, in its own order."""
    library = _library()
    rows = []
    for row in range(_checked(library.as_kernel_count())):
        info = _CKernelInfo()
        _checked(library.as_kernel_get(row, ctypes.byref(info)))
        rows.append(
            KernelInfo(
                name=info.name.decode(),
                family=info.family.decode(),
                method=info.method.decode(),
                isa=_ISA_NAMES[info.isa],
                block_n=info.block_n,
                tile_out=info.tile_out,
                tile_pixels=info.tile_pixels,
                row=row,
            )
        )
    return tuple(rows)


def kernel_source_hash(row: int) -> str:
    """Gives the hash of the sources and flags that decide the speed of a kernel table row."""
    digest = _library().as_kernel_source_hash(row)
    assert isinstance(digest, bytes)
    return digest.decode()


def kernel_why_not(row: int, op: NativeOp, in_shape: Sequence[int]) -> tuple[str, ...]:
    """Gives the reasons why a kernel table row cannot run `op` on this machine; empty if it can."""
    buffer = ctypes.create_string_buffer(4096)
    shape = (ctypes.c_int32 * 4)(*in_shape)
    _checked(_library().as_kernel_why_not(row, ctypes.byref(_c_op(op)[0]), shape, buffer, len(buffer)))
    return tuple(buffer.value.decode().splitlines())


def _array(
    values: NDArray[np.generic] | None, dtype: type[np.generic], what: str
) -> NDArray[np.generic] | None:
    if values is None:
        return None
    if values.dtype != dtype:
        raise UsageError(f"{what} must be {np.dtype(dtype).name}, but got {values.dtype}")
    return np.ascontiguousarray(values)


def _c_op(op: NativeOp) -> tuple[_COp, list[object]]:
    """Gives the C struct and the arrays that it points into."""
    if not 1 <= len(op.inputs) <= _MAX_INPUTS:
        raise UsageError(f"an operator must have 1 to {_MAX_INPUTS} inputs, but got {len(op.inputs)}")
    weight = _array(op.weight, np.float32, "weight")
    bias = _array(op.bias, np.float32, "bias")
    group_start = _array(op.group_start, np.int32, "group_start")
    kept = _array(op.kept, np.int32, "kept")
    top, left, bottom, right = op.padding
    out = _COp(
        kind=op.kind,
        input_count=len(op.inputs),
        inputs=(ctypes.c_int32 * _MAX_INPUTS)(*op.inputs),
        output=op.output,
        residual=op.residual,
        activation=op.activation,
        kernel=op.kernel,
        kernel_h=op.kernel_size[0],
        kernel_w=op.kernel_size[1],
        stride_h=op.stride[0],
        stride_w=op.stride[1],
        pad_top=top,
        pad_left=left,
        pad_bottom=bottom,
        pad_right=right,
        dilation_h=op.dilation[0],
        dilation_w=op.dilation[1],
        groups=op.groups,
        channels_before=op.channels_before,
        count_include_pad=int(op.count_include_pad),
        block_n=op.block_n,
    )
    for name, values, pointer in (
        ("weight", weight, _FLOAT_POINTER),
        ("bias", bias, _FLOAT_POINTER),
        ("group_start", group_start, _INT_POINTER),
        ("kept", kept, _INT_POINTER),
    ):
        if values is not None:
            setattr(out, name, values.ctypes.data_as(pointer))
    return out, [weight, bias, group_start, kept]


class NativeProgram:
    """A static program of fused operators, built once and run by one call.

    Runs of one program must not overlap; different programs are independent.

    Args:
        threads: workers, the caller included.
        pin: binds worker i to the i-th processor this process may run on, while it runs.
    """

    def __init__(self, threads: int = 1, pin: bool = True) -> None:
        self._handle: int | None = None
        self._shapes: list[tuple[int, int, int, int]] = []
        self._inputs: list[int] = []
        self._outputs: list[int] = []
        self.threads = threads
        self._handle = _library().as_program_new(threads, int(pin))
        if not self._handle:
            _checked(_BAD_ARGUMENT)

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
            _library().as_program_free(self._handle)
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

    def tensor(self, shape: Sequence[int]) -> int:
        """Adds a tensor of shape (batch, channels, height, width); gives its id."""
        if len(shape) != 4:
            raise UsageError(f"a tensor must have 4 extents (NCHW), but got {tuple(shape)}")
        if any(not 1 <= extent < 2**31 for extent in shape):
            raise UsageError(f"extents must lie in 1..2^31-1, but got {tuple(shape)}")
        batch, channels, height, width = shape
        out = _checked(_library().as_program_tensor(self.handle, (ctypes.c_int32 * 4)(*shape)))
        self._shapes.append((batch, channels, height, width))
        return out

    def input(self, tensor: int) -> None:
        """Names a tensor as the next input of `run`."""
        _checked(_library().as_program_input(self.handle, tensor))
        self._inputs.append(tensor)

    def output(self, tensor: int) -> None:
        """Names a tensor as the next output of `run`."""
        _checked(_library().as_program_output(self.handle, tensor))
        self._outputs.append(tensor)

    def op(self, op: NativeOp) -> int:
        """Adds an operator behind all earlier ones; gives its index.

        Raises:
            UsageError: shapes, attributes or structure break a rule.
            NoKernel: the kernel named in `op` cannot run it here.
        """
        self._check_arrays(op)
        native, alive = _c_op(op)
        index = _checked(_library().as_program_op(self.handle, ctypes.byref(native)))
        del alive
        return index

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

    def finish(self) -> None:
        """Plans the arena and packs the weights; no more operators after this."""
        _checked(_library().as_program_finish(self.handle))

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
            UsageError: an array is not contiguous float32 of the tensor's shape.
        """
        sources, sinks = self.pointers(inputs, outputs)
        _checked(_library().as_program_run(self.handle, sources, sinks))

    def time(
        self, inputs: Sequence[FloatArray], repeats: int, per_op: bool = False
    ) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
        """Runs `repeats` times and gives nanoseconds: one per run, and with `per_op` (repeats, ops)."""
        outputs = [np.empty(shape, np.float32) for shape in self.output_shapes()]
        sources, sinks = self.pointers(inputs, outputs)
        run_ns = np.zeros(repeats, np.int64)
        op_ns = np.zeros((repeats, self.op_count), np.int64) if per_op else None
        op_pointer = None if op_ns is None else op_ns.ctypes.data
        _checked(
            _library().as_program_time(
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

    @property
    def op_count(self) -> int:
        """Operators added so far."""
        return _checked(_library().as_program_op_count(self.handle))

    @property
    def weight_bytes(self) -> int:
        """Bytes of packed weights, biases and index lists."""
        return _checked(_library().as_program_weight_bytes(self.handle))

    @property
    def arena_bytes(self) -> int:
        """Bytes of all activations and workspaces."""
        return _checked(_library().as_program_arena_bytes(self.handle))

    def op_kernels(self) -> tuple[str | None, ...]:
        """Gives the kernel name of every operator; None outside the kernel table."""
        library, table = _library(), kernel_table()
        rows = [library.as_program_op_kernel(self.handle, op) for op in range(self.op_count)]
        return tuple(table[row].name if row >= 0 else None for row in rows)


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
    _checked(
        _library().as_programs_time(handles, len(programs), sources, sinks, repeats, run_ns.ctypes.data)
    )
    return run_ns


def _probe(value: float, what: str) -> float:
    if value < 0:
        raise UsageError(
            f"{what}: threads must lie in 1..1024 and seconds in 0.01..60 (status {value:g})"
        )
    return value


def probe_f32_gflops(threads: int, seconds: float) -> float:
    """Measures fused multiply-adds on `threads` pinned threads, GFLOP/s in all."""
    return _probe(_library().as_probe_f32_gflops(threads, seconds), "probe_f32_gflops")


def probe_bf16_gflops(threads: int, seconds: float) -> float | None:
    """Measures bf16 dot products, GFLOP/s in all; None where the CPU has none."""
    value = _library().as_probe_bf16_gflops(threads, seconds)
    return None if value == _UNSUPPORTED else _probe(value, "probe_bf16_gflops")


def probe_read_bytes_per_s(buffer_bytes: int, seconds: float) -> float:
    """Measures one thread reading a buffer of `buffer_bytes` (1 KiB to 8 GiB) over and over."""
    value: float = _library().as_probe_read_bytes_per_s(buffer_bytes, seconds)
    if value < 0:
        raise UsageError(
            "buffer_bytes must lie in 2^10..2^33 and seconds in 0.01..60, "
            f"but got {buffer_bytes} and {seconds}"
        )
    return value
