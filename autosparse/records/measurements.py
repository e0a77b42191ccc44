"""What was measured of a layer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from autosparse.records.layers import LayerChoice
from autosparse.records.rules import require
from autosparse.storage.serial import Record


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
        hardware_id: id of the device that ran it; a CPU's is its host's `HardwareProfile.hardware_id`.
        kernel: kernel name, the same string as the report's label.
        kernel_hash: hash of the kernel's sources and build flags; a change makes only its rows stale.
        shape: `LayerShape.key`.
        pattern: `Pattern.name`.
        kept: blocks kept per group (uniform), or in the whole layer (layer-wide); -1 when dense.
        config: tunable parameters of the kernel's run, ``k=v`` pairs, sorted, comma separated.
        dtype: arithmetic type.
        threads: worker threads.
        policy: identifier of the measurement policy, which covers cache state, warm-up and stopping.
        state: the state that the host was in, ``shared`` or ``apart``; empty where only one was known.
        facts: what may change from day to day and with it the kernel's latency, such as
            ``microcode 0x1000065``; empty where none was noted, as in rows of earlier versions.
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
    state: str = ""
    facts: str = ""

    def holds_under(self, facts: str) -> bool:
        """Whether the row counts under other facts of the day; unknown ones are taken for the same."""
        return self.facts in ("", facts) or not facts

    @property
    def variant(self) -> tuple[str, str]:
        """What ran: a kernel and its launch parameters."""
        return self.kernel, self.config

    @property
    def runs(self) -> str:
        """The same in one string, as plans name it: the parameters follow in brackets."""
        return f"{self.kernel}[{self.config}]" if self.config else self.kernel


_FIGURES = ("median_us", "ci_low_us", "ci_high_us", "sparsity", "handover_ns")


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
        message: reason of a failure; else what is worth telling of the figure, such as a GPU's clocks.
        measured_at: UTC, ISO 8601.
        version: autosparse version that measured.
        handover_ns: what a cache line took meanwhile from one processor in use to the next; None with
            one thread.
        disturbed: what else ran on the host meanwhile; empty if nothing did.
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
    handover_ns: float | None = None
    disturbed: str = ""

    def __post_init__(self) -> None:
        require(
            (self.status is Status.OK) == (self.median_us is not None),
            "exactly the ok rows have a median",
            status=self.status,
            median_us=self.median_us,
        )
        for name in _FIGURES:  # no JSON holds others, and no comparison with them means anything
            figure = getattr(self, name)
            require(figure is None or math.isfinite(figure), f"{name} must be finite", **{name: figure})


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
