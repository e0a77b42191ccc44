"""A GPU as a device: its kernels are those of `autosparse.kernels.gpu`, its clock is its own."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import ClassVar, Self

import numpy as np

from autosparse import hardware
from autosparse.devices.device import Bounds, Built, Device, Kernel, register
from autosparse.devices.kinds.cuda import libraries
from autosparse.devices.kinds.cuda.roofline import Roofline
from autosparse.devices.kinds.cuda.watch import GpuProber
from autosparse.devices.layer import Layer
from autosparse.devices.verify import WRITING, largest_error, largest_sum
from autosparse.errors import AutosparseError, MissingMeasurement, NoKernel, UsageError
from autosparse.hardware.gpu import open_sensor, visible
from autosparse.hardware.measured import GpuLimits
from autosparse.kernels.gpu import method as gpu_kernels
from autosparse.kernels.gpu.chips import CHIPS, Chip, chip_of
from autosparse.measuring.lock import for_child, measuring
from autosparse.measuring.states import Marks, Prober
from autosparse.measuring.stopwatch import MeasurementPolicy
from autosparse.progress import Progress
from autosparse.records import GpuProfile, HardwareProfile, LayerShape, Pattern
from autosparse.workers.worker import Worker

DTYPES = ("bf16", "f16")
VISIBLE = "CUDA_VISIBLE_DEVICES"

# Tensor cores add some products at a time to a sum, and cut off what it cannot hold: up to a unit of it
# (Fasi et al., "Numerical behavior of NVIDIA tensor cores", PeerJ CS 7, 2021: 4 on Volta, 8 on Ampere,
# 16 on Hopper).
_ADDED_TOGETHER = 8
_F32_EPSILON = 2.0**-23
# A library that sums in parts may round each of them to the type, and then their sum.
_ROUNDINGS = 2


@register
@dataclass(frozen=True, slots=True)
class Cuda(Device):
    """A GPU of NVIDIA, or a slice of one in MIG mode.

    Attributes:
        gpu: as its driver describes it.
        number: among those that the process may use, as `find` counts them.
        is_here: whether it is of this machine; where it is another's, nothing can be built or measured.
    """

    gpu: GpuProfile
    number: int = 0
    is_here: bool = True

    usual_dtypes: ClassVar[tuple[str, ...]] = ("bf16",)  # f16 takes as long, and overflows sooner
    checks_whole: ClassVar[bool] = True  # blocks of a persistent kernel compute many tiles of it

    @classmethod
    def of(cls, host: HardwareProfile) -> tuple[Self, ...]:
        """Gives the GPUs that kernels are made for; of this machine, those that are visible.

        None of this machine where a library is missing: nothing could be built on it.
        """
        is_here = _is_here(host)
        if is_here and libraries.why_no_kernels():
            return ()
        gpus = visible(host.gpus, os.environ.get(VISIBLE) if is_here else None)
        able = [gpu for gpu in gpus if chip_of(gpu.compute_capability)]
        return tuple(cls(gpu, number, is_here) for number, gpu in enumerate(able))

    @classmethod
    def why_none(cls, host: HardwareProfile) -> str:
        """Says what is missing, and what to do about it."""
        if not host.gpus:
            return (
                f"this host has {host.gpu_note or 'no GPU'}; install the driver where there is a GPU, "
                "or search here for a host that has one, by its profile and rows: --host recorded:FILE"
            )
        gpus = visible(host.gpus, os.environ.get(VISIBLE) if _is_here(host) else None)
        if not gpus:
            return f"{VISIBLE}={os.environ.get(VISIBLE)!r} hides all of this host's GPUs; unset it"
        if not any(chip_of(gpu.compute_capability) for gpu in gpus):
            made = ", ".join(".".join(map(str, capability)) for capability in sorted(CHIPS))
            return (
                f"kernels are made for compute capability {made}, but {gpus[0].name} has "
                f"{gpus[0].compute_capability}; use an Ampere, Ada or Hopper GPU"
            )
        return libraries.why_no_kernels()

    # ---------------------------------------------------------------------------------- what it is

    @property
    def id(self) -> str:
        """The GPU's `device_id`: its name, compute capability and memory, and whether it is a slice."""
        return self.gpu.device_id

    @property
    def name(self) -> str:
        """The vendor's."""
        return self.gpu.name

    @property
    def named(self) -> str:
        """``cuda``, or ``cuda:1`` and so on."""
        return f"{self.kind}:{self.number}" if self.number else self.kind

    @property
    def space(self) -> str:
        """The search space of its generation."""
        return "cuda-hopper" if self._chip.has_wgmma else "cuda-ampere"

    @property
    def environment(self) -> Mapping[str, str]:
        """Shows a process this GPU alone, by its UUID: numbers may mean another one to CUDA."""
        return {VISIBLE: self.gpu.uuid, **for_child(self.lock)}

    @property
    def lock(self) -> str:
        """One of its own, by its UUID: it is timed by its own clock, whatever other GPUs do."""
        return self.gpu.uuid

    @property
    def most_threads(self) -> int:
        """There is nothing to choose."""
        return 1

    def check_threads(self, threads: int) -> None:
        """Refuses more than one.

        Raises:
            UsageError: it is more than one.
        """
        if threads != 1:
            raise UsageError(
                f"threads are a processor's, and a GPU leaves none to choose, but got {threads}; "
                "leave --threads out"
            )

    @property
    def cache_bytes(self) -> int:
        """Its L2, once its limits were measured."""
        return self.gpu.l2_bytes

    @property
    def has_limits(self) -> bool:
        """Whether its rates were measured."""
        return bool(self.gpu.bf16_tflops and self.gpu.copy_gbytes_per_s and self.gpu.node_us)

    def with_limits(self, progress: Progress | None = None) -> Self:
        """Measures them where they are not known, in a process of its own, and keeps them.

        Raises:
            MissingMeasurement: they are not known, and the GPU is not here.
            AutosparseError: the process failed; says how.
        """
        if self.has_limits:
            return self
        if not self.is_here:
            raise MissingMeasurement(
                f"the limits of {self.name} were never measured; run autosparse profile where it is"
            )
        limits = _measured(self, progress or Progress())
        hardware.save_limits(self.id, limits)
        return replace(self, gpu=limits.apply(self.gpu))

    # ------------------------------------------------------------------------------------- kernels

    def why_no_dtype(self, dtype: str) -> str:
        """Says which types there are."""
        if dtype in DTYPES:
            return ""
        return f"kernels of GPUs compute in {' and '.join(DTYPES)}, and convert at a model's borders"

    def kernels_for(self, shape: LayerShape, pattern: Pattern, dtype: str) -> Sequence[Kernel]:
        """Those of every method that can; `kernels.gpu.method`."""
        return gpu_kernels.kernels_for(shape, pattern, dtype, self._chip, is_here=self.is_here)

    @classmethod
    def source_hashes(cls) -> Mapping[str, str]:
        """Those of the kernels' methods."""
        return _source_hashes()

    def facts(self, kernel: str) -> str:
        """The driver, the CUDA of torch, the power cap, and the libraries of the kernel's method.

        Of a GPU that is elsewhere nothing is known: it has other libraries.
        """
        if not self.is_here:
            return ""
        known = [f"driver {self.gpu.driver}", f"cuda {libraries.torch_cuda() or 'missing'}"]
        if self.gpu.power_cap_watts:
            known.append(f"cap {self.gpu.power_cap_watts:g} W")
        return ", ".join([*known, *filter(None, [_facts_of(kernel)])])

    def configs(self, kernel: Kernel, shape: LayerShape, pattern: Pattern) -> Sequence[str]:
        """Those of the kernel's method that fit on the chip, most promising first."""
        assert isinstance(kernel, gpu_kernels.GpuKernel)
        return gpu_kernels.method_of(kernel).launches(kernel, shape, pattern, self._chip)

    def bounds(self, threads: int, policy: MeasurementPolicy, dtype: str) -> Bounds:
        """The roofline."""
        return Roofline(self.gpu, policy, dtype)

    @property
    def _chip(self) -> Chip:
        chip = chip_of(self.gpu.compute_capability)
        assert chip is not None, "`of` gives no other"
        return chip

    # ------------------------------------------------------------------------------------- timing

    @classmethod
    def watch(cls, threads: int, marks: Marks) -> Prober | None:
        """Reads clocks, power and users of the first GPU that this process may use."""
        found = cls.of(hardware.detect())
        if not found:
            return None
        gpu = found[0].gpu
        sensor = open_sensor(gpu.uuid)
        return GpuProber(threads, sensor=sensor, load_clock_mhz=gpu.load_clock_mhz)

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
        """Puts a layer on the first GPU that this process sees; see `layer` for what inputs are."""
        import torch

        from autosparse.devices.kinds.cuda.layer import LayerOnGpu

        found = gpu_kernels.get(kernel)
        if not torch.cuda.is_available():
            raise NoKernel(f"{kernel} needs a GPU, but torch sees none", {})
        chip = chip_of(".".join(map(str, torch.cuda.get_device_capability())))
        if chip is None:
            raise NoKernel(f"{kernel} was not made for {torch.cuda.get_device_name()}", {})
        if why := gpu_kernels.why_not(found, layer.shape, layer.pattern, chip):
            raise NoKernel(f"{kernel} cannot run {layer.shape.key}: {why}", {kernel: (why,)})
        device = torch.device("cuda", torch.cuda.current_device())
        return LayerOnGpu(layer, found, config, device, copies=copies)

    @classmethod
    def dtype_of(cls, kernel: str) -> str:
        """Looks it up among the kernels of all methods."""
        return gpu_kernels.get(kernel).dtype

    @classmethod
    def tolerance(cls, layer: Layer, kernel: str, magnitude: float) -> float:
        """Counts additions, what tensor cores cut off of them, and what a library rounds in between."""
        additions = layer.kept * layer.shape.taps
        largest = largest_sum(layer.shape, magnitude)
        beside = additions / _ADDED_TOGETHER * _F32_EPSILON * largest
        if gpu_kernels.method_of(gpu_kernels.get(kernel)).rounds_sums:
            bias = float(np.abs(layer.bias).max())
            beside += WRITING[layer.dtype] * (_ROUNDINGS * largest + bias)
        return largest_error(layer.shape, additions, magnitude, layer.dtype, beside=beside)


