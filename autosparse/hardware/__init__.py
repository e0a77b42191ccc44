"""What machine this is: its CPU and GPUs, a stable id of each, and what would spoil measurements here.

A latency belongs to the device that took it, so ids are of devices: the `hardware_id` of a host is that
of its CPU, and GPUs have ids of their own. A GPU or a driver that comes or goes changes no other id.

What asks libraries about the machine loads them on first use: whoever runs an artifact counts cores and
need not have them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any

from autosparse.hardware.cores import affinity, checked_threads, one_per_core, usable_cores
from autosparse.records import CpuProfile, HardwareProfile, short_hash

if TYPE_CHECKING:
    from autosparse.hardware.doctor import Finding, examine
    from autosparse.hardware.measured import (
        GpuLimits,
        MachineLimits,
        load_gpu_limits,
        load_limits,
        save_limits,
    )

_LAZY = {
    "Finding": "doctor",
    "examine": "doctor",
    "GpuLimits": "measured",
    "MachineLimits": "measured",
    "load_gpu_limits": "measured",
    "load_limits": "measured",
    "save_limits": "measured",
}

__all__ = [
    "Finding",
    "GpuLimits",
    "MachineLimits",
    "affinity",
    "checked_threads",
    "describe",
    "detect",
    "examine",
    "former_ids",
    "hardware_id",
    "identify",
    "is_here",
    "load_gpu_limits",
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
    identity = identify(cpu, stepping())
    return HardwareProfile(hardware_id=identity, cpu=cpu, gpus=gpus, gpu_note=note)


@cache
def former_ids() -> tuple[str, ...]:
    """Gives the ids by which earlier versions named this CPU: GPUs were a part of them."""
    from autosparse.hardware.cpu import stepping

    host = describe()
    names = [gpu.name for gpu in host.gpus]
    return (_hash_of(host.cpu, stepping(), names),) if names else ()


def is_here(hardware_id: str) -> bool:
    """Whether an id, of this version or an earlier one, is this host's."""
    return hardware_id in (describe().hardware_id, *former_ids())


def detect() -> HardwareProfile:
    """Describes this host: nothing is measured, but figures measured earlier are filled in."""
    from autosparse.hardware.measured import load_gpu_limits, load_limits

    profile = describe()
    if profile.gpus:
        pairs = ((gpu, load_gpu_limits(gpu.device_id)) for gpu in profile.gpus)
        gpus = tuple(gpu if limits is None else limits.apply(gpu) for gpu, limits in pairs)
        profile = replace(profile, gpus=gpus)
    known = map(load_limits, (profile.hardware_id, *former_ids()))
    limits = next((found for found in known if found is not None), None)
    return profile if limits is None else limits.apply(profile)


def hardware_id() -> str:
    """Gives the stable id of this host's CPU, 12 hexadecimal digits."""
    return describe().hardware_id


def identify(cpu: CpuProfile, cpu_stepping: str) -> str:
    """Gives the stable id of a CPU: what decides a latency, and nothing that varies from day to day.

    Which of equal cores the process was given, the governor, boost, microcode and measured figures do
    not count; how many cores it may use does, for it decides the time of every multithreaded run.
    """
    return _hash_of(cpu, cpu_stepping, [])


def _hash_of(cpu: CpuProfile, cpu_stepping: str, gpu_names: list[str]) -> str:
    # Names of GPUs were a part once: with none, ids are those of hosts that never had one.
    lasting = {name: getattr(cpu, name) for name in _LASTING}
    return short_hash([lasting, cpu_stepping, gpu_names], 12)
