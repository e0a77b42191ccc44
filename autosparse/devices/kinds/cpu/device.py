"""The host's processor as a device: its kernels are the native table's, its clock is the wall's."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from autosparse.devices.device import Bounds, Built, Device, Kernel, register
from autosparse.devices.kinds.cpu.method_work import summing
from autosparse.devices.kinds.cpu.program import LayerOnCpu
from autosparse.devices.kinds.cpu.roofline import Roofline
from autosparse.devices.layer import Layer
from autosparse.devices.verify import largest_error
from autosparse.kernels import spec
from autosparse.measuring import limits
from autosparse.measuring.histories import keep, load_histories, prober_for
from autosparse.measuring.pace import probe_pace
from autosparse.measuring.states import History, Marks, Prober
from autosparse.measuring.stopwatch import MeasurementPolicy
from autosparse.progress import Progress
from autosparse.records import HardwareProfile, LayerShape, Pattern


@register
@dataclass(frozen=True, slots=True)
class Cpu(Device):
    """The processor of a host.

    Attributes:
        profile: the host; where it is another one than this, nothing can be built or measured.
    """

    profile: HardwareProfile

    @classmethod
    def of(cls, host: HardwareProfile) -> tuple[Self, ...]:
        """Every host has one; its sockets count as one."""
        return (cls(host),)

    @property
    def id(self) -> str:
        """The host's `hardware_id`."""
        return self.profile.hardware_id

    @property
    def name(self) -> str:
        """The vendor's."""
        return self.profile.cpu.model

    @property
    def most_threads(self) -> int:
        """The cores that this process may use."""
        return self.profile.cpu.cores_usable

    @property
    def cache_bytes(self) -> int:
        """Its L3."""
        return self.profile.cpu.l3_bytes

    @property
    def has_limits(self) -> bool:
        """Whether its arithmetic and its read rates were measured."""
        return bool(self.profile.cpu.f32_gflops_core and self.profile.cpu.read_gbytes_per_s)

    def with_limits(self, progress: Progress | None = None) -> Self:
        """Measures them where they are not known; `limits.profile`."""
        return self if self.has_limits else type(self)(limits.profile(progress=progress))

    def why_no_dtype(self, dtype: str) -> str:
        """Says which instruction set is missing."""
        return spec.why_not_native(dtype)

    def kernels_for(self, shape: LayerShape, pattern: Pattern, dtype: str) -> Sequence[Kernel]:
        """Those of the native table; `kernels.spec`."""
        return spec.kernels_for(shape, pattern, dtype)

    @classmethod
    def source_hashes(cls) -> Mapping[str, str]:
        """Those that the build compiled in."""
        return _source_hashes()

    def facts(self, kernel: str) -> str:
        """The microcode. There is no driver, and the native kernels call no library."""
        microcode = self.profile.cpu.microcode
        return "" if microcode is None else f"microcode {microcode}"

    def bounds(self, threads: int, policy: MeasurementPolicy, dtype: str) -> Bounds:
        """The roofline."""
        return Roofline(self.profile.cpu, threads, policy, dtype)

    def history(self, threads: int) -> History:
        """How far apart its processors were seen to lie."""
        return load_histories(self.id).get(threads, History())

    def prober(self, threads: int) -> Prober | None:
        """Hands a cache line between the processors in use, and lets them compute for a moment."""
        return prober_for(threads)

    def keep(self, prober: Prober | None) -> None:
        """Adds to the host's history in the home folder."""
        keep(prober)

    @classmethod
    def watch(cls, threads: int, marks: Marks) -> Prober | None:
        """As `prober`, by marks that are given."""
        return Prober(threads, marks=marks, pace=probe_pace)

    @classmethod
    def build(
        cls,
        layer: Layer,
        kernel: str,
        threads: int,
        *,
        config: str = "",
        copies: int = 1,
        writes_inputs: bool = False,
    ) -> Built:
        """Makes a native program; its kernels have no launch parameters."""
        return LayerOnCpu(layer, spec.get(kernel), threads, copies=copies, writes_inputs=writes_inputs)

    @classmethod
    def dtype_of(cls, kernel: str) -> str:
        """Looks it up in the native table."""
        return spec.get(kernel).dtype

    @classmethod
    def tolerance(cls, layer: Layer, kernel: str, magnitude: float) -> float:
        """Counts the method's additions, and what its transforms make of errors."""
        additions, growth = summing(layer.shape, layer.kept, spec.get(kernel).method)
        return largest_error(layer.shape, additions, magnitude, layer.dtype, growth)


@functools.cache
def _source_hashes() -> Mapping[str, str]:
    return MappingProxyType({kernel.name: spec.source_hash(kernel) for kernel in spec.all_kernels()})
