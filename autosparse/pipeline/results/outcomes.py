"""What the verbs give back: plain values for machines, a short text for people."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autosparse.errors import ExitCode
from autosparse.plans.break_even import BreakEven, in_order
from autosparse.records import Accuracy, Record
from autosparse.report.moves import FrontMove
from autosparse.report.words import COMPACT_WEIGHTS, shared
from autosparse.units import format_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchOutcome:
    """How a search ended.

    Attributes:
        run: the run's folder.
        document: the content of its pareto.json.
        summary: the result for a person.
        exit_code: what the shell shall see.
        moved: what became of the front of the run that was taken over from; None without such a run.
    """

    run: Path
    document: dict[str, Any]
    summary: str
    exit_code: ExitCode = ExitCode.DONE
    moved: FrontMove | None = None

    def to_json(self) -> dict[str, Any]:
        """Gives the run's folder, its pareto.json and, where it followed another, what moved."""
        moved = {} if self.moved is None else {"moved": self.moved.to_json()}
        return {"run": str(self.run), "exit_code": int(self.exit_code), **self.document, **moved}

    def text(self) -> str:
        """Gives the summary, what moved, and where the report lies."""
        moved = [] if self.moved is None else [f"since {self.moved.older}: {self.moved.sentence}"]
        return "\n\n".join([self.summary, *moved, f"report: {self.run / 'report.html'}"])


@dataclass(frozen=True, slots=True, kw_only=True)
class TuneOutcome(Record):
    """What a tuning did.

    Attributes:
        model: the model.
        database: URL of the tuning database.
        considered: ways to run a layer that the space allows, over all distinct shapes.
        timed: measured now.
        reused: found in the database.
        skipped: reason to count.
        table: one row per layer and option.
        notes: types and kernels that are left out, and why.
    """

    model: str
    database: str
    considered: int
    timed: int
    reused: int
    skipped: dict[str, int]
    table: tuple[dict[str, Any], ...]
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """Gives counts, and per layer and type the dense latency and the best sparse one."""
        lines = [
            f"{self.model}: {self.considered} options, {self.timed} timed now, "
            f"{self.reused} already known, {sum(self.skipped.values())} not worth timing",
            *(f"  not timed: {count} {reason}" for reason, count in self.skipped.items()),
            *self.notes,
            f"{'layer':32} {'type':>5} {'dense us':>10} {'best us':>10} {'ratio':>6}  best option",
        ]
        for layer, dtype in dict.fromkeys((row["layer"], row["dtype"]) for row in self.table):
            rows = [r for r in self.table if (r["layer"], r["dtype"]) == (layer, dtype)]
            dense = min(row["median_us"] for row in rows if row["label"] == "dense")
            best = min(rows, key=lambda row: row["median_us"])
            ratio = dense / best["median_us"]
            lines.append(
                f"{layer:32} {dtype:>5} {dense:10.1f} {best['median_us']:10.1f} {ratio:5.2f}x  "
                f"{best['label']} ({best['kernel']})"
            )
        return "\n".join([*lines, f"database: {self.database}"])


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOutcome(Record):
    """What a training did.

    Attributes:
        run: the run's folder.
        rows: per trained configuration what pareto.json says of it, but for its layers.
        dense: what it says of the dense model that was trained beside them; empty if that failed.
    """

    run: str
    rows: tuple[dict[str, Any], ...]
    dense: tuple[dict[str, Any], ...] = ()

    def text(self) -> str:
        """Gives one line per configuration, and one of the dense model that was trained as long."""
        lines = [
            f"{row['id']}: {row['dtype']}, {'' if row['sparsity'] else 'without zeros, '}accuracy "
            f"{100 * row['accuracy']:.2f} % ({row['accuracy_kind']}, {row['accuracy_split']}), "
            f"{row['measured_latency_ms']:.3f} ms, {self.run}/{row['weights']}{_shared(row)}"
            for row in self.rows
        ]
        lines += [
            f"dense, trained as long: accuracy {100 * each['accuracy']['value']:.2f} % "
            f"({each['kind']}, {each['accuracy']['split']})"
            for each in self.dense
        ]
        return "\n".join([*lines, f"report: {self.run}/report.html"])


