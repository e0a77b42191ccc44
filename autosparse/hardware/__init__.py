"""What machine this is: the CPU and GPUs, a stable id, and what would spoil measurements here.

What asks libraries about the machine loads them on first use: whoever runs an artifact counts cores and
need not have them.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from autosparse.hardware.cores import affinity, checked_threads, one_per_core, usable_cores
from autosparse.records import CpuProfile, GpuProfile, HardwareProfile, short_hash

if TYPE_CHECKING:
    from autosparse.hardware.doctor import Finding, examine
    from autosparse.hardware.measured import MachineLimits, load_limits, save_limits

_LAZY = {
    "Finding": "doctor",
    "examine": "doctor",
    "MachineLimits": "measured",
    "load_limits": "measured",
    "save_limits": "measured",
}

__all__ = [
    "Finding",
    "MachineLimits",
    "affinity",
    "checked_threads",
    "describe",
    "detect",
    "examine",
    "hardware_id",
    "load_limits",
    "one_per_core",
    "save_limits",
    "usable_cores",
]

# Named one by one, so that a field added to the record later changes nobody's id.
_LASTING = (
    "model",
    "vendor",
    "architecture",
    "isa_usable",
    "cores_physical",
    "cores_usable",
    "smt",
    "numa_nodes",
    "l1d_bytes",
    "l2_bytes",
    "l3_bytes",
)


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)


@cache
def describe() -> HardwareProfile:
    """Describes this host without measured figures and without touching the disk cache."""
    from autosparse.hardware.cpu import detect_cpu, stepping
    from autosparse.hardware.gpu import detect_gpus

    cpu = detect_cpu()
    gpus, note = detect_gpus()
    identity = identify(cpu, gpus, stepping())
    return HardwareProfile(hardware_id=identity, cpu=cpu, gpus=gpus, gpu_note=note)


def detect() -> HardwareProfile:
    """Describes this host: nothing is measured, but figures measured earlier are filled in."""
    from autosparse.hardware.measured import load_limits

    profile = describe()
    limits = load_limits(profile.hardware_id)
    return profile if limits is None else limits.apply(profile)


def hardware_id() -> str:
    """Gives this host's stable id, 12 hexadecimal digits."""
    return describe().hardware_id


def identify(cpu: CpuProfile, gpus: tuple[GpuProfile, ...], cpu_stepping: str) -> str:
    """Gives the stable id of a host: what decides a latency, and nothing that varies from day to day.

    Which of equal cores the process was given, the governor, boost and measured figures do not count;
    how many cores it may use does, for it decides the time of every multithreaded run.
    """
    lasting = {name: getattr(cpu, name) for name in _LASTING}
    return short_hash([lasting, cpu_stepping, [gpu.name for gpu in gpus]], 12)
