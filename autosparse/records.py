"""The records that cross the border between two stages. Read this file first.

All are frozen, hold plain values only, check themselves, and travel as JSON: over Ray, into files,
and, one day, over HTTP. Units are in the names; `sparsity` is always the fraction of zeros in [0, 1].

    hardware  -> HardwareProfile
    models    -> LayerInfo (a name and a LayerShape, or the reason why it stays dense)
    search    -> LayerChoice, Plan
    tuning    -> Measurement
    search    -> Configuration (a plan with what is known of it)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal

from autosparse.errors import UsageError
from autosparse.serial import Record as Record
from autosparse.serial import short_hash as short_hash


def _require(condition: bool, rule: str, **got: Any) -> None:
    if not condition:
        values = ", ".join(f"{name}={value!r}" for name, value in got.items())
        raise UsageError(f"{rule}, but got {values}")


# --------------------------------------------------------------------------------------- hardware


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
    f32_gflops_core: float | None = None
    f32_gflops_all: float | None = None
    bf16_gflops_core: float | None = None
    bf16_gflops_all: float | None = None
    read_gbytes_per_s: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProfile(Record):
    """One GPU, as its driver describes it."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class HardwareProfile(Record):
    """One host.

    Attributes:
        hardware_id: stable short hash of what decides a latency (CPU model, instruction sets, core
            count, caches, GPUs) and of nothing that varies from day to day.
        cpu: the CPU.
        gpus: one per device; empty without a GPU.
        gpu_note: why `gpus` is empty, or empty.
    """

    hardware_id: str
    cpu: CpuProfile
    gpus: tuple[GpuProfile, ...] = ()
    gpu_note: str = ""


