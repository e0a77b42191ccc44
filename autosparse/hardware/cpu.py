"""What the CPU is: name, instruction sets, cores, caches. Read from /proc and /sys in milliseconds.

py-cpuinfo knows more systems but starts a process and takes a second, so it is asked only for what
Linux did not say.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import cpuinfo

from autosparse.hardware import cores
from autosparse.hardware.caches import parse_size, told_cache_sizes
from autosparse.hardware.cores import ROOT, read_text
from autosparse.records import CpuProfile

# The instruction sets that some kernel, present or planned, could use; the rest of the flags is noise.
_X86 = (
    "sse2 sse4_1 sse4_2 avx f16c fma avx2 avx_vnni avx_vnni_int8 avx512f avx512bw avx512cd avx512dq "
    "avx512vl avx512ifma avx512vbmi avx512_vbmi2 avx512_vnni avx512_bf16 avx512_fp16 "
    "amx_tile amx_bf16 amx_int8 amx_fp16"
)
_ARM = "asimd asimdhp asimddp asimdfhm fphp bf16 i8mm sve sve2 svebf16 svei8mm sme sme2"
INSTRUCTION_SETS = frozenset(f"{_X86} {_ARM}".split())

_SYS_ARCH_PRCTL = 158
_ARCH_REQ_XCOMP_PERM = 0x1023
_XFEATURE_XTILEDATA = 18


def request_amx() -> bool:
    """Asks the operating system to let this process use AMX tiles.

    Returns:
        Whether it may. The grant holds for the process and for children made from now on.
    """
    if platform.machine() != "x86_64":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    return bool(libc.syscall(_SYS_ARCH_PRCTL, _ARCH_REQ_XCOMP_PERM, _XFEATURE_XTILEDATA) == 0)


def detect_cpu(
    root: Path = ROOT,
    cpus: tuple[int, ...] | None = None,
    grant_amx: Callable[[], bool] = request_amx,
) -> CpuProfile:
    """Describes the CPU without measuring anything.

    Args:
        root: where /proc and /sys are.
        cpus: logical processors this process may run on; by default those it was started with.
        grant_amx: asked once, and only when the CPU reports AMX.
    """
    fields = read_cpuinfo(root)
    allowed = cores.affinity() if cpus is None else cpus
    has = instruction_sets(fields)
    granted = has if not any(map(_is_amx, has)) or grant_amx() else _without_amx(has)
    online = cores.online_cpus(root)
    level1, level2, level3 = cache_sizes(allowed[0], root)
    return CpuProfile(
        model=fields.get("model name") or _ask_cpuinfo("brand_raw", "unknown"),
        vendor=fields.get("vendor_id") or _ask_cpuinfo("vendor_id_raw", "unknown"),
        architecture=platform.machine(),
        isa_cpu=has,
        isa_usable=granted,
        simd_width_bits=simd_width_bits(granted, root),
        cores_physical=cores.count_cores(online, root),
        cores_logical=len(online),
        cores_usable=cores.usable_cores(allowed, root),
        affinity=allowed,
        quota_cores=cores.quota_cores(root),
        smt=cores.count_cores(allowed, root) < len(allowed),
        numa_nodes=numa_nodes(root),
        l1d_bytes=level1,
        l2_bytes=level2,
        l3_bytes=level3,
        governor=governor(allowed[0], root),
        turbo=turbo(root),
        microcode=fields.get("microcode"),
        is_virtual=is_virtual(root),
    )


def read_cpuinfo(root: Path = ROOT) -> Mapping[str, str]:
    """Gives the fields of the first processor in /proc/cpuinfo; empty where there is none."""
    fields: dict[str, str] = {}
    for line in (read_text(root / "proc/cpuinfo") or "").splitlines():
        key, colon, value = line.partition(":")
        if not colon and fields:
            break
        if colon:
            fields[key.strip()] = value.strip()
    return fields


def stepping(root: Path = ROOT) -> str:
    """Gives the numbers that tell CPUs of one marketing name apart; virtual machines blur the name."""
    fields = read_cpuinfo(root)
    keys = (
        "cpu family",
        "model",
        "stepping",
        "CPU implementer",
        "CPU part",
        "CPU variant",
        "CPU revision",
    )
    return ".".join(fields[key] for key in keys if key in fields)


def instruction_sets(fields: Mapping[str, str]) -> tuple[str, ...]:
    """Gives the instruction sets among the flags of /proc/cpuinfo, sorted.

    Linux drops a flag whose register state it does not save, so AVX and AVX-512 appear only where the
    operating system enabled them. AMX appears although each process must still ask for it.
    """
    flags = fields.get("flags") or fields.get("Features") or ""
    found = INSTRUCTION_SETS.intersection(flags.split())
    return tuple(sorted(found or INSTRUCTION_SETS.intersection(_ask_cpuinfo("flags", []))))


def _is_amx(name: str) -> bool:
    return name.startswith("amx_")


def _without_amx(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if not _is_amx(name))


def simd_width_bits(usable: tuple[str, ...], root: Path = ROOT) -> int:
    """Gives the widest usable vector in bits; 64 for a CPU without vectors."""
    if "sve" in usable:
        length_bytes = read_text(root / "proc/sys/abi/sve_default_vector_length")
        return 8 * int(length_bytes) if length_bytes else 128
    widths = {"avx512f": 512, "avx2": 256, "avx": 256, "sse2": 128, "asimd": 128}
    return next((width for name, width in widths.items() if name in usable), 64)


def cache_sizes(cpu: int, root: Path = ROOT) -> tuple[int, int, int]:
    """Gives the bytes of L1 data, L2 and L3 cache as one processor sees them; 0 for an absent L3."""
    sizes = told_cache_sizes(cpu, root)
    if any(sizes):
        return sizes
    level1, level2, level3 = (
        parse_size(str(_ask_cpuinfo(f"{name}_cache_size", 0))) for name in ("l1_data", "l2", "l3")
    )
    return level1, level2, level3


def numa_nodes(root: Path = ROOT) -> int:
    """Counts memory nodes, at least one."""
    return max(1, len(list((root / "sys/devices/system/node").glob("node[0-9]*"))))


def governor(cpu: int, root: Path = ROOT) -> str | None:
    """Gives the frequency governor, or None where it cannot be read, as in most virtual machines."""
    return read_text(root / f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor") or None


def turbo(root: Path = ROOT) -> bool | None:
    """Tells whether boost clocks are enabled, or None where it cannot be read."""
    folder = root / "sys/devices/system/cpu"
    forbidden = read_text(folder / "intel_pstate/no_turbo")
    if forbidden is not None:
        return forbidden == "0"
    allowed = read_text(folder / "cpufreq/boost")
    return None if allowed is None else allowed == "1"


def is_virtual(root: Path = ROOT) -> bool:
    """Tells whether a hypervisor shows itself."""
    return "hypervisor" in read_cpuinfo(root).get("flags", "").split()


@cache
def _all_of_cpuinfo() -> Mapping[str, Any]:
    return dict(cpuinfo.get_cpu_info())


def _ask_cpuinfo(key: str, default: Any) -> Any:
    return _all_of_cpuinfo().get(key) or default
