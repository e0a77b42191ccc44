"""Reading a run folder for the report: what is there, and for what is not, a sentence that says so."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from autosparse.errors import RunError, UsageError
from autosparse.records import HardwareProfile
from autosparse.report.document import Document, load
from autosparse.storage.files import read_json, read_rows_csv, read_text

_T = TypeVar("_T")

_FATES = {"FAIL": "Failed", "PRUNED": "Pruned", "RUNNING": "Unfinished", "WAITING": "Not begun"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One trial of the search.

    Attributes:
        number: its number in the study.
        state: ``COMPLETE`` or how else it ended.
        kind: how it was proposed or evaluated, as the search names it.
        latency_ms: predicted latency, None if it has none.
        accuracy: accuracy as a fraction, None if it has none.
        feasible: whether its predicted latency meets the budget.
        accuracy_kind: how the accuracy came about.
        reason: why it failed, or empty.
        dtype: arithmetic type of its plan.
    """

    number: int
    state: str
    kind: str
    latency_ms: float | None
    accuracy: float | None
    feasible: bool
    accuracy_kind: str = "one-shot"
    reason: str = ""
    dtype: str = "f32"


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One row of latency_table.csv: a way to run a layer, with its measured time and 95 % interval."""

    layer: str
    shape: str
    label: str
    kernel: str
    median_us: float
    ci_us: tuple[float, float]
    dtype: str = "f32"

    @property
    def is_dense(self) -> bool:
        """Whether this is a dense kernel."""
        return self.label == "dense"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """All that a report is made from.

    Attributes:
        run: the folder.
        document: pareto.json.
        hardware: hardware.json.
        trials: trials.csv.
        options: latency_table.csv, by layer.
        config: config.yaml as text.
        missing: file name to the sentence that explains its absence.
    """

    run: Path
    document: Document
    hardware: HardwareProfile | None = None
    trials: tuple[Trial, ...] = ()
    options: Mapping[str, tuple[Option, ...]] = field(default_factory=dict)
    config: str | None = None
    missing: Mapping[str, str] = field(default_factory=dict)

    @property
    def unfinished_trials(self) -> Mapping[str, int]:
        """How many trials did not complete, by what became of them."""
        return dict(Counter(_FATES.get(t.state, t.state) for t in self.trials if t.state != "COMPLETE"))

    @property
    def trial_reasons(self) -> list[tuple[str, int]]:
        """Why trials did not complete, the most frequent reason first."""
        lost = (t.reason or "no reason recorded" for t in self.trials if t.state != "COMPLETE")
        return Counter(lost).most_common()


def read(run: Path) -> Source:
    """Reads a run folder.

    Only pareto.json must be there. Any other file that is absent or damaged goes into `missing`.

    Raises:
        RunError: pareto.json is missing, damaged, or of another schema.
    """
    missing: dict[str, str] = {}

    def optional(name: str, reader: Callable[[Path], _T]) -> _T | None:
        if not os.path.isfile(run / name):
            missing[name] = f"{name} is not in the run folder."
            return None
        try:
            return reader(run / name)
        except (RunError, UsageError, ValueError) as error:
            reason = str(error).replace(str(run / name), name)
            missing[name] = f"{name} cannot be read: {reason}"
            return None

    return Source(
        run=run,
        document=load(run),
        hardware=optional("hardware.json", _hardware),
        trials=optional("trials.csv", _trials) or (),
        options=optional("latency_table.csv", _options) or {},
        config=optional("config.yaml", read_text),
        missing=missing,
    )


def _hardware(path: Path) -> HardwareProfile:
    values = read_json(path)
    if not isinstance(values, dict):
        raise RunError(f"{path} must hold a mapping")
    return HardwareProfile.from_json(values)


def _trials(path: Path) -> tuple[Trial, ...]:
    rows = read_rows_csv(path, ["number", "state", "kind", "latency_ms", "accuracy", "feasible"])
    return tuple(
        Trial(
            number=int(row["number"]),
            state=row["state"].upper(),
            kind=row["kind"],
            latency_ms=_number(row["latency_ms"]),
            accuracy=_number(row["accuracy"]),
            feasible=row["feasible"].lower() in ("true", "1"),
            accuracy_kind=row.get("accuracy_kind") or "one-shot",
            reason=row.get("reason", ""),
            dtype=row.get("dtype") or "f32",
        )
        for row in rows
    )


def _options(path: Path) -> dict[str, tuple[Option, ...]]:
    by_layer: dict[str, list[Option]] = {}
    for row in read_rows_csv(path, ["layer", "shape", "label", "kernel", "median_us"]):
        option = Option(
            layer=row["layer"],
            shape=row["shape"],
            label=row["label"],
            kernel=row["kernel"],
            median_us=float(row["median_us"]),
            ci_us=(_end(row, "ci_low_us"), _end(row, "ci_high_us")),
            dtype=row.get("dtype") or "f32",
        )
        by_layer.setdefault(option.layer, []).append(option)
    return {layer: tuple(options) for layer, options in by_layer.items()}


def _end(row: Mapping[str, str], column: str) -> float:
    """Gives an end of the interval; the median where none is recorded."""
    return float(row.get(column) or row["median_us"])


def _number(cell: str) -> float | None:
    value = float(cell) if cell else math.nan
    return value if math.isfinite(value) else None
