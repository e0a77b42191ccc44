"""A run as DataFrames: the same figures as in its files, typed, with units in the names."""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go
import pytest

import autosparse
from autosparse.errors import RunError, UsageError
from autosparse.frames.run import FIGURES
from autosparse.report.document import parse


@pytest.fixture
def run(root: Path) -> autosparse.Run:
    return autosparse.Run(root=root)


@pytest.fixture
def own(root: Path, tmp_path: Path) -> autosparse.Run:
    """A run that a test may damage."""
    return autosparse.Run(root=shutil.copytree(root, tmp_path / "results", symlinks=True))


def _plain(run: autosparse.Run) -> dict[str, object]:
    return json.loads((run.path / "pareto.json").read_text())


def test_configurations_are_those_of_the_document(run: autosparse.Run) -> None:
    configs = {config["id"]: config for config in _plain(run)["configs"]}
    frame = run.configurations
    assert list(frame.index) == list(configs)
    for config, row in frame.iterrows():
        assert row["measured_latency_ms"] == configs[config]["measured_latency_ms"]
        assert (row["latency_ci_low_ms"], row["latency_ci_high_ms"]) == tuple(
            configs[config]["latency_ci_ms"]
        )
        assert row["accuracy"] == configs[config]["accuracy"]
    assert frame["chosen"].sum() == 1
    assert frame["feasible"].dtype == bool


def test_the_front_is_what_no_configuration_beats(run: autosparse.Run) -> None:
    front, rows = run.front, run.configurations
    assert 0 < len(front) <= len(rows)
    assert front["measured_latency_ms"].is_monotonic_increasing
    for _, one in front.iterrows():
        quicker = rows["measured_latency_ms"] < one["measured_latency_ms"]
        better = rows["accuracy"] > one["accuracy"]
        no_worse = (rows["measured_latency_ms"] <= one["measured_latency_ms"]) & better
        assert not (quicker & (rows["accuracy"] >= one["accuracy"])).any()
        assert not no_worse.any()


@pytest.mark.smoke
def test_every_layer_of_every_configuration_has_a_row(run: autosparse.Run) -> None:
    configs = _plain(run)["configs"]
    assert len(run.layers) == sum(len(config["layers"]) for config in configs)
    first = configs[0]["layers"][0]
    row = run.layers.loc[(configs[0]["id"], first["name"])]
    assert row["measured_us"] == first["measured_us"]
    assert row["why_dense"] == first["why_dense"]
    assert run.layers["dense_us"].dtype == float


