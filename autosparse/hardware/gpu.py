"""What the GPUs are, as the NVIDIA driver describes them. A host without one is an ordinary host.

A GPU in MIG mode is none that anything can run on: its slices are, each with multiprocessors and memory
of its own. So slices are listed, and never the GPU that they are of.

Source: NVIDIA, "NVML API Reference Guide", and "Multi-Instance GPU User Guide".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import pynvml

from autosparse.hardware.gpu_sensor import GpuSensor
from autosparse.records import GpuProfile

_T = TypeVar("_T")

ARCHITECTURES = {
    2: "Kepler",
    3: "Maxwell",
    4: "Pascal",
    5: "Volta",
    6: "Turing",
    7: "Ampere",
    8: "Ada",
    9: "Hopper",
    10: "Blackwell",
    13: "Rubin",
}
# FP32 lanes of one multiprocessor by compute capability: NVML counts lanes, not multiprocessors.
_LANES_PER_MULTIPROCESSOR = {
    (6, 0): 64,
    (6, 1): 128,
    (7, 0): 64,
    (7, 2): 64,
    (7, 5): 64,
    (8, 0): 64,
    (8, 6): 128,
    (8, 7): 128,
    (8, 9): 128,
    (9, 0): 128,
    (10, 0): 128,
    (10, 3): 128,
    (12, 0): 128,
    (12, 1): 128,
}
_FIRST_WITH_SPARSE_TENSOR_CORES = (8, 0)
_MIG = "MIG"


def detect_gpus(nvml: Any = pynvml) -> tuple[tuple[GpuProfile, ...], str]:
    """Describes every GPU, or slice of one, that the driver lets this process see.

    Args:
        nvml: the module that speaks to the driver.

    Returns:
        The GPUs, and a sentence that says why there are none (empty when there are some).
    """
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        return (), f"no GPU: the NVIDIA driver does not answer ({error})"
    try:
        return _describe_all(nvml)
    except nvml.NVMLError as error:
        return (), f"no GPU: the NVIDIA driver answers, but a device cannot be read ({error})"
    finally:
        nvml.nvmlShutdown()


def visible(gpus: Sequence[GpuProfile], named: str | None) -> tuple[GpuProfile, ...]:
    """Gives the GPUs that a process may use, in the order in which it numbers them.

    Numbers are taken for the driver's, those that nvidia-smi shows. CUDA takes them so where
    ``CUDA_DEVICE_ORDER=PCI_BUS_ID``, or where all GPUs are alike; else it may number them by speed. So
    whoever is given a GPU is given it by its UUID, which means one.

    Args:
        gpus: all of them.
        named: the value of ``CUDA_VISIBLE_DEVICES``: numbers, or beginnings of UUIDs, comma separated;
            as for CUDA, the first that is none ends the list. None where it is not set.
    """
    if named is None:
        return tuple(gpus)
    found: list[GpuProfile] = []
    for name in map(str.strip, named.split(",")):
        meant = [gpu for gpu in gpus if _is_meant(gpu, name)]
        if not meant or any(gpu in found for gpu in meant):
            break
        found += meant
    return tuple(found)


def _is_meant(gpu: GpuProfile, name: str) -> bool:
    if name.isdecimal():
        return gpu.index == int(name)
    return name.startswith(("GPU-", "MIG-")) and gpu.uuid.startswith(name)


def open_sensor(uuid: str, nvml: Any = pynvml) -> GpuSensor | None:
    """Gives what reads clocks, power and users of a GPU or slice; None if the driver does not answer.

    Args:
        uuid: the driver's id of it.
        nvml: the module that speaks to the driver.
    """
    try:
        nvml.nvmlInit()
        return GpuSensor(nvml, nvml.nvmlDeviceGetHandleByUUID(uuid))
    except nvml.NVMLError:
        return None


def _describe_all(nvml: Any) -> tuple[tuple[GpuProfile, ...], str]:
    driver = _text(nvml.nvmlSystemGetDriverVersion())
    whole = [
        _describe(nvml, index, nvml.nvmlDeviceGetHandleByIndex(index), driver)
        for index in range(nvml.nvmlDeviceGetCount())
    ]
    gpus = [found for gpu in whole for found in (_slices(nvml, gpu) if gpu.mig else [gpu])]
    if gpus:
        return tuple(gpus), ""
    if whole:
        return (), (
            f"no GPU: {whole[0].name} is in MIG mode, but has no slices; make some with "
            "nvidia-smi mig -cgi PROFILE -C, or leave the mode with nvidia-smi -mig 0"
        )
    return (), f"no GPU: the NVIDIA driver {driver} sees no device"


def _describe(nvml: Any, index: int, handle: Any, driver: str) -> GpuProfile:
    ask = _asking(nvml)
    capability = tuple(nvml.nvmlDeviceGetCudaComputeCapability(handle))
    limit_milliwatts = ask(lambda: int(nvml.nvmlDeviceGetEnforcedPowerLimit(handle)))
    mig = ask(lambda: nvml.nvmlDeviceGetMigMode(handle)[0] == nvml.NVML_DEVICE_MIG_ENABLE)
    architecture = ask(lambda: int(nvml.nvmlDeviceGetArchitecture(handle)))
    return GpuProfile(
        index=index,
        name=_text(nvml.nvmlDeviceGetName(handle)),
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
        compute_capability=".".join(map(str, capability)),
        architecture=ARCHITECTURES.get(architecture or 0, "unknown"),
        multiprocessors=_multiprocessors(
            ask(lambda: int(nvml.nvmlDeviceGetNumGpuCores(handle))), capability
        ),
        memory_bytes=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
        max_sm_clock_mhz=ask(lambda: int(nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_SM))),
        max_memory_clock_mhz=ask(
            lambda: int(nvml.nvmlDeviceGetMaxClockInfo(handle, nvml.NVML_CLOCK_MEM))
        ),
        power_cap_watts=None if limit_milliwatts is None else limit_milliwatts / 1000,
        mig=bool(mig),
        driver=driver,
        sparse_tensor_cores=capability >= _FIRST_WITH_SPARSE_TENSOR_CORES,
    )


def _slices(nvml: Any, gpu: GpuProfile) -> Iterator[GpuProfile]:
    """Describes the slices of a GPU in MIG mode; places that are empty are passed over."""
    parent = nvml.nvmlDeviceGetHandleByIndex(gpu.index)
    for place in range(int(nvml.nvmlDeviceGetMaxMigDeviceCount(parent))):
        try:
            handle = nvml.nvmlDeviceGetMigDeviceHandleByIndex(parent, place)
        except nvml.NVMLError:
            continue
        yield _slice(nvml, gpu, handle, place)


def _slice(nvml: Any, gpu: GpuProfile, handle: Any, place: int) -> GpuProfile:
    size = _asking(nvml)(lambda: nvml.nvmlDeviceGetAttributes(handle))
    return dataclasses.replace(
        gpu,
        name=_slice_name(_text(nvml.nvmlDeviceGetName(handle)), size),
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
        memory_bytes=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
        multiprocessors=None if size is None else int(size.multiprocessorCount),
        mig_slice=place,
    )


def _slice_name(name: str, size: Any) -> str:
    """Gives a slice's name; drivers that tell that of the whole GPU are completed."""
    if _MIG in name or size is None:
        return name
    gigabytes = round(size.memorySizeMB / 1024)
    return f"{name} {_MIG} {size.gpuInstanceSliceCount}g.{gigabytes}gb"


def _asking(nvml: Any) -> Callable[[Callable[[], _T]], _T | None]:
    def ask(question: Callable[[], _T]) -> _T | None:
        try:
            return question()
        except nvml.NVMLError:  # a field that this device or driver does not have
            return None

    return ask


def _multiprocessors(lanes: int | None, capability: tuple[int, ...]) -> int | None:
    per_multiprocessor = _LANES_PER_MULTIPROCESSOR.get((capability[0], capability[1]))
    if lanes is None or per_multiprocessor is None:
        return None
    return lanes // per_multiprocessor


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
