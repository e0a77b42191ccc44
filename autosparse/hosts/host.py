"""What every host offers: describing itself, tuning rows, and whole models run in turn.

All work on a host follows one protocol. It is told of by `Progress` while it goes on; a stop ends the
measuring process at once; a process that hangs is killed after its time and becomes a row or an error.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autosparse.closing import Closing
from autosparse.database.table import TuningDatabase
from autosparse.devices.device import Device, kinds
from autosparse.progress import Progress
from autosparse.records import HardwareProfile
from autosparse.storage.serial import Record
from autosparse.tuning.request import TuneForecast, TuneRequest, TuneResult

DTYPES = ("f32", "bf16", "f16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer(Record):
    """A kind of device, as a host has it.

    Attributes:
        kind: name of the kind.
        id: the device's id, by which rows are kept; empty where the host has none.
        name: in the vendor's words.
        kernels: names of those that compute in a type that the device computes in.
        why_none: why the host has no such device; empty if it has.
        why_not: type to the reason why nothing computes in it there.
    """

    kind: str
    id: str = ""
    name: str = ""
    kernels: tuple[str, ...] = ()
    why_none: str = ""
    why_not: Mapping[str, str] = field(default_factory=dict)


class Host(Closing, ABC):
    """A machine that measures.

    Attributes:
        name: `HERE`, or the node as it was named.
        runs: whether anything can be run there; if not, rows are all there is.
    """

    name: str
    runs: bool = True

    @abstractmethod
    def profile(self, *, keep: bool = True, progress: Progress | None = None) -> HardwareProfile:
        """Describes the host with its measured limits; see `measuring.limits.profile`.

        Raises:
            Stopped: a stop was requested.
        """

    @abstractmethod
    def catalogue(self) -> tuple[Offer, ...]:
        """Tells which kinds of devices the host has with which kernels, and why not others."""

    @abstractmethod
    def measure(
        self,
        request: TuneRequest,
        device: Device,
        database: TuningDatabase,
        *,
        progress: Progress | None = None,
    ) -> TuneResult:
        """Measures what is not known yet; see `tuning.autotune.tune`.

        Args:
            request: what to tune.
            device: of this host.
            database: the caller's: known rows are taken from it, and every new one is put there.
            progress: told of every option, and asked whether to stop.

        Raises:
            UsageError: more threads than the device has.
            DatabaseError: rows cannot be read or written.
            Stopped: a stop was requested; the same call goes on.
        """

    @abstractmethod
    def count(self, request: TuneRequest, device: Device, database: TuningDatabase) -> TuneForecast:
        """Tells what `measure` would do, without doing it; see `tuning.forecast.count`."""

    @abstractmethod
    def time_whole(
        self, runner: str, request: Mapping[str, Any], *, step: str, limit_s: float, progress: Progress
    ) -> Mapping[str, Any]:
        """Has whole models compiled and run in turn; see `sessions.apart.call_apart`.

        Args:
            runner: dotted path of the function that carries it out, ``package.module:function``.
            request: plain values for it. Files that they name must be on the host; a key ``database``
                is the URL of the caller's tuning database.
            step: what starting the process is called.
            limit_s: time after which the session counts as hung.
            progress: told what the process tells; a stop ends it at once.

        Raises:
            AutosparseError: the process failed; names the last line it said.
            Stopped: a stop was requested.
        """

    def close(self) -> None:
        """Ends what still runs there. Closing twice is fine."""


def offers(host: HardwareProfile) -> tuple[Offer, ...]:
    """Gives what the machine that this process runs on has of every kind of device."""
    return tuple(_offer(kind, host) for kind in kinds().values())


def _offer(kind: type[Device], host: HardwareProfile) -> Offer:
    found = kind.of(host)
    if not found:
        return Offer(kind=kind.kind, why_none=kind.why_none(host))
    device = found[0]
    why_not = {dtype: why for dtype in DTYPES if (why := device.why_no_dtype(dtype))}
    names = sorted(kind.source_hashes())
    return Offer(
        kind=kind.kind,
        id=device.id,
        name=device.name,
        kernels=tuple(name for name in names if kind.dtype_of(name) not in why_not),
        why_not=why_not,
    )