# ----------------------------------------------------------------------------------------- layers


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerShape(Record):
    """All that decides how long a layer runs, in elements, epilogue included.

    A linear layer is a convolution over 1x1 images: `in_height` is the number of rows per sample.
    """

    op: Literal["conv2d", "linear"]
    batch_size: int
    in_channels: int
    out_channels: int
    in_height: int = 1
    in_width: int = 1
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    activation: Literal["none", "relu", "relu6"] = "none"
    residual: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "in_channels", "out_channels", "in_height", "in_width"):
            _require(getattr(self, name) >= 1, f"{name} must be at least 1", value=getattr(self, name))
        _require(
            self.in_channels % self.groups == 0 and self.out_channels % self.groups == 0,
            "groups must divide both channel counts",
            groups=self.groups,
            in_channels=self.in_channels,
            out_channels=self.out_channels,
        )
        _require(
            self.out_height >= 1 and self.out_width >= 1,
            "the kernel must fit into the padded input",
            kernel=self.kernel,
            height=self.in_height,
            width=self.in_width,
        )

    def _extent(self, size: int, axis: int) -> int:
        span = self.dilation[axis] * (self.kernel[axis] - 1) + 1
        return (size + 2 * self.padding[axis] - span) // self.stride[axis] + 1

    @property
    def out_height(self) -> int:
        """Rows of the output."""
        return self._extent(self.in_height, 0)

    @property
    def out_width(self) -> int:
        """Columns of the output."""
        return self._extent(self.in_width, 1)

    @property
    def taps(self) -> int:
        """Kernel positions, kh * kw."""
        return self.kernel[0] * self.kernel[1]

    @property
    def weights(self) -> int:
        """Weight elements of the dense layer."""
        return self.out_channels * (self.in_channels // self.groups) * self.taps

    @property
    def flops(self) -> int:
        """Floating-point operations of the dense layer: two per multiply-add."""
        return 2 * self.batch_size * self.out_height * self.out_width * self.weights

    @property
    def key(self) -> str:
        """One canonical string, equal for equal shapes and for no others."""
        parts = [
            self.op,
            f"b{self.batch_size}",
            f"i{self.in_channels}x{self.in_height}x{self.in_width}",
            f"o{self.out_channels}",
        ]
        if self.op == "conv2d":
            parts += [
                f"{letter}{pair[0]}x{pair[1]}"
                for letter, pair in (
                    ("k", self.kernel),
                    ("s", self.stride),
                    ("p", self.padding),
                    ("d", self.dilation),
                )
            ]
            parts.append(f"g{self.groups}")
        if self.activation != "none":
            parts.append(self.activation)
        if self.residual:
            parts.append("res")
        return "_".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerInfo(Record):
    """One weight-bearing layer of a traced model.

    Attributes:
        name: the module's dotted path; the weight is ``<name>.weight``.
        shape: its shape in this trace, or None where the operator is not conv2d or linear.
        why_dense: reasons that keep it dense whatever the search wants; empty if it may be sparse.
    """

    name: str
    shape: LayerShape | None
    why_dense: tuple[str, ...] = ()


# ------------------------------------------------------------------------------- patterns and plans


@dataclass(frozen=True, slots=True, kw_only=True)
class Pattern(Record):
    """A family of sparse structures, as a pair of granularities.

    1xN on CPUs and tile-wise (TW) on GPUs are the same family: `group_out` consecutive outputs share
    one list of kept inputs, inputs are kept in runs of `unit_in`, and all taps live or die together.

    Attributes:
        group_out: outputs per group; 0 means dense, 1 means one list per output.
        unit_in: consecutive input channels per block.
        uniform: every group keeps equally many blocks (SUBP) instead of a layer-wide choice (1xN).
        order: whether groups follow the natural order of outputs or a rearranged one.
        nm: (n, m) fine-grained structure inside kept blocks, such as (2, 4) for TVW; None without.
    """

    group_out: int = 0
    unit_in: int = 1
    uniform: bool = True
    order: Literal["natural", "rearranged"] = "natural"
    nm: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        _require(self.group_out >= 0, "group_out must be 0 (dense) or more", group_out=self.group_out)
        _require(self.unit_in >= 1, "unit_in must be at least 1", unit_in=self.unit_in)

    @property
    def is_dense(self) -> bool:
        """Whether nothing is pruned."""
        return self.group_out == 0

    @property
    def name(self) -> str:
        """Short label: ``dense``, ``1x16``, ``1x16-layerwide``, ``1x32+2:4``."""
        if self.is_dense:
            return "dense"
        name = f"{self.unit_in}x{self.group_out}"
        name += "" if self.uniform else "-layerwide"
        name += "" if self.order == "natural" else "-rearranged"
        return name + (f"+{self.nm[0]}:{self.nm[1]}" if self.nm else "")


DENSE = Pattern()


def onexn(block_n: int, *, uniform: bool = True) -> Pattern:
    """Gives the 1xN pattern: blocks of `block_n` consecutive outputs by one input, all taps."""
    _require(block_n >= 1, "block_n must be at least 1", block_n=block_n)
    return Pattern(group_out=block_n, uniform=uniform)


def kept_blocks(in_channels: int, sparsity: float) -> int:
    """Blocks a uniform group keeps: ``Cin - floor(sparsity * Cin)`` (SUBP, subp.py rounding rule).

    The small addend undoes binary rounding, so that 0.7 * 10 prunes 7 blocks and not 6.
    """
    return in_channels - math.floor(sparsity * in_channels + 1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerChoice(Record):
    """What one layer shall be.

    Attributes:
        pattern: dense or a sparse pattern.
        sparsity: fraction of blocks pruned, in [0, 1]; 0 for a dense layer.
        dtype: arithmetic type of weights and activations.
        kernel: kernel that shall run it, or None to let `compile` pick.
    """

    pattern: Pattern = DENSE
    sparsity: float = 0.0
    dtype: Literal["f32", "bf16"] = "f32"
    kernel: str | None = None

    def __post_init__(self) -> None:
        _require(0 <= self.sparsity <= 1, "sparsity must lie in [0, 1]", sparsity=self.sparsity)
        _require(
            not (self.pattern.is_dense and self.sparsity > 0),
            "a dense layer has sparsity 0",
            sparsity=self.sparsity,
        )

    @property
    def label(self) -> str:
        """Short label: ``dense`` or ``1x16@0.75``."""
        return "dense" if self.pattern.is_dense else f"{self.pattern.name}@{self.sparsity:g}"


# ------------------------------------------------------------------------------------ measurements


class Status(StrEnum):
    """How a measurement ended. A failure is a row, never an exception and never an infinity."""

    OK = "ok"
    WRONG = "wrong"  # output outside the tolerance
    CRASHED = "crashed"  # the process died
    TIMEOUT = "timeout"  # killed after its time limit
    UNSTABLE = "unstable"  # no plausible figure: zero, negative, faster than the roofline allows
    ERROR = "error"  # the kernel refused, with a message


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementKey(Record):
    """Everything that can change a latency. Equal keys may share a row; no others may.

    Attributes:
        hardware_id: `HardwareProfile.hardware_id`.
        kernel: kernel name, the same string as the C symbol and the report's label.
        kernel_hash: hash of the kernel's sources and build flags; a change makes only its rows stale.
        shape: `LayerShape.key`.
        pattern: `Pattern.name`.
        kept: blocks kept per group (uniform), or in the whole layer (layer-wide); -1 when dense.
        config: tunable parameters of the kernel's run, ``k=v`` pairs, sorted, comma separated.
        dtype: arithmetic type.
        threads: worker threads.
        policy: identifier of the measurement policy, which covers cache state, warm-up and stopping.
    """

    hardware_id: str
    kernel: str
    kernel_hash: str
    shape: str
    pattern: str
    kept: int
    config: str
    dtype: str
    threads: int
    policy: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement(Record):
    """One row of the tuning database.

    Attributes:
        key: what was measured.
        status: how it ended.
        median_us: median latency, None unless `status` is ok.
        ci_low_us: lower end of the 95 % confidence interval of the median.
        ci_high_us: upper end of that interval.
        repeats: timed repetitions.
        sparsity: fraction of blocks pruned.
        flops_kept: floating-point operations really done per run.
        message: reason of a failure, or empty.
        measured_at: UTC, ISO 8601.
        version: autosparse version that measured.
    """

    key: MeasurementKey
    status: Status
    median_us: float | None = None
    ci_low_us: float | None = None
    ci_high_us: float | None = None
    repeats: int = 0
    sparsity: float = 0.0
    flops_kept: int = 0
    message: str = ""
    measured_at: str = ""
    version: str = ""

    def __post_init__(self) -> None:
        _require(
            (self.status is Status.OK) == (self.median_us is not None),
            "exactly the ok rows have a median",
            status=self.status,
            median_us=self.median_us,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyOption(Record):
    """One way to run one layer, with its measured latency: what the search chooses from.

    Attributes:
        choice: pattern, sparsity, dtype and kernel.
        median_us: measured median.
        ci_low_us: lower end of its 95 % confidence interval.
        ci_high_us: upper end.
        flops_kept: floating-point operations done.
    """

    choice: LayerChoice
    median_us: float
    ci_low_us: float
    ci_high_us: float
    flops_kept: int


# -------------------------------------------------------------------------------- configurations


AccuracyKind = Literal["dense", "predicted", "one-shot", "short", "full"]
AccuracySource = Literal["torch", "emulation", "autosparse"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuracy(Record):
    """A top-1 accuracy that says how it came about.

    Attributes:
        value: fraction correct, in [0, 1].
        kind: ``dense`` un-pruned, ``predicted`` from per-layer losses, ``one-shot`` masked without
            training, ``short`` and ``full`` after that much training.
        split: ``validation`` decides, ``test`` reports.
        samples: examples behind it.
        dtype: arithmetic type that it was computed in.
        through: what computed it: ``torch``, torch's ``emulation`` of the executor's bf16, or
            ``autosparse``, the compiled model itself.
    """

    value: float
    kind: AccuracyKind
    split: Literal["validation", "test"]
    samples: int
    dtype: str = "f32"
    through: AccuracySource = "torch"


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeLatency(Record):
    """Latency of a whole model, really run.

    Attributes:
        median_ms: median of the interleaved runs.
        ci_low_ms: lower end of the 95 % confidence interval.
        ci_high_ms: upper end.
        repeats: runs.
        threads: worker threads.
        batch_size: samples per run.
        dtype: arithmetic type.
        engine: what ran it, such as ``autosparse`` or ``torch``.
    """

    median_ms: float
    ci_low_ms: float
    ci_high_ms: float
    repeats: int
    threads: int
    batch_size: int
    dtype: str
    engine: str = "autosparse"
