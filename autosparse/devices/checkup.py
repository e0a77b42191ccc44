"""The devices of this host: what each can do at most, for `profile`; what is missing, for `doctor`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from autosparse import hardware
from autosparse.devices.device import Device, kinds
from autosparse.hardware import Finding
from autosparse.progress import Progress
from autosparse.records import HardwareProfile


def profile(*, refresh: bool = False, progress: Progress | None = None) -> HardwareProfile:
    """Describes this host with the measured limits of all of its devices, which are kept.

    Args:
        refresh: measure again even where figures exist.
        progress: told of each probe.

    Raises:
        RunError: the home folder cannot be made or written.
        MissingDependency: the compiled kernels cannot be loaded.
        AutosparseError: the limits of a device cannot be measured.
        Stopped: a stop was requested.
    """
    from autosparse.measuring import limits  # loads the kernels of the processor

    found = limits.profile(refresh=refresh, progress=progress)
    measured = {found.hardware_id}
    for kind in kinds().values():
        for device in kind.of(hardware.describe() if refresh else found):
            if device.id not in measured:  # equal ones share their limits
                device.with_limits(progress)
                measured.add(device.id)
    return dataclasses.replace(found, gpus=hardware.detect().gpus)


def check_devices() -> Iterator[Finding]:
    """Whether there are kernels for the GPUs that are here; nothing where there are none."""
    host = hardware.detect()
    for name, kind in kinds().items() if host.gpus else ():
        if found := kind.of(host):
            yield from map(_finding, found)
        else:
            why = kind.why_none(host)
            yield Finding(name=f"device {name}", severity="warn", message=f"none: {why}")


def _finding(device: Device) -> Finding:
    known = "limits are known" if device.has_limits else "limits are measured at first use"
    return Finding(
        name=f"device {device.named}",
        severity="ok",
        message=f"{device.name}, id {device.id}; kernels run on it, and its {known}",
    )
