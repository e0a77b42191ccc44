"""The native library, loaded once, with the signatures of its C interface."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import os
from pathlib import Path

from autosparse.errors import ArtifactError, AutosparseError, MissingDependency, NoKernel, UsageError

ABI_VERSION = 6
MAX_INPUTS = 8
BAD_ARGUMENT, UNSUPPORTED, NO_MEMORY = -1, -2, -3
BAD_FILE, BUSY = -5, -6
ANY_ISA = -1

FloatPointer = ctypes.POINTER(ctypes.c_float)
IntPointer = ctypes.POINTER(ctypes.c_int32)

OP_INTEGERS = (
    *("output", "residual", "activation", "kernel", "kernel_h", "kernel_w", "stride_h", "stride_w"),
    *("pad_top", "pad_left", "pad_bottom", "pad_right", "dilation_h", "dilation_w", "groups"),
    *("channels_before", "count_include_pad"),
)


class COp(ctypes.Structure):
    """`as_op`."""

    _fields_ = (
        ("kind", ctypes.c_int32),
        ("input_count", ctypes.c_int32),
        ("inputs", ctypes.c_int32 * MAX_INPUTS),
        *((name, ctypes.c_int32) for name in OP_INTEGERS),
        ("weight", FloatPointer),
        ("bias", FloatPointer),
        ("block_n", ctypes.c_int32),
        ("group_start", IntPointer),
        ("kept", IntPointer),
    )


class CKernelInfo(ctypes.Structure):
    """`as_kernel_info`."""

    _fields_ = (
        ("name", ctypes.c_char * 96),
        ("family", ctypes.c_char * 32),
        ("method", ctypes.c_char * 32),
        ("isa", ctypes.c_int32),
        ("block_n", ctypes.c_int32),
        ("tile_out", ctypes.c_int32),
        ("tile_pixels", ctypes.c_int32),
        ("dtype", ctypes.c_char * 8),
        ("lanes", ctypes.c_int32),
        ("fuses", ctypes.c_int32),
        ("window_in", ctypes.c_int32),
        ("window_out", ctypes.c_int32),
    )


_SIGNATURES: dict[str, tuple[object, tuple[object, ...]]] = {
    "as_abi_version": (ctypes.c_int, ()),
    "as_abi_layout": (ctypes.c_char_p, ()),
    "as_last_error": (ctypes.c_char_p, ()),
    "as_last_status": (ctypes.c_int, ()),
    "as_isa_count": (ctypes.c_int, ()),
    "as_isa_name": (ctypes.c_char_p, (ctypes.c_int,)),
    "as_detect_isa": (ctypes.c_int, ()),
    "as_limit_isa": (ctypes.c_int, (ctypes.c_int,)),
    "as_kernel_count": (ctypes.c_int, ()),
    "as_kernel_get": (ctypes.c_int, (ctypes.c_int, ctypes.POINTER(CKernelInfo))),
    "as_kernel_source_hash": (ctypes.c_char_p, (ctypes.c_int,)),
    "as_kernel_why_not": (
        ctypes.c_int,
        (ctypes.c_int, ctypes.POINTER(COp), IntPointer, ctypes.c_char_p, ctypes.c_size_t),
    ),
    "as_kernel_default": (
        ctypes.c_int,
        (
            ctypes.POINTER(COp),
            ctypes.c_int32,
            IntPointer,
            IntPointer,
            ctypes.c_double,
            ctypes.POINTER(ctypes.c_double),
        ),
    ),
    "as_program_new": (ctypes.c_void_p, (ctypes.c_int32, ctypes.c_int32)),
    "as_program_free": (None, (ctypes.c_void_p,)),
    "as_program_tensor": (ctypes.c_int, (ctypes.c_void_p, IntPointer, ctypes.c_int32)),
    "as_program_input": (ctypes.c_int, (ctypes.c_void_p, ctypes.c_int32)),
    "as_program_output": (ctypes.c_int, (ctypes.c_void_p, ctypes.c_int32)),
    "as_program_op": (ctypes.c_int, (ctypes.c_void_p, ctypes.POINTER(COp))),
    "as_program_op_again": (ctypes.c_int, (ctypes.c_void_p, *(ctypes.c_int32,) * 4)),
    "as_program_share_weights": (ctypes.c_int, (ctypes.c_void_p,)),
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
    "as_program_load": (ctypes.c_void_p, (ctypes.c_char_p, ctypes.c_int32, ctypes.c_int32)),
    "as_program_load_memory": (
        ctypes.c_void_p,
        (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int32, ctypes.c_int32),
    ),
    "as_program_manifest": (ctypes.c_char_p, (ctypes.c_void_p,)),
    "as_program_op_note": (ctypes.c_char_p, (ctypes.c_void_p, ctypes.c_int32)),
    "as_program_input_count": (ctypes.c_int, (ctypes.c_void_p,)),
    "as_program_output_count": (ctypes.c_int, (ctypes.c_void_p,)),
    "as_program_input_shape": (ctypes.c_int, (ctypes.c_void_p, ctypes.c_int32, IntPointer)),
    "as_program_output_shape": (ctypes.c_int, (ctypes.c_void_p, ctypes.c_int32, IntPointer)),
    "as_program_weight_bytes": (ctypes.c_int64, (ctypes.c_void_p,)),
    "as_program_arena_bytes": (ctypes.c_int64, (ctypes.c_void_p,)),
    "as_program_op_count": (ctypes.c_int, (ctypes.c_void_p,)),
    "as_program_moved_lines": (ctypes.c_int, (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)),
    "as_program_op_kernel": (ctypes.c_int, (ctypes.c_void_p, ctypes.c_int32, IntPointer)),
    "as_probe_f32_gflops": (ctypes.c_double, (ctypes.c_int32, ctypes.c_double)),
    "as_probe_bf16_gflops": (ctypes.c_double, (ctypes.c_int32, ctypes.c_double)),
    "as_probe_slowest_gflops": (ctypes.c_double, (ctypes.c_int32, ctypes.c_int32)),
    "as_probe_slowest_integers_per_s": (ctypes.c_double, (ctypes.c_int32, ctypes.c_int32)),
    "as_probe_slowest_read_bytes_per_s": (
        ctypes.c_double,
        (ctypes.c_int32, ctypes.c_int32, ctypes.c_int64),
    ),
    "as_probe_handover_ns": (ctypes.c_double, (ctypes.c_int32, ctypes.c_int32)),
    "as_probe_read_bytes_per_s": (ctypes.c_double, (ctypes.c_int64, ctypes.c_double)),
}


def library_path() -> Path:
    """Gives the native library, which programs in other languages link against.

    Raises:
        MissingDependency: it is not installed.
    """
    spec = importlib.util.find_spec("autosparse.kernels._native")
    if spec is None or spec.origin is None:
        raise MissingDependency(
            "the native library must be built with the package, but autosparse.kernels._native is not "
            "installed; reinstall autosparse with a C++17 compiler at hand"
        )
    return Path(spec.origin)


def include_dir() -> Path:
    """Gives the folder of `autosparse.h`, the interface of that library."""
    return Path(__file__).parent / "include"


@functools.cache
def native() -> ctypes.CDLL:
    """Gives the loaded library.

    Raises:
        MissingDependency: it is not installed, or of another interface version.
    """
    path = library_path()
    loaded = ctypes.CDLL(str(path))
    loaded.as_abi_version.restype = ctypes.c_int
    if (version := loaded.as_abi_version()) != ABI_VERSION:
        raise MissingDependency(
            f"the native library must have interface version {ABI_VERSION}, but {path} has "
            f"{version}; reinstall autosparse"
        )
    for name, (result, arguments) in _SIGNATURES.items():
        function = getattr(loaded, name)
        function.restype = result
        function.argtypes = arguments
    check_layout(loaded.as_abi_layout().decode(), path)
    return loaded


def check_layout(described: str, path: Path) -> None:
    """Compares the structs mirrored here with how a library says that it lays them out.

    Raises:
        MissingDependency: a struct or one of its members differs; the message names it.
    """
    lines = {name: members for name, *members in map(str.split, described.splitlines())}
    for name, mirror in {"as_op": COp, "as_kernel_info": CKernelInfo}.items():
        fields = [(field, getattr(mirror, field)) for field, *_ in mirror._fields_]
        own = [
            str(ctypes.sizeof(mirror)),
            *(f"{field}:{member.offset}:{member.size}" for field, member in fields),
        ]
        if (has := lines.get(name)) != own:
            differing = set(own).symmetric_difference(has or ())
            raise MissingDependency(
                f"the native library must lay out {name} as this package does, but {path} differs in "
                f"{', '.join(sorted(differing)) or 'the order of its members'}; reinstall autosparse"
            )


def checked(status: int) -> int:
    """Raises what a negative status stands for; gives other values back."""
    if status >= 0:
        return status
    message = os.fsdecode(native().as_last_error() or b"") or f"native status {status}"
    if status in (BAD_ARGUMENT, BUSY):
        raise UsageError(message)
    if status == UNSUPPORTED:
        raise NoKernel(message, {})
    if status == NO_MEMORY:
        raise MemoryError(message)
    if status == BAD_FILE:
        raise ArtifactError(message)
    raise AutosparseError(message)
