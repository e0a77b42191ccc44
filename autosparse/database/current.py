"""What rows are of now: kernels by their present sources, devices by their ids and facts of the day."""

from __future__ import annotations

import functools
from collections import ChainMap
from collections.abc import Callable, Mapping
from types import MappingProxyType

from autosparse import hardware
from autosparse.devices.device import kinds

HardwareFacts = Callable[[str, str], str]
"""Gives a device's facts of the day, for its id and a kernel's name; empty where they are not known."""


@functools.cache
def kernel_hashes() -> Mapping[str, str]:
    """Gives kernel name to source hash, of every kernel of every kind of device."""
    return MappingProxyType(dict(ChainMap(*(dict(kind.source_hashes()) for kind in kinds().values()))))


def former_ids_of(hardware_id: str) -> tuple[str, ...]:
    """Gives the ids by which earlier versions named this host's CPU; none for other hosts."""
    return hardware.former_ids() if hardware_id == hardware.hardware_id() else ()


def facts_here(hardware_id: str, kernel: str) -> str:
    """Gives the facts of the day of a device of this host; empty for those of other hosts."""
    if hardware_id in former_ids_of(hardware.hardware_id()):
        hardware_id = hardware.hardware_id()
    for kind in kinds().values():
        for device in kind.of(hardware.describe()):
            if device.id == hardware_id:
                return device.facts(kernel)
    return ""