def test_trials_are_those_of_the_file(run: autosparse.Run) -> None:
    with (run.path / "trials.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(run.trials.index) == [int(row["number"]) for row in rows]
    assert run.trials["latency_ms"].dtype == float
    for row in rows:
        got = run.trials.loc[int(row["number"])]
        assert (
            pd.isna(got["latency_ms"])
            if not row["latency_ms"]
            else (got["latency_ms"] == float(row["latency_ms"]))
        )
        for name, value in json.loads(row["params"] or "{}").items():
            assert got[f"param_{name}"] == value
    assert str(run.trials["feasible"].dtype) == "boolean"


def test_latency_rows_keep_every_digit(run: autosparse.Run) -> None:
    with (run.path / "latency_table.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert run.latency_rows["median_us"].tolist() == [float(row["median_us"]) for row in rows]
    assert run.latency_rows["flops_kept"].tolist() == [int(row["flops_kept"]) for row in rows]
    assert run.latency_rows["layer"].tolist() == [row["layer"] for row in rows]


def _rewrite(file: Path, change: Callable[[list[dict[str, str]]], None]) -> None:
    with file.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    change(rows)
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize(
    ("column", "cell", "words"),
    [
        ("number", "x", "trials must have numbers, but got 'x'"),
        ("number", "", "trials must have numbers, but got ''"),
        ("number", "-1", "trials must have numbers, but got '-1'"),
        ("number", "9" * 400, "trials must have numbers, but got '999"),
        ("latency_ms", "soon", "column latency_ms must hold a number in every row, but got 'soon'"),
        ("accuracy", "0.9.1", "column accuracy must hold a number in every row, but got '0.9.1'"),
        ("params", "{", "column params must hold a JSON object in every row, but got '{'"),
        ("params", "[1]", "column params must hold a JSON object in every row"),
        ("params", "[" * 100_000, "column params must hold a JSON object in every row"),
    ],
)
def test_a_damaged_trial_is_named(own: autosparse.Run, column: str, cell: str, words: str) -> None:
    _rewrite(own.path / "trials.csv", lambda rows: rows[-1].update({column: cell}))
    with pytest.raises(RunError, match=re.escape(words)):
        _ = own.trials


@pytest.mark.parametrize("column", ["number", "feasible", "params"])
def test_trials_without_a_column_are_damaged(own: autosparse.Run, column: str) -> None:
    def drop(rows: list[dict[str, str]]) -> None:
        for row in rows:
            del row[column]

    _rewrite(own.path / "trials.csv", drop)
    with pytest.raises(RunError, match=f"lacks '{column}'"):
        _ = own.trials


def test_a_parameter_named_as_a_column_is_beside_it(own: autosparse.Run) -> None:
    def add(rows: list[dict[str, str]]) -> None:
        for row in rows:
            row["param_x"], row["params"] = "1", '{"x": 2}'

    _rewrite(own.path / "trials.csv", add)
    assert list(own.trials.columns).count("param_x") == 2


def test_a_damaged_latency_is_named(own: autosparse.Run) -> None:
    _rewrite(own.path / "latency_table.csv", lambda rows: rows[0].update(median_us="1e"))
    with pytest.raises(RunError, match="median_us must hold a number in every row, but got '1e'"):
        _ = own.latency_rows


def test_a_run_made_at_no_moment_is_named(own: autosparse.Run) -> None:
    file = own.path / "state.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "created_at": "yesterday"}))
    with pytest.raises(RunError, match=r"created_at of its runs must hold a moment .* got 'yesterday'"):
        autosparse.runs(own.path.parent)


def test_metrics_have_a_row_per_epoch(run: autosparse.Run) -> None:
    assert run.metrics.loc["abc"]["loss"].tolist() == [1.0, 0.5, 1.0 / 3]


def test_dense_runs_and_hypervolume(run: autosparse.Run) -> None:
    values = _plain(run)
    assert run.dense.loc["autosparse"]["median_ms"] == values["dense"]["latency"]["median_ms"]
    assert run.hypervolume["hypervolume_ms"].tolist() == [p["value"] for p in values["hypervolume"]]


def test_dense_runs_have_a_row_per_state_of_the_host(run: autosparse.Run) -> None:
    values = _plain(run)
    apart = {**values["dense"]["latency"], "state": "apart"}
    shared = {**apart, "state": "shared", "median_ms": 0.6 * apart["median_ms"]}
    values["dense"] |= {
        "latency": apart,
        "latency_states": {"autosparse": {"apart": apart, "shared": shared}},
    }
    run.document = parse(values)
    rows = run.dense.loc["autosparse"]
    assert rows["host_state"].tolist() == ["apart", "shared"]
    assert rows["median_ms"].tolist() == [apart["median_ms"], shared["median_ms"]]
    assert run.dense.loc["torch"]["host_state"] == ""


@pytest.mark.smoke
def test_units_stand_in_the_names_of_columns(run: autosparse.Run) -> None:
    frames = (run.configurations, run.layers, run.trials, run.latency_rows, run.dense)
    timed = {name for frame in frames for name in frame if "latency" in name or "median" in name}
    assert timed
    assert all(name.endswith(("_ms", "_us")) for name in timed)


def test_figures_are_plotly_objects_with_a_legend_of_their_own(run: autosparse.Run) -> None:
    drawn = run.figures
    assert set(drawn) == set(FIGURES)
    for figure in drawn.values():
        assert isinstance(figure, go.Figure)
        assert figure.layout.showlegend
        assert any(trace.showlegend and trace.name for trace in figure.data)
    measured = set(run.configurations["measured_latency_ms"])
    shown = {x for trace in run.figure("pareto").data for x in (trace.x if trace.x is not None else ())}
    assert measured <= shown


def test_the_plan_of_a_configuration_can_be_compiled_with(run: autosparse.Run) -> None:
    assert run.plan().id == run.document.verdict.id
    other = run.configurations.index[0]
    assert run.plan(other).id == other


@pytest.mark.parametrize("wrong", ["paretto", "", "layers"])
def test_unknown_figures_are_refused_by_name(run: autosparse.Run, wrong: str) -> None:
    with pytest.raises(UsageError, match="pareto, trials, calibration, hypervolume"):
        run.figure(wrong)


def test_unknown_configurations_are_refused_by_id(run: autosparse.Run) -> None:
    with pytest.raises(UsageError, match=run.configurations.index[0]):
        run.plan("nope")


def test_a_run_that_has_not_got_far_says_so(root: Path) -> None:
    begun = autosparse.Run("20260304T09", root=root)
    assert "stopped" in repr(begun)
    assert begun.metrics.empty
    for ask in (lambda: begun.front, lambda: begun.trials, lambda: begun.figures):
        with pytest.raises(RunError):
            ask()


def test_an_unknown_run_is_refused(root: Path) -> None:
    with pytest.raises(RunError, match="runs list"):
        autosparse.Run("nothing", root=root)
