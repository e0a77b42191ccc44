"""Which kernels there are now, and by which sources: what tells a current row from a stale one."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from types import MappingProxyType

from autosparse.kernels import spec


@functools.cache
def kernel_hashes() -> Mapping[str, str]:
    """Gives kernel name to source hash, of every kernel of the native table."""
    return MappingProxyType({kernel.name: spec.source_hash(kernel) for kernel in spec.all_kernels()})
