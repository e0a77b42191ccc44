"""What a GPU was like while something was timed: clocks, what slowed it, who else computed there."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from autosparse.hardware.gpu_sensor import GpuReading, GpuSensor
from autosparse.measuring.conditions import Conditions, Watch, is_busy_accepted
from autosparse.measuring.states import HostState, Prober

LEAST_CLOCK = 0.9
"""Share of its clock under load below which a GPU is slower than itself."""


@dataclass(slots=True)
class GpuProber(Prober):
    """Reads the GPU beside every batch; there are no states of it to tell apart.

    What is timed while hardware, heat or the power supply slow the GPU is thrown away for as long as
    there is patience, and is told of after that. Its power cap does not count: under such a load it is
    always there, and rows name it. Other processes, and clocks far below those that this device holds
    under load, are told of. What else the processors of the host do plays no part, as replays are
    queued up.

    Attributes:
        sensor: of the GPU; None where the driver does not answer.
        load_clock_mhz: what the device holds under a steady load, None where that is not known.
        readings: all of them, in order.
    """

    sensor: GpuSensor | None = None
    load_clock_mhz: int | None = None
    readings: list[GpuReading] = field(default_factory=list)

    def __call__(self) -> HostState:
        """Reads once."""
        if self.sensor is None:
            return HostState()
        reading = self.sensor.read()
        self.readings.append(reading)
        return HostState(is_slowed=bool(reading.slowdowns) and not self.is_lenient)

    def conditions(self, watch: Watch) -> Conditions:
        """Tells of the GPU alone."""
        return Conditions(device=self._what_disturbed())

    def _what_disturbed(self) -> str:
        """Says what disturbed what was timed, as far as the driver tells; empty if nothing did."""
        if is_busy_accepted() or self.sensor is None:
            return ""
        found = []
        if others := self.sensor.others():
            found.append(f"{others} other process{'es' * (others > 1)} computed on the GPU")
        # Readings that are not slowed belong to the batches that count, unless patience ran out.
        if self.is_lenient:
            reasons = dict.fromkeys(why for each in self.readings for why in each.slowdowns)
            found += [f"the GPU was slowed: {', '.join(reasons)}"] if reasons else []
        clock, held = self._median("sm_clock_mhz"), self.load_clock_mhz
        if clock is not None and held and clock < LEAST_CLOCK * held:
            found.append(f"the GPU ran at {clock:.0f} MHz, but holds {held} MHz under a steady load")
        return "; ".join(found)

    @property
    def told(self) -> str:
        """Clocks and power at the median, and whether the power cap was reached."""
        units = {
            "sm_clock_mhz": "SM {} MHz",
            "memory_clock_mhz": "memory {} MHz",
            "power_watts": "{} W",
        }
        medians = {name: self._median(name) for name in units}
        parts = [units[name].format(f"{value:.0f}") for name, value in medians.items() if value]
        reasons = dict.fromkeys(why for each in self.readings for why in each.reasons)
        return ", ".join([*parts, *reasons])

    def _median(self, name: str) -> float | None:
        values = [value for each in self.readings if (value := getattr(each, name)) is not None]
        return float(np.median(values)) if values else None