def _is_here(host: HardwareProfile) -> bool:
    """Whether the GPUs of a profile are those of this machine."""
    here = {gpu.uuid for gpu in hardware.describe().gpus}
    return any(gpu.uuid in here for gpu in host.gpus)


def _measured(device: Cuda, progress: Progress) -> GpuLimits:
    from autosparse.devices.kinds.cuda.limits import RUNNER, TIMEOUT_S

    chip = chip_of(device.gpu.compute_capability)
    job = {"uuid": device.gpu.uuid, "has_fp8": chip is not None and chip.fp8_factor > 0}
    with (
        measuring("the limits of a GPU", progress, device=device.lock),
        Worker(RUNNER, environment=device.environment) as worker,
    ):
        answer = worker.call(job, TIMEOUT_S, progress)
    if answer.outcome is None:
        raise AutosparseError(
            f"the limits of {device.name} must be measured, but the process that does "
            f"{answer.ending}: {answer.message}"
        )
    return GpuLimits.from_json(answer.outcome)


@functools.cache
def _source_hashes() -> Mapping[str, str]:
    hashes = {
        kernel.name: gpu_kernels.method_of(kernel).source_hash for kernel in gpu_kernels.all_kernels()
    }
    return MappingProxyType(hashes)


@functools.cache
def _facts_of(kernel: str) -> str:
    """Gives what a kernel's method says; nothing of one that is gone."""
    known = {each.name: each for each in gpu_kernels.all_kernels()}
    return gpu_kernels.method_of(known[kernel]).facts() if kernel in known else ""
