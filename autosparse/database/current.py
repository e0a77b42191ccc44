"""What rows are of now: kernels by their present sources, devices by their present ids."""

from __future__ import annotations

import functools
from collections import ChainMap
from collections.abc import Mapping
from types import MappingProxyType

from autosparse import hardware
from autosparse.devices.device import kinds


@functools.cache
def kernel_hashes() -> Mapping[str, str]:
    """Gives kernel name to source hash, of every kernel of every kind of device."""
    return MappingProxyType(dict(ChainMap(*(dict(kind.source_hashes()) for kind in kinds().values()))))


def former_ids_of(hardware_id: str) -> tuple[str, ...]:
    """Gives the ids by which earlier versions named this host's CPU; none for other hosts."""
    return hardware.former_ids() if hardware_id == hardware.hardware_id() else ()
