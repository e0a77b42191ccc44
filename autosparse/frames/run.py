"""One run of a search, read from its folder."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from autosparse.errors import RunError, UsageError
from autosparse.frames import typed
from autosparse.plans.plan import Plan
from autosparse.report import figures, table
from autosparse.report.canvas import Figure
from autosparse.report.document import Document, load
from autosparse.report.pareto_figure import pareto, search_view
from autosparse.report.source import Source, read
from autosparse.run_folders import LATEST, RunSummary, find_run, summarize
from autosparse.storage.files import read_json, read_jsonl, read_rows_csv

_TRIAL_COLUMNS = ("number", "state", "kind", "latency_ms", "feasible", "params")

_Drawing = Callable[[Source], Figure | None]

FIGURES: dict[str, _Drawing] = {
    "pareto": pareto,
    "trials": search_view,
    "calibration": lambda source: figures.calibration(source.document),
    "hypervolume": lambda source: figures.hypervolume(source.document),
}
"""The report's figures, by the names that `Run.figure` takes."""


class Run:
    """A run's results as DataFrames, and the figures of its report as Plotly objects.

    Files are read when they are first asked for, and once; make another `Run` to see what a run at work
    has written since.

    Args:
        run: name, folder or unique beginning of a run's name; ``latest``, the default, is the newest.
        root: folder of all runs.

    Raises:
        RunError: there is no such run, or several fit.
    """

    def __init__(
        self, run: str | os.PathLike[str] = LATEST, *, root: str | os.PathLike[str] = "results"
    ):
        self.path: Path = find_run(Path(root), os.fspath(run))

    def __repr__(self) -> str:
        summary = self.summary
        return f"Run({summary.name!r}, model={summary.model!r}, state={summary.state!r})"

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return self.path.name

    @property
    def summary(self) -> RunSummary:
        """State, stage and verdict, as they are now."""
        return summarize(self.path)

    @functools.cached_property
    def document(self) -> Document:
        """pareto.json, typed: everything that the report says.

        Raises:
            RunError: the run is not finished, or the file is damaged.
        """
        return load(self.path)

    @functools.cached_property
    def configurations(self) -> pd.DataFrame:
        """All configurations that were trained or measured whole, one row each, by id.

        `on_front` tells those that no other beats in both measured latency and accuracy, `chosen` the
        one of the verdict, `speedup` is dense latency over theirs and `speedup_over` whose.
        """
        return _frame(table.rows(self.document), table.COLUMNS).set_index("id")

    @property
    def front(self) -> pd.DataFrame:
        """The Pareto front, fastest first: the configurations that are `on_front`."""
        rows = self.configurations
        return rows[rows["on_front"]].sort_values("measured_latency_ms")

    @functools.cached_property
    def dense(self) -> pd.DataFrame:
        """The model without zeros, by engine and type, as it ran in turn with the configurations.

        Where the host was seen in several states, there is one row for each.
        """
        columns = (
            *(
                "run",
                "engine",
                "dtype",
                "threads",
                "batch_size",
                "median_ms",
                "ci_low_ms",
                "ci_high_ms",
            ),
            *("repeats", "host_state"),
        )
        dense = self.document.dense
        rows = [
            {"run": name, **each.to_json(), "host_state": each.state}
            for name, latency in dense.runs.items()
            for each in dense.latency_states.get(name, {}).values() or [latency]
        ]
        return _frame(rows, columns).set_index("run")

    @functools.cached_property
    def layers(self) -> pd.DataFrame:
        """Every layer of every configuration, by (id, layer).

        `measured_us` is the layer's time inside the whole model, `predicted_us` the tuning row of
        what it became, `dense_us` the row of its fastest dense kernel; `sparsity` is that of the plan.
        """
        columns = (
            *("id", "layer", "label", "dtype", "kernel", "sparsity"),
            *("predicted_us", "measured_us", "dense_us", "why_dense"),
        )
        rows = [
            {"id": config.id, "layer": layer.name, **layer.model_dump(exclude={"name"})}
            for config in self.document.configs
            for layer in config.layers
        ]
        return _frame(rows, columns).set_index(["id", "layer"])

    @functools.cached_property
    def trials(self) -> pd.DataFrame:
        """The trials of the study, by number; their parameters in columns of their own, ``param_*``.

        Latencies are predicted from the tuning table.

        Raises:
            RunError: the run has not got that far, or the file is damaged.
        """
        file = self.path / "trials.csv"
        rows = read_rows_csv(file, _TRIAL_COLUMNS)
        for row in rows:
            if not (row["number"].isascii() and row["number"].isdecimal() and len(row["number"]) <= 18):
                got = row["number"][:80]
                raise RunError(f"{file}: trials must have numbers, but got {got!r}; it is damaged")
        plain = typed.numbers(rows, ("number", "latency_ms", "accuracy"), file)
        plain["feasible"] = plain["feasible"].map({"true": True, "false": False}).astype("boolean")
        params = pd.json_normalize(typed.objects(rows, "params", file))
        joined = pd.concat([plain.drop(columns="params"), params.add_prefix("param_")], axis="columns")
        return joined.astype({"number": "int64"}).set_index("number")

    @functools.cached_property
    def latency_rows(self) -> pd.DataFrame:
        """What the search chose from: every measured way to run every layer.

        Raises:
            RunError: the run has not got that far, or the file is damaged.
        """
        file = self.path / "latency_table.csv"
        rows = read_rows_csv(file, ["layer", "shape", "label", "kernel"])
        numbers = ("threads", "median_us", "ci_low_us", "ci_high_us", "flops_kept")
        return typed.numbers(rows, numbers, file)

    @functools.cached_property
    def metrics(self) -> pd.DataFrame:
        """Training, one row per configuration and epoch; empty where nothing was trained.

        Raises:
            RunError: a log is damaged.
        """
        rows = [
            {"id": log.parent.name, **row}
            for log in sorted((self.path / "train").glob("*/metrics.jsonl"))
            for row in read_jsonl(log)
        ]
        columns = tuple(dict.fromkeys(["id", "epoch", "status", *(key for row in rows for key in row)]))
        return _frame(rows, columns).set_index(["id", "epoch"])

    @functools.cached_property
    def hypervolume(self) -> pd.DataFrame:
        """Area of latency (ms) times accuracy that the front dominates, by trial."""
        rows = [{"trial": p.trial, "hypervolume_ms": p.value} for p in self.document.hypervolume]
        return _frame(rows, ("trial", "hypervolume_ms")).set_index("trial")

    @functools.cached_property
    def hardware(self) -> dict[str, Any]:
        """The host that measured, as its profile says."""
        return dict(read_json(self.path / "hardware.json"))

    def plan(self, config: str | None = None) -> Plan:
        """Gives the plan of a configuration, for `sparsify` and `compile`; None is the chosen one.

        Raises:
            UsageError: no configuration has this id, or none was chosen.
        """
        wanted = config or self.document.verdict.id
        ids = [each.id for each in self.document.configs]
        if wanted not in ids:
            raise UsageError(
                f"a configuration must be one of {', '.join(ids) or 'none'}, but got "
                f"{wanted or 'nothing, and none was chosen'}"
            )
        return Plan.load(self.path / self.document.config(wanted).plan)

    def figure(self, name: str = "pareto") -> go.Figure:
        """Gives a figure of the report: ``pareto``, ``trials``, ``calibration`` or ``hypervolume``.

        ``pareto`` is of the split that reports, ``trials`` of the one that the search decided by.

        Raises:
            UsageError: there is no such figure, or this run has nothing to draw in it.
        """
        if name not in FIGURES:
            raise UsageError(f"a figure must be one of {', '.join(FIGURES)}, but got {name!r}")
        drawn = FIGURES[name](self._source)
        if drawn is None:
            raise UsageError(f"the run must hold what {name} shows, but {self.name} holds none of it")
        return _as_plotly(drawn)

    @property
    def figures(self) -> dict[str, go.Figure]:
        """All figures that this run has something to draw in."""
        return {name: _as_plotly(drawn) for name, drawn in self._drawn()}

    @functools.cached_property
    def _source(self) -> Source:
        return read(self.path)

    def _drawn(self) -> Iterator[tuple[str, Figure]]:
        for name, draw in FIGURES.items():
            if (drawn := draw(self._source)) is not None:
                yield name, drawn


def _as_plotly(drawn: Figure) -> go.Figure:
    """Gives a figure that stands alone: in a page the legend is drawn outside the plot."""
    figure = go.Figure(drawn.spec)
    for entry in drawn.legend:
        for index in entry.traces:
            figure.data[index].update(name=entry.label, showlegend=True)
    return figure.update_layout(showlegend=True)


def _frame(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> pd.DataFrame:
    """Makes a frame of exactly these columns, though there may be no row."""
    return pd.DataFrame.from_records(
        [{name: row.get(name) for name in columns} for row in rows], columns=list(columns)
    ).infer_objects()
