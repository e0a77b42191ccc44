"""The machine of this process, whose measuring processes are children of this one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autosparse import hardware
from autosparse.database.table import TuningDatabase
from autosparse.devices.device import Device
from autosparse.hosts.host import Host, Offer, offers
from autosparse.measuring import limits
from autosparse.progress import Progress
from autosparse.records import HardwareProfile
from autosparse.searching.cluster import HERE
from autosparse.sessions.apart import call_apart
from autosparse.tuning.autotune import count, tune
from autosparse.tuning.request import TuneForecast, TuneRequest, TuneResult


class LocalHost(Host):
    """The machine that this process runs on."""

    name = HERE

    def profile(self, *, keep: bool = True, progress: Progress | None = None) -> HardwareProfile:
        """Measures its limits in this process, where they are not known."""
        return limits.profile(keep=keep, progress=progress)

    def catalogue(self) -> tuple[Offer, ...]:
        """Asks every kind of device."""
        return offers(hardware.detect())

    def measure(
        self,
        request: TuneRequest,
        device: Device,
        database: TuningDatabase,
        *,
        progress: Progress | None = None,
    ) -> TuneResult:
        """Measures in a process of its own, which is killed when it hangs."""
        return tune(request, device, database, progress=progress)

    def count(self, request: TuneRequest, device: Device, database: TuningDatabase) -> TuneForecast:
        """Plays the tuning through with predicted latencies."""
        return count(request, device, database)

    def time_whole(
        self, runner: str, request: Mapping[str, Any], *, step: str, limit_s: float, progress: Progress
    ) -> Mapping[str, Any]:
        """Runs the session in a process of its own, while nobody else measures here."""
        return call_apart(runner, request, step=step, limit_s=limit_s, progress=progress)
