"""What a compiled kernel takes, read from its machine code: registers, memory, matrix instructions.

Machine code is disassembled by `cuobjdump`, which the triton distribution brings; no GPU is needed, and
none to compile kernels written in Triton for one (`compile_only`).
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from autosparse.errors import NoKernel
from autosparse.kernels.gpu.chips import SMEM_RESERVED_BYTES, Chip
from autosparse.kernels.gpu.method import Resources

_TIMEOUT_S = 120
_USAGE = re.compile(r"Function (\S+):\s+REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)")
_TARGET = re.compile(r"code for sm_(\d+)")
_OPCODE = re.compile(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Za-z0-9_.]*)")
# Instructions that are counted. Those that multiply matrices: with operands in shared memory (Hopper:
# HGMMA, with 8-bit floats QGMMA), or in registers (HMMA, with 8-bit floats QMMA).
_MATRIX = frozenset({"HGMMA", "QGMMA", "HMMA", "QMMA"})
# Those that move data, of whose modifiers the width counts: global memory to shared (LDGSTS, or by one
# thread for all UBLKCP), loads, stores and additions there, matrices from shared memory (LDSM), spills.
_MOVING = frozenset(
    {"LDGSTS", "UBLKCP", "UTMALDG", "LDG", "STG", "RED", "REDG", "ATOMG", "LDSM", "LDL", "STL"}
)
_WIDTHS = frozenset({"U8", "U16", "64", "128"})
_PTX = {
    "wgmma.mma_async": re.compile(r"\bwgmma\.mma_async\.sync"),
    "wgmma.mma_async.sp": re.compile(r"\bwgmma\.mma_async\.sp"),
    "mma.sync": re.compile(r"\bmma\.sync\."),
    "mma.sp": re.compile(r"\bmma\.sp\b"),
    "cp.async.16": re.compile(r"\bcp\.async\.c[ag]\.shared\S* [^;]*, (?:0x10|16)\b"),
    "cp.async.8": re.compile(r"\bcp\.async\.ca\.shared\S* [^;]*, (?:0x8|8)\b"),
    "cp.async.4": re.compile(r"\bcp\.async\.ca\.shared\S* [^;]*, (?:0x4|4)\b"),
    "cp.async.bulk": re.compile(r"\bcp\.async\.bulk\.\w*(?:shared|tensor)"),
}


def of_cubin(
    cubin: bytes, *, threads: int, dynamic_bytes: int = 0, ptx: str = "", function: str = ""
) -> Resources:
    """Reads what a kernel takes from its machine code.

    Instructions are named as the disassembler names them, down to ``.SP`` for sparse operands and the
    width of what moves data in bits (``HGMMA``, ``HMMA.SP``, ``LDGSTS.128``, ``LDG.32``), and where
    the text before assembly is given, as that does too (``wgmma.mma_async``, ``cp.async.16`` with
    bytes).

    Args:
        cubin: machine code of one architecture.
        threads: of a block.
        dynamic_bytes: shared memory that a launch asks for beside what the code declares.
        ptx: what it was assembled from; empty if unknown.
        function: which of its kernels; may be left out where there is one.

    Raises:
        NoKernel: there is no disassembler, it fails, or there is no such function.
    """
    text = _disassembled(cubin, function)
    usages = {name: numbers for name, *numbers in _USAGE.findall(text)}
    name = function or next(iter(usages), "")
    if name not in usages or (not function and len(usages) > 1):
        raise _refused(f"one function {function!r}", f"functions {sorted(usages)}")
    registers, stack, declared, local = map(int, usages[name])
    return Resources(
        registers=registers,
        spilled_bytes=stack + local,
        smem_bytes=declared - _reserved(text, declared) + dynamic_bytes,
        threads=threads,
        instructions=dict(sorted((Counter(_counted(text)) + Counter(_of_ptx(ptx))).items())),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """A kernel that was compiled for a chip.

    Attributes:
        resources: what it takes.
        ptx: its text before assembly.
        cubin: its machine code.
    """

    resources: Resources
    ptx: str
    cubin: bytes


def compile_only(kernel: Any, arguments: Mapping[str, Any], chip: Chip, **options: int) -> Compiled:
    """Compiles a kernel written in Triton for a chip that need not be there, as a launch would.

    Args:
        kernel: what `triton.jit` made.
        arguments: of all its parameters: tensors of any device, ``meta`` too, which count as aligned
            where their address is a multiple of 16; whole numbers, which stay unknown; values of
            constants; None for tensors that are left out.
        chip: which.
        options: of the compiler, such as `num_warps` and `num_stages`.

    Raises:
        NoKernel: it does not compile.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    from triton.errors import TritonError
    from triton.runtime.jit import mangle_type

    signature, constants, aligned = {}, {}, {}
    for index, parameter in enumerate(kernel.params):
        value = arguments[parameter.name]
        signature[parameter.name] = "constexpr"
        if value is None or parameter.is_constexpr:
            constants[parameter.name] = value
            continue
        signature[parameter.name] = mangle_type(value)
        if hasattr(value, "data_ptr") and value.data_ptr() % 16 == 0:
            aligned[(index,)] = [["tt.divisibility", 16]]
    major, minor = chip.capability
    source = ASTSource(kernel, signature, constants, aligned)
    target = GPUTarget("cuda", 10 * major + minor, 32)
    try:
        made = triton.compile(source, target=target, options=options)
    except TritonError as error:
        raise NoKernel(f"{kernel.__name__} does not compile for {chip.target}: {error}", {}) from error
    taken = of_cubin(
        made.asm["cubin"],
        threads=32 * made.metadata.num_warps,
        dynamic_bytes=made.metadata.shared,
        ptx=made.asm["ptx"],
        function=made.metadata.name,
    )
    return Compiled(resources=taken, ptx=made.asm["ptx"], cubin=made.asm["cubin"])


