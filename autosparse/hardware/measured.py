"""Measured limits of devices as they are kept between runs: one small file per id."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from autosparse.errors import RunError, UsageError
from autosparse.records import GpuProfile, HardwareProfile, Record
from autosparse.storage.files import read_json, write_json
from autosparse.storage.paths import home, home_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineLimits(Record):
    """What one machine was measured to do; names and units as in `CpuProfile`."""

    f32_gflops_core: float
    f32_gflops_all: float
    bf16_gflops_core: float | None = None
    bf16_gflops_all: float | None = None
    read_gbytes_per_s: dict[str, float] = field(default_factory=dict)

    def apply(self, profile: HardwareProfile) -> HardwareProfile:
        """Gives the profile with its measured fields filled."""
        return replace(profile, cpu=replace(profile.cpu, **self.to_json()))


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuLimits(Record):
    """What one GPU, or slice of one, was measured to do; names and units as in `GpuProfile`."""

    multiprocessors: int
    l2_bytes: int
    bf16_tflops: float
    f16_tflops: float
    fp8_tflops: float | None = None
    copy_gbytes_per_s: float
    node_us: float
    load_clock_mhz: int | None = None

    def apply(self, gpu: GpuProfile) -> GpuProfile:
        """Gives the profile with its measured fields filled."""
        return replace(gpu, **self.to_json())


def limits_file(hardware_id: str) -> Path:
    """Gives the file that keeps one device's limits."""
    return home_folder() / "limits" / f"{hardware_id}.json"


def load_limits(hardware_id: str) -> MachineLimits | None:
    """Reads the limits of one machine; None where they were never measured or the file is damaged."""
    try:
        return MachineLimits.from_json(read_json(limits_file(hardware_id)))
    except (RunError, TypeError, UsageError):
        return None  # measured again at the next call: nothing is lost


def load_gpu_limits(device_id: str) -> GpuLimits | None:
    """Reads the limits of one GPU; None where they were never measured or the file is damaged."""
    try:
        return GpuLimits.from_json(read_json(limits_file(device_id)))
    except (RunError, TypeError, UsageError):
        return None


def save_limits(hardware_id: str, limits: MachineLimits | GpuLimits) -> None:
    """Keeps the limits of one device; a reader never sees half a file.

    Raises:
        RunError: the home folder cannot be made or written.
    """
    home()
    write_json(limits_file(hardware_id), limits.to_json())
