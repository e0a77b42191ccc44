"""How a GPU is at this moment: clocks, power, what slows it, and who else computes on it.

Reading takes a fraction of a millisecond and no context on the GPU.

Source: NVIDIA, "NVML API Reference Guide", nvmlClocksEventReasons.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import psutil

from autosparse.storage.serial import Record

_T = TypeVar("_T")

POWER_CAP = "power cap"
"""The GPU lowers its clocks to stay within the power that it may draw, as always under such a load."""

_REASONS = {
    0x004: POWER_CAP,
    0x008: "hardware slowdown",
    0x020: "thermal slowdown by the driver",
    0x040: "thermal slowdown",
    0x080: "power brake",
}
"""Bits of what lowers the clocks, but for settings, idling and displays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuReading(Record):
    """What a sensor reads; None where the driver does not tell.

    Attributes:
        sm_clock_mhz: clock of the multiprocessors; of a slice, that of its GPU, as below.
        memory_clock_mhz: of the memory.
        power_watts: drawn.
        reasons: what lowers the clocks.
    """

    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    power_watts: float | None = None
    reasons: tuple[str, ...] = ()

    @property
    def slowdowns(self) -> tuple[str, ...]:
        """What makes it slower than such a GPU is: all reasons but its power cap."""
        return tuple(reason for reason in self.reasons if reason != POWER_CAP)


class GpuSensor:
    """Reads one GPU or slice.

    Args:
        nvml: the module that speaks to the driver, initialised.
        handle: the driver's, of the GPU or slice.
    """

    def __init__(self, nvml: Any, handle: Any) -> None:
        self._nvml, self._handle = nvml, handle
        # A slice has no clocks of its own.
        self._whole = self._ask(lambda: nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle(handle))
        self._whole = handle if self._whole is None else self._whole
        self._begun_us = int(time.time() * 1e6)

    def read(self) -> GpuReading:
        """Reads once."""
        nvml, whole = self._nvml, self._whole
        milliwatts = self._ask(lambda: nvml.nvmlDeviceGetPowerUsage(whole))
        return GpuReading(
            sm_clock_mhz=self._ask(lambda: int(nvml.nvmlDeviceGetClockInfo(whole, nvml.NVML_CLOCK_SM))),
            memory_clock_mhz=self._ask(
                lambda: int(nvml.nvmlDeviceGetClockInfo(whole, nvml.NVML_CLOCK_MEM))
            ),
            power_watts=None if milliwatts is None else milliwatts / 1e3,
            reasons=self._reasons(),
        )

    def others(self, *, has_context: bool = True) -> int | None:
        """Counts processes that have computed on it beside this one since the sensor was opened.

        A process from which this one descends only waits for it, and does not count. Where the driver
        tells how much processes compute, those that only hold memory do not count either.

        Args:
            has_context: whether this process uses the GPU. If it does and is not among those that the
                driver names, it has another number there, as in a container: then nobody can tell.
        """
        pids = self._ask(lambda: {each.pid for each in self._computing()})
        if pids is None or (has_context and os.getpid() not in pids):
            return None
        others = pids - _own()
        busy = self._ask(lambda: {each.pid for each in self._used() if each.smUtil > 0})
        return len(others if busy is None else others & busy)

    def _computing(self) -> Any:
        return self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)

    def _used(self) -> Any:
        return self._nvml.nvmlDeviceGetProcessUtilization(self._handle, self._begun_us)

    def _reasons(self) -> tuple[str, ...]:
        nvml, whole = self._nvml, self._whole
        bits = self._ask(lambda: int(nvml.nvmlDeviceGetCurrentClocksEventReasons(whole)))
        if bits is None:  # drivers before 535 know the older name
            bits = self._ask(lambda: int(nvml.nvmlDeviceGetCurrentClocksThrottleReasons(whole)))
        return tuple(name for bit, name in _REASONS.items() if bits is not None and bits & bit)

    def _ask(self, question: Callable[[], _T]) -> _T | None:
        try:
            return question()
        except self._nvml.NVMLError:  # this device or driver does not tell
            return None


def _own() -> set[int]:
    return {os.getpid(), *(process.pid for process in psutil.Process().parents())}