def disassembler() -> Path:
    """Gives `cuobjdump`.

    Raises:
        NoKernel: triton, which brings it, is not installed, or came without.
    """
    found = find_spec("triton")
    if found is None or found.origin is None:
        raise _refused("cuobjdump, which triton brings", "no triton; install autosparse[gpu]")
    path = Path(found.origin).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    if not path.is_file():
        raise _refused(f"cuobjdump at {path}", "no such file")
    return path


def _disassembled(cubin: bytes, function: str) -> str:
    only = ["-fun", function] if function else []
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(disassembler()), *only, "-res-usage", "-sass", file.name]
        run = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    if run.returncode:
        raise _refused("machine code that cuobjdump reads", run.stderr.strip() or run.stdout.strip())
    return run.stdout


def _reserved(text: str, declared: int) -> int:
    """Gives the bytes of declared shared memory that are the driver's: counted there since Hopper."""
    target = _TARGET.search(text)
    newer = target is not None and int(target[1]) >= 90
    return SMEM_RESERVED_BYTES if newer and declared >= SMEM_RESERVED_BYTES else 0


def _counted(text: str) -> Iterator[str]:
    for line in text.splitlines():
        match = _OPCODE.match(line)
        if match is None:
            continue
        base, *rest = match[1].split(".")
        if base in _MATRIX:
            yield f"{base}.SP" if "SP" in rest else base
        elif base in _MOVING:
            yield f"{base}.{_width(rest)}" if base not in ("LDSM", "UBLKCP", "UTMALDG") else base


def _width(modifiers: list[str]) -> str:
    """Gives bits of a thread's part: 32 where nothing is said."""
    said = next((each for each in modifiers if each in _WIDTHS), "32")
    return said.removeprefix("U")


def _of_ptx(ptx: str) -> dict[str, int]:
    found = {name: len(pattern.findall(ptx)) for name, pattern in _PTX.items()}
    return {name: count for name, count in found.items() if count}


def _refused(rule: str, got: str) -> NoKernel:
    return NoKernel(f"reading a kernel's resources needs {rule}, but got {got}", {})
