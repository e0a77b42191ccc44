"""What is known of a whole configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from autosparse.storage.serial import Record, added

AccuracyKind = Literal["dense", "predicted", "one-shot", "short", "full"]
AccuracySource = Literal["torch", "emulation", "autosparse"]
SplitName = Literal["validation", "test"]


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
    split: SplitName
    samples: int
    dtype: str = "f32"
    through: AccuracySource = "torch"


HOST_STATES = {"shared": "processors sharing a cache", "apart": "processors apart"}
"""The states of a host by name, in words; see `autosparse.measuring.states`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeLatency(Record):
    """Latency of a whole model, really run; or without repeats, the sum of its layers' rows.

    Attributes:
        median_ms: median of the interleaved runs.
        ci_low_ms: lower end of the 95 % confidence interval.
        ci_high_ms: upper end.
        repeats: runs; 0 where nothing ran, as on a host that is not there.
        threads: worker threads.
        batch_size: samples per run.
        dtype: arithmetic type.
        engine: what ran it, such as ``autosparse`` or ``torch``; ``rows`` where nothing did.
        state: the state that the host was in, ``shared`` or ``apart``; empty where it has one only.
        handover_ns: what a cache line took meanwhile from one processor in use to the next; None with
            one thread.
    """

    median_ms: float
    ci_low_ms: float
    ci_high_ms: float
    repeats: int
    threads: int
    batch_size: int
    dtype: str
    engine: str = "autosparse"
    state: str = added("")
    handover_ns: float | None = added(None)
