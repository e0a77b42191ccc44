"""What on this host will spoil measurements and what is missing, each with its remedy."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from autosparse.errors import RunError
from autosparse.hardware import cores, cpu
from autosparse.hardware.cores import ROOT
from autosparse.hardware.gpu import detect_gpus, open_sensor
from autosparse.hardware.gpu_sensor import GpuSensor
from autosparse.records import GpuProfile, Record
from autosparse.storage import paths
from autosparse.units import format_bytes

BUSY_PERCENT = 15.0
BUSY_SAMPLE_S = 0.3
MINIMUM_MEMORY_BYTES = 3 << 30
MINIMUM_SHARED_MEMORY_BYTES = 256 << 20
MINIMUM_DISK_BYTES = 2 << 30
REQUIRED = ("torch", "optuna", "ray", "numpy", "scipy", "sklearn", "sqlalchemy", "plotly")
OPTIONAL = {
    "torchvision": "torchvision:NAME models",
    "timm": "timm:NAME models",
    "transformers": "hf:ID models",
    "onnxruntime": "comparison with ONNX Runtime",
    "openvino": "comparison with OpenVINO",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding(Record):
    """One thing the doctor looked at.

    Attributes:
        name: short stable name, such as ``pinning``.
        severity: ``ok``; ``warn`` where figures will suffer; ``fail`` where a verb cannot work.
        message: what was found.
        remedy: what to do about it; empty when nothing needs doing.
    """

    name: str
    severity: Literal["ok", "warn", "fail"]
    message: str
    remedy: str = ""


def examine() -> tuple[Finding, ...]:
    """Looks at everything that decides whether measurements taken here can be trusted.

    Takes about a third of a second, in which it watches how busy the cores are.
    """
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        check_compiled_kernels,
        check_libraries,
        check_home,
        check_pinning,
        check_quota,
        check_siblings,
        check_busy,
        check_clocks,
        check_virtual,
        check_memory,
        check_gpus,
    )
    return tuple(finding for check in checks for finding in check())


def check_compiled_kernels() -> Iterator[Finding]:
    """Whether the native executor can be loaded."""
    spec = importlib.util.find_spec("autosparse.kernels")
    folders = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
    library = next(
        (folder / "_native.so" for folder in folders if (folder / "_native.so").is_file()), None
    )
    remedy = "install autosparse again: pip install '.[search]' (needs a C++17 compiler), or its wheel"
    if library is None:
        yield Finding(
            name="kernels", severity="fail", message="the compiled kernels are missing", remedy=remedy
        )
        return
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        yield Finding(name="kernels", severity="fail", message=f"{library}: {error}", remedy=remedy)
        return
    yield Finding(name="kernels", severity="ok", message=f"compiled kernels load from {library}")


def _is_installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def check_libraries(is_installed: Callable[[str], bool] = _is_installed) -> Iterator[Finding]:
    """Which libraries are missing; nothing is imported."""
    for module in REQUIRED:
        if not is_installed(module):
            yield Finding(
                name=module,
                severity="fail",
                message=f"the library {module} is not installed",
                remedy="install its dependencies: make search, or pip install '.[search]'",
            )
    absent = {module: use for module, use in OPTIONAL.items() if not is_installed(module)}
    uses = ", ".join(f"{module} ({use})" for module, use in absent.items())
    yield Finding(
        name="optional libraries",
        severity="ok",
        message=f"not installed: {uses}" if absent else "all installed",
        remedy="pip install what you want to use; nothing else needs them" if absent else "",
    )


def check_home() -> Iterator[Finding]:
    """Whether results that outlive a run can be kept, and whether there is room for them."""
    try:
        folder = paths.home()
    except RunError as error:
        yield Finding(
            name="home",
            severity="fail",
            message=str(error),
            remedy="set AUTOSPARSE_HOME to a writable folder",
        )
        return
    free = shutil.disk_usage(folder).free
    crowded = free < MINIMUM_DISK_BYTES
    yield Finding(
        name="home",
        severity="warn" if crowded else "ok",
        message=f"{folder} is writable, {format_bytes(free)} free",
        remedy=f"free {format_bytes(MINIMUM_DISK_BYTES)} or set AUTOSPARSE_HOME" if crowded else "",
    )


def check_pinning() -> Iterator[Finding]:
    """Whether a thread can be bound to a processor."""
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        held = os.sched_getaffinity(0) == {min(before)}
    except OSError:
        held = False
    finally:
        os.sched_setaffinity(0, before)
    yield Finding(
        name="pinning",
        severity="ok" if held else "warn",
        message="threads can be pinned to processors"
        if held
        else "threads cannot be pinned to processors",
        remedy="" if held else "allow sched_setaffinity in this container, or measure outside it",
    )


def check_quota(root: Path = ROOT, cpus: tuple[int, ...] | None = None) -> Iterator[Finding]:
    """Whether a control group throttles the process below the cores it sees."""
    allowed = cores.affinity() if cpus is None else cpus
    seen = cores.count_cores(allowed, root)
    quota = cores.quota_cores(root)
    if quota is not None and quota < seen:
        yield Finding(
            name="quota",
            severity="warn",
            message=f"{seen} cores are visible, but the quota allows {quota:g}: the process is stopped "
            "and started again within each period",
            remedy=f"raise the quota to whole cores, or use taskset for {max(1, int(quota))} of them",
        )
        return
    yield Finding(
        name="quota", severity="ok", message=f"{cores.usable_cores(allowed, root)} whole cores usable"
    )


def check_siblings(root: Path = ROOT, cpus: tuple[int, ...] | None = None) -> Iterator[Finding]:
    """Whether two usable logical processors share a core."""
    allowed = cores.affinity() if cpus is None else cpus
    separate = cores.one_per_core(allowed, root)
    if len(separate) == len(allowed):
        yield Finding(name="smt", severity="ok", message="every usable processor has a core of its own")
        return
    listed = ",".join(map(str, separate))
    yield Finding(
        name="smt",
        severity="warn",
        message=f"{len(allowed)} usable processors share {len(separate)} cores",
        remedy=f"keep the sibling processors idle: run under taskset -c {listed}",
    )


def check_busy(
    sample: Callable[[], list[float]] = lambda: psutil.cpu_percent(interval=BUSY_SAMPLE_S, percpu=True),
) -> Iterator[Finding]:
    """Whether something else runs on the cores this process would measure on."""
    online = cores.online_cpus()
    load = dict(zip(online, sample(), strict=False))
    busy = {number: load[number] for number in cores.affinity() if load.get(number, 0.0) > BUSY_PERCENT}
    if busy:
        listed = ", ".join(f"{number} ({percent:.0f} %)" for number, percent in busy.items())
        yield Finding(
            name="load",
            severity="warn",
            message=f"busy processors: {listed}",
            remedy="stop other work, or run under taskset on idle processors",
        )
        return
    yield Finding(name="load", severity="ok", message="the usable processors are idle")


def check_clocks(root: Path = ROOT) -> Iterator[Finding]:
    """Whether clocks will wander."""
    governor = cpu.governor(cores.affinity()[0], root)
    if governor is not None and governor != "performance":
        yield Finding(
            name="governor",
            severity="warn",
            message=f"the frequency governor is {governor!r}",
            remedy="sudo cpupower frequency-set -g performance",
        )
    else:
        known = "cannot be read here" if governor is None else "is 'performance'"
        yield Finding(name="governor", severity="ok", message=f"the frequency governor {known}")
    if cpu.turbo(root):
        yield Finding(
            name="turbo",
            severity="warn",
            message="boost clocks are on: speed depends on temperature and on the neighbours' load",
            remedy="echo 1 | sudo tee /sys/devices/system/cpu/intel_pstate/no_turbo, or "
            "echo 0 | sudo tee /sys/devices/system/cpu/cpufreq/boost",
        )


def check_virtual(root: Path = ROOT) -> Iterator[Finding]:
    """Whether a hypervisor may take cores away unseen."""
    if cpu.is_virtual(root):
        yield Finding(
            name="virtual machine",
            severity="warn",
            message="this is a virtual machine: neighbours can slow it down unseen",
            remedy="trust ratios taken in one interleaved run more than absolute figures",
        )


def check_memory() -> Iterator[Finding]:
    """Whether training workers and their shared object store have room."""
    limit = cores.memory_limit_bytes()
    available = min(psutil.virtual_memory().available, limit or 1 << 62)
    short = available < MINIMUM_MEMORY_BYTES
    yield Finding(
        name="memory",
        severity="warn" if short else "ok",
        message=f"{format_bytes(available)} of memory available",
        remedy=f"free memory: searches want {format_bytes(MINIMUM_MEMORY_BYTES)}" if short else "",
    )
    shared = Path("/dev/shm")
    free = shutil.disk_usage(shared).free if shared.is_dir() else 0
    if free < MINIMUM_SHARED_MEMORY_BYTES:
        yield Finding(
            name="shared memory",
            severity="warn",
            message=f"/dev/shm has {format_bytes(free)} free: Ray falls back to the disk",
            remedy="enlarge it, for a container with --shm-size=1g",
        )


def check_gpus(
    detect: Callable[[], tuple[tuple[GpuProfile, ...], str]] = detect_gpus,
    sensor_of: Callable[[str], GpuSensor | None] = open_sensor,
) -> Iterator[Finding]:
    """Whether something slows the GPUs, or computes on them."""
    gpus, note = detect()
    if not gpus:
        yield Finding(name="GPU", severity="ok", message=note)
    for gpu in gpus:
        yield _gpu_finding(gpu, sensor_of(gpu.uuid))


def _gpu_finding(gpu: GpuProfile, sensor: GpuSensor | None) -> Finding:
    reading = None if sensor is None else sensor.read()
    others = None if sensor is None else sensor.others(has_context=False)
    slowed = reading.slowdowns if reading else ()
    facts = [gpu.name, f"driver {gpu.driver}"]
    if reading and reading.sm_clock_mhz is not None:
        facts.append(f"at {reading.sm_clock_mhz} of {gpu.max_sm_clock_mhz or '?'} MHz")
    if reading and reading.power_watts is not None:
        facts.append(f"{reading.power_watts:.0f} of {gpu.power_cap_watts or 0:.0f} W")
    facts += [f"slowed by {', '.join(slowed)}"] if slowed else []
    facts += [f"{others} processes hold it"] if others else []
    remedies = ["see to its cooling and power supply"] if slowed else []
    remedies += (
        ["measure while nothing computes there: nvidia-smi names the processes"] if others else []
    )
    return Finding(
        name=f"GPU {gpu.place}",
        severity="warn" if remedies else "ok",
        message=", ".join(facts),
        remedy="; ".join(remedies),
    )
