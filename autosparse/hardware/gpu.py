"""What the GPUs are, as the NVIDIA driver describes them. A host without one is an ordinary host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import pynvml

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


def detect_gpus(nvml: Any = pynvml) -> tuple[tuple[GpuProfile, ...], str]:
    """Describes every GPU the driver lets this process see.

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


def _describe_all(nvml: Any) -> tuple[tuple[GpuProfile, ...], str]:
    driver = _text(nvml.nvmlSystemGetDriverVersion())
    count = nvml.nvmlDeviceGetCount()
    gpus = tuple(_describe(nvml, index, driver) for index in range(count))
    return gpus, "" if gpus else f"no GPU: the NVIDIA driver {driver} sees no device"


def _describe(nvml: Any, index: int, driver: str) -> GpuProfile:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)

    def ask(question: Callable[[], _T]) -> _T | None:
        try:
            return question()
        except nvml.NVMLError:  # a field that this device or driver does not have
            return None

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


def _multiprocessors(lanes: int | None, capability: tuple[int, ...]) -> int | None:
    per_multiprocessor = _LANES_PER_MULTIPROCESSOR.get((capability[0], capability[1]))
    if lanes is None or per_multiprocessor is None:
        return None
    return lanes // per_multiprocessor


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