def _shared(row: Mapping[str, Any]) -> str:
    """Says whose training a configuration shares, if it does."""
    found = row.get("shared")
    if not found:
        return ""
    ensemble = found["ensemble"]
    told = shared(found["trained"], found["tickets"], ensemble["value"], ensemble["split"])
    return f"; {told}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneOutcome(Record):
    """What a pruning wrote.

    Attributes:
        file: the weights.
        method: how they were pruned.
        labels: layer name to pattern and sparsity.
        sparsity: fraction of zeros among the weights of these layers.
        reached: accuracy of the file's weights, by split.
        dense: that of the dense weights they come from; empty where they were trained from scratch.
        notes: what else there is to know.
        seconds: of the whole call.
    """

    file: str
    method: str
    labels: Mapping[str, str]
    sparsity: float
    reached: Mapping[str, Accuracy]
    dense: Mapping[str, Accuracy]
    notes: tuple[str, ...] = ()
    seconds: float = 0.0

    def text(self) -> str:
        """Gives accuracies, zeros and the file."""
        labels = ", ".join(dict.fromkeys(self.labels.values()))
        lines = [
            f"{labels} by {self.method} on {len(self.labels)} layers, {self.sparsity:.1%} zeros there"
        ]
        for name, found in (("pruned", self.reached), ("dense", self.dense)):
            lines += [
                f"{name}: accuracy {100 * each.value:.2f} % ({each.kind}, {each.split}, "
                f"{each.samples} samples, {each.dtype})"
                for each in found.values()
            ]
        return "\n".join([*lines, *self.notes, f"{self.file}, after {self.seconds:.1f} s"])


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOutcome(Record):
    """What an export wrote.

    Attributes:
        path: the file.
        to: its kind.
        id: the configuration.
        model: the model.
        bytes: size of the file.
        accuracy: of the configuration.
        accuracy_kind: how it came about.
        accuracy_split: what it was found on.
        dtype: arithmetic type of the configuration.
        latency_ms: as measured in the run, None where nobody did.
        threads: of that measurement.
        notes: what the receiver should know.
    """

    path: str
    to: str
    id: str
    model: str
    bytes: int
    accuracy: float
    accuracy_kind: str
    latency_ms: float | None
    threads: int
    accuracy_split: str = "test"
    dtype: str = "f32"
    notes: tuple[str, ...] = ()

    def text(self) -> str:
        """Gives what the file holds, and how to use it."""
        latency = (
            "" if self.latency_ms is None else f", {self.latency_ms:.3f} ms on {self.threads} threads"
        )
        lines = [
            f"{self.path}: {self.model} {self.id}, {self.dtype}, {format_bytes(self.bytes)}, accuracy "
            f"{100 * self.accuracy:.2f} % ({self.accuracy_kind}, {self.accuracy_split}){latency}",
            *self.notes,
        ]
        if self.to == "artifact":
            lines.append(f'run it: autosparse.load("{self.path}")(images)')
        return "\n".join(lines)


_BOUND = "roofline"


