"""A run on a host that was seen in two states: which one decides, and what the other one gave."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from autosparse.report import build, summary
from autosparse.report.document import load
from autosparse.report.facts import dense_rows, key_facts
from autosparse.report.source import read
from autosparse.report.verdict import sentence

RunWriter = Callable[..., Path]
FASTER = 0.6


@pytest.fixture(autouse=True)
def light_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plotly.offline.get_plotlyjs", lambda: "window.Plotly = {};")


def both(apart: Mapping[str, Any]) -> dict[str, Any]:
    shared = {key: FASTER * apart[key] for key in ("median_ms", "ci_low_ms", "ci_high_ms")}
    return {
        "apart": {**apart, "state": "apart", "handover_ns": 205.0},
        "shared": {**apart, **shared, "state": "shared", "handover_ns": 41.0},
    }


def in_two_states(document: dict[str, Any]) -> None:
    """Lets all that was measured be of processors apart, and faster where they share a cache."""
    dense = document["dense"]
    states = {name: both(run) for name, run in dense["peers"].items()}
    states["autosparse"] = both(dense["latency"])
    dense["latency"] = states["autosparse"]["apart"]
    dense["peers"] = {name: states[name]["apart"] for name in dense["peers"]}
    dense["latency_states"] = states
    for config in document["configs"]:
        low, high = config["latency_ci_ms"]
        config["latency_states"] = both(
            {
                **dense["latency"],
                "median_ms": config["measured_latency_ms"],
                "ci_low_ms": low,
                "ci_high_ms": high,
            }
        )


def best_judges(document: dict[str, Any]) -> None:
    in_two_states(document)
    document["judged"] = "best"
    dense = document["dense"]
    dense["latency"] = dense["latency_states"]["autosparse"]["shared"]


def test_the_state_that_decides_is_named_and_the_other_one_shown(make_run: RunWriter) -> None:
    run = make_run(edit=in_two_states)
    document = load(run)
    assert (document.host_state, document.host_states) == ("apart", ("apart", "shared"))
    assert dict(key_facts(read(run)))["State of the host"] == (
        "processors apart, the slowest one seen, unless another is named; "
        "also seen: processors sharing a cache"
    )
    chosen = document.config(document.verdict.id or "")
    other = f"{FASTER * (chosen.measured_latency_ms or 0):.2f} ms with processors sharing a cache"
    assert f"That is with the host's processors apart; it takes {other}." in sentence(document)
    page = unescape(build(run).read_text())
    assert page.count("processors sharing a cache: ") == len(document.configs)
    assert "State of the host: processors apart" in " ".join(summary(document).split())


@pytest.mark.parametrize(("state", "told"), [("shared", True), ("apart", False), ("", False)])
def test_predictions_of_another_state_are_told_as_such(
    make_run: RunWriter, state: str, told: bool
) -> None:
    def edit(document: dict[str, Any]) -> None:
        in_two_states(document)
        document["calibration"]["state"] = state

    shown = " ".join(summary(load(make_run(edit=edit))).split())
    assert ("predictions are of processors sharing a cache" in shown) == told


def test_dense_runs_of_both_states_are_listed_those_that_count_first(make_run: RunWriter) -> None:
    rows = dense_rows(load(make_run(edit=in_two_states)))
    assert [(row[0], row[4].rpartition(", ")[2]) for row in rows] == [
        ("autosparse", "processors apart"),
        ("torch", "processors apart"),
        ("autosparse", "processors sharing a cache"),
        ("torch", "processors sharing a cache"),
    ]


def test_the_table_holds_both(make_run: RunWriter) -> None:
    run = make_run(edit=in_two_states)
    build(run)
    with (run / "pareto.csv").open() as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        assert row["host_state"] == "apart"
        assert row["latency_apart_ms"] == row["measured_latency_ms"]
        assert float(row["latency_shared_ms"]) == pytest.approx(FASTER * float(row["latency_apart_ms"]))


def test_the_best_state_may_decide(make_run: RunWriter) -> None:
    run = make_run(edit=best_judges)
    assert dict(key_facts(read(run)))["State of the host"].startswith(
        "processors sharing a cache, the fastest one seen"
    )


def test_a_host_of_one_state_is_not_spoken_of(make_run: RunWriter) -> None:
    run = make_run()
    document = load(run)
    assert (document.host_state, document.host_states) == ("", ())
    assert "State of the host" not in dict(key_facts(read(run)))
    assert "processors" not in sentence(document)
    build(run)
    with (run / "pareto.csv").open() as file:
        assert {row["host_state"] for row in csv.DictReader(file)} == {""}


def left_open(document: dict[str, Any]) -> None:
    """Lets the fastest configuration's interval cross the budget, and all others be slower."""
    configs = sorted(document["configs"], key=lambda config: config["measured_latency_ms"])
    fastest = configs[0]
    document["budget_ms"] = fastest["measured_latency_ms"]
    fastest["latency_deciding_s"] = 10.4
    for config in configs:
        config["feasible"] = False
    document["verdict"]["id"] = None


def test_what_stays_open_counts_as_over_the_budget_and_is_told(make_run: RunWriter) -> None:
    run = make_run(edit=left_open)
    document = load(run)
    assert [document.is_open(config) for config in document.configs].count(True) == 1
    assert sentence(document).endswith(
        "1 configuration may: the interval crosses the budget, also after 10 s of further turns, and "
        "counts as over it."
    )
    assert unescape(build(run).read_text()).count("interval crosses it after 10.4 s more") == 1
