"""What a machine is."""

from __future__ import annotations

from dataclasses import dataclass, field

from autosparse.storage.serial import Record, added, short_hash


@dataclass(frozen=True, slots=True, kw_only=True)
class CpuProfile(Record):
    """What one CPU has, what the operating system grants, and what it was measured to do.

    Attributes:
        model: the vendor's name.
        vendor: CPUID vendor string.
        architecture: ``x86_64`` or ``aarch64``.
        isa_cpu: instruction sets the CPU reports, sorted.
        isa_usable: those the operating system also grants, sorted.
        simd_width_bits: widest usable vector.
        cores_physical: cores of the host.
        cores_logical: hardware threads of the host.
        cores_usable: whole cores this process may use (affinity and quota), at least 1.
        affinity: logical processors this process may run on.
        quota_cores: cgroup quota in cores, None when unlimited.
        smt: whether two usable logical processors share a core.
        numa_nodes: memory nodes.
        l1d_bytes: per core.
        l2_bytes: per core.
        l3_bytes: per L3 instance, 0 when unknown.
        governor: frequency governor, None when unreadable.
        turbo: whether boost is enabled, None when unreadable.
        microcode: its revision, None when unreadable; a virtual machine may show a made-up one.
        is_virtual: whether a hypervisor shows itself.
        f32_gflops_core: measured FMA rate of one core, None when not measured.
        f32_gflops_all: measured FMA rate of all usable cores.
        bf16_gflops_core: measured, None where bf16 arithmetic is absent.
        bf16_gflops_all: measured, None where bf16 arithmetic is absent.
        read_gbytes_per_s: memory level (``l1``, ``l2``, ``l3``, ``dram``) to one core's read rate.
    """

    model: str
    vendor: str
    architecture: str
    isa_cpu: tuple[str, ...]
    isa_usable: tuple[str, ...]
    simd_width_bits: int
    cores_physical: int
    cores_logical: int
    cores_usable: int
    affinity: tuple[int, ...]
    quota_cores: float | None = None
    smt: bool = False
    numa_nodes: int = 1
    l1d_bytes: int = 0
    l2_bytes: int = 0
    l3_bytes: int = 0
    governor: str | None = None
    turbo: bool | None = None
    microcode: str | None = None
    is_virtual: bool = False
    f32_gflops_core: float | None = None
    f32_gflops_all: float | None = None
    bf16_gflops_core: float | None = None
    bf16_gflops_all: float | None = None
    read_gbytes_per_s: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProfile(Record):
    """One GPU, or one slice of it, as its driver describes it, and what it was measured to do.

    Attributes:
        index: number of the GPU, as the driver counts.
        name: the vendor's; that of a slice names its size.
        uuid: the driver's id of this very device; that of a slice is its own.
        compute_capability: such as ``9.0``.
        architecture: the vendor's name of its generation.
        multiprocessors: of the GPU or slice, None while nobody could tell.
        memory_bytes: of the GPU or slice.
        max_sm_clock_mhz: None when unreadable, as below.
        max_memory_clock_mhz: of its memory.
        power_cap_watts: what the whole GPU may draw.
        mig: whether it is a slice of a GPU in MIG mode.
        driver: the driver's version.
        sparse_tensor_cores: whether it multiplies 2:4 operands.
        mig_slice: number of the slice on its GPU; None for a whole GPU.
        l2_bytes: size of its L2 cache, 0 while that is not known.
        bf16_tflops: measured rate of dense products, None when not measured; `f16_tflops` and
            `fp8_tflops` likewise, the latter None also where it has no such arithmetic.
        copy_gbytes_per_s: measured rate of reading and writing its memory, both counted.
        node_us: measured time of the shortest kernel in a graph of many.
        load_clock_mhz: clock of its multiprocessors under a steady load of dense products.
    """

    index: int
    name: str
    uuid: str
    compute_capability: str
    architecture: str
    multiprocessors: int | None
    memory_bytes: int
    max_sm_clock_mhz: int | None
    max_memory_clock_mhz: int | None
    power_cap_watts: float | None
    mig: bool
    driver: str
    sparse_tensor_cores: bool
    mig_slice: int | None = added(None)
    l2_bytes: int = added(0)
    bf16_tflops: float | None = added(None)
    f16_tflops: float | None = added(None)
    fp8_tflops: float | None = added(None)
    copy_gbytes_per_s: float | None = added(None)
    node_us: float | None = added(None)
    load_clock_mhz: int | None = added(None)

    @property
    def place(self) -> str:
        """Its number on its host; of a slice, that of the GPU, and behind a colon its own."""
        return str(self.index) if self.mig_slice is None else f"{self.index}:{self.mig_slice}"

    @property
    def device_id(self) -> str:
        """Stable id, 12 hexadecimal digits: equal for devices that take equally long.

        The driver does not count: another one makes measurements stale, not those of another device.
        """
        return short_hash([self.name, self.compute_capability, self.memory_bytes, self.mig], 12)


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwareProfile(Record):
    """One host, a set of devices.

    Attributes:
        hardware_id: id of its CPU, a stable short hash of what decides a latency there (model,
            instruction sets, core count, caches) and of nothing that varies from day to day; each
            GPU has its own `GpuProfile.device_id`.
        cpu: the CPU.
        gpus: one per GPU, or per slice of one in MIG mode; empty without any.
        gpu_note: why `gpus` is empty, or empty.
    """

    hardware_id: str
    cpu: CpuProfile
    gpus: tuple[GpuProfile, ...] = ()
    gpu_note: str = ""