@dataclass(frozen=True, slots=True, kw_only=True)
class TypeForecast(Record):
    """What a search would do and find in one arithmetic type; the fields are those of `Forecast`."""

    dtype: str
    considered: int
    to_time: int
    reused: int
    tuning_s: float
    fastest_ms: float
    dense_ms: float
    slowest_ms: float | None
    basis: str

    def latencies(self) -> str:
        """Gives the latencies of this type in one line."""
        if self.basis == _BOUND:
            return (
                f"latency in {self.dtype}, by the machine's limits alone: fastest above "
                f"{self.fastest_ms:.3f} / dense above {self.dense_ms:.3f} ms; what it takes to start "
                "operators, and those without weights, come on top"
            )
        slowest = "" if self.slowest_ms is None else f" / slowest {self.slowest_ms:.3f}"
        return (
            f"latency in {self.dtype}, layers as measured: fastest {self.fastest_ms:.3f} / dense "
            f"{self.dense_ms:.3f}{slowest} ms; operators without weights come on top"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast(Record):
    """What a search would do, without doing it.

    Attributes:
        model: the model.
        types: the same for every arithmetic type that configurations may have.
        no_types: types that were asked for beside them, and why they are left out.
        layers: weight-bearing layers, and `sparse_layers` of them may be sparse.
        configurations_log10: decimal logarithm of the number of assignments.
        considered: options in all; `to_time` of them would be measured, `reused` are known.
        tuning_s: estimated time of those measurements.
        trials: configurations that the study would try.
        fastest_ms: over all types, predicted from the table or, where rows are missing, from the
            roofline.
        dense_ms: likewise, in the first type.
        slowest_ms: likewise, over all types; None where nothing slower than dense is known.
        basis: ``measured`` or ``roofline``: where the three latencies come from; bounds in the latter.
        budget_ms: the budget, None without.
        met: whether it can be met by the layers as measured; False too where not even the machine's
            limits allow it; None where only a search can tell, and without a budget.
        compact_weights: whether kernels that expand weights are left out.
    """

    model: str
    layers: int
    sparse_layers: int
    configurations_log10: float
    considered: int
    to_time: int
    reused: int
    tuning_s: float
    trials: int
    fastest_ms: float
    dense_ms: float
    slowest_ms: float | None
    basis: str
    budget_ms: float | None = None
    met: bool | None = None
    types: tuple[TypeForecast, ...] = ()
    no_types: tuple[tuple[str, str], ...] = ()
    compact_weights: bool = False

    def text(self) -> str:
        """Gives the forecast in a few lines."""
        lines = [
            f"{self.model}: {self.layers} layers, {self.sparse_layers} may be sparse, "
            f"10^{self.configurations_log10:.1f} configurations",
            f"options: {self.considered}; to measure: {self.to_time} (about {self.tuning_s:.0f} s); "
            f"known: {self.reused}",
            f"trials: {self.trials}",
            *(each.latencies() for each in self.types),
            *(f"no {dtype}: {why}" for dtype, why in self.no_types),
            *([f"kernels: {COMPACT_WEIGHTS}"] if self.compact_weights else []),
        ]
        if self.budget_ms is not None:
            lines.append(f"budget {self.budget_ms:g} ms: {self._verdict()}")
        return "\n".join(lines)

    def _verdict(self) -> str:
        if self.met is None:
            return "the machine's limits allow it; whether it can be met only a search can tell"
        if self.met:
            return "can be met, by the layers as measured"
        what = "the machine's limits" if self.basis == _BOUND else "the layers as measured"
        return f"cannot be met, by {what}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakEvenOutcome(Record):
    """From which sparsity on each pattern wins on each layer shape of a model, on this host.

    Attributes:
        model: the model.
        hardware_id: the host, `cpu` in the vendor's words.
        threads: worker threads, `dtype` the type and `batch_size` the samples per run.
        timed: rows measured now, `reused` those found in the database.
        layers: shape to the layers that have it, in the order they run.
        cells: shape by shape, the finest pattern first.
        created_at: UTC, ISO 8601.
        file: where the map is kept.
        schema: version of this format.
    """

    model: str
    hardware_id: str
    cpu: str
    threads: int
    dtype: str
    batch_size: int
    timed: int
    reused: int
    layers: dict[str, tuple[str, ...]]
    cells: tuple[BreakEven, ...]
    created_at: str
    file: str
    schema: int = 2

    @property
    def patterns(self) -> tuple[str, ...]:
        """Every pattern of the map, by name, the finest first."""
        return in_order({cell.pattern for cell in self.cells})

    def rows(self) -> list[tuple[object, ...]]:
        """Gives one row per shape: how many layers have it, and where each pattern begins to win."""
        by_shape: dict[str, list[str]] = {}
        for cell in self.cells:
            by_shape.setdefault(cell.shape, []).append(cell.label)
        return [(shape, len(self.layers[shape]), *labels) for shape, labels in by_shape.items()]

    def title(self) -> str:
        """Gives the headline of the table."""
        threads = f"{self.threads} thread" + ("s" if self.threads > 1 else "")
        subject = f"{self.model}, {self.dtype}, {threads}"
        return f"{subject}: least sparsity that beats dense, per shape and pattern"

    def text(self) -> str:
        """Says what the labels mean, and where the map is kept."""
        return (
            f"no gain: not shown even at the greatest measured sparsity; <=: nothing lower was tried; "
            f"-: no row\n{self.timed} rows timed now, {self.reused} already known; wrote {self.file}"
        )
