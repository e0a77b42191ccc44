"""Measured machine limits as they are kept between runs: one small file per `hardware_id`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from autosparse.errors import RunError, UsageError
from autosparse.records import HardwareProfile, Record
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


def limits_file(hardware_id: str) -> Path:
    """Gives the file that keeps one machine's limits."""
    return home_folder() / "limits" / f"{hardware_id}.json"


def load_limits(hardware_id: str) -> MachineLimits | None:
    """Reads the limits of one machine; None where they were never measured or the file is damaged."""
    try:
        return MachineLimits.from_json(read_json(limits_file(hardware_id)))
    except (RunError, TypeError, UsageError):
        return None  # measured again at the next call: nothing is lost


def save_limits(hardware_id: str, limits: MachineLimits) -> None:
    """Keeps the limits of one machine; a reader never sees half a file.

    Raises:
        RunError: the home folder cannot be made or written.
    """
    home()
    write_json(limits_file(hardware_id), limits.to_json())
