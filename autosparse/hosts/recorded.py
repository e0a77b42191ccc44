"""A host that was measured before and is not here: its rows are all there is of it.

For who searches on one machine for another, such as a GPU that is rented by the hour: tune there, bring
the profile and the database along, and search here. Nothing can be timed, so that what has no row is
left out, and no model is run whole: latencies are sums of rows, and are told as that.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

from autosparse.database.table import TuningDatabase
from autosparse.devices.device import Device
from autosparse.errors import ConfigError, UsageError
from autosparse.hosts.host import Host, Offer, offers
from autosparse.progress import Progress
from autosparse.records import HardwareProfile
from autosparse.storage.files import read_json
from autosparse.tuning.autotune import count, known
from autosparse.tuning.request import TuneForecast, TuneRequest, TuneResult


class RecordedHost(Host):
    """A host by its profile.

    Args:
        file: what ``autosparse profile --json`` told there.

    Raises:
        ConfigError: the file is missing, or is no profile.
    """

    runs = False

    def __init__(self, file: Path) -> None:
        self.name = f"recorded:{file}"
        self._profile = read_profile(file)

    def profile(self, *, keep: bool = True, progress: Progress | None = None) -> HardwareProfile:
        """Gives what the file says; nothing is measured."""
        return self._profile

    def catalogue(self) -> tuple[Offer, ...]:
        """Asks every kind of device what the host had of it."""
        return offers(self._profile)

    def measure(
        self,
        request: TuneRequest,
        device: Device,
        database: TuningDatabase,
        *,
        progress: Progress | None = None,
    ) -> TuneResult:
        """Gives what the database knows, and times nothing."""
        return known(request, device, database)

    def count(self, request: TuneRequest, device: Device, database: TuningDatabase) -> TuneForecast:
        """Counts rows that are there; what is missing would be left out, and takes no time."""
        return dataclasses.replace(count(request, device, database), estimated_s=0.0)

    def time_whole(
        self, runner: str, request: Mapping[str, Any], *, step: str, limit_s: float, progress: Progress
    ) -> NoReturn:
        """Refuses: there is nothing to run a model on.

        Raises:
            UsageError: always.
        """
        raise UsageError(
            f"whole models must be run where they are measured, but {self.name} is not here; run this "
            "on that host"
        )


def read_profile(file: Path) -> HardwareProfile:
    """Reads a host's profile.

    Raises:
        ConfigError: the file is missing, or is no profile.
    """
    try:
        return HardwareProfile.from_json(read_json(file))
    except UsageError as error:  # of which a file that is not there, or no JSON, is one
        raise ConfigError(
            f"a recorded host must be a profile, as `autosparse profile --json` tells it, but got "
            f"{file}: {error}"
        ) from None
