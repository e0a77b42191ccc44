"""pareto.json after a further training: with what was trained and measured anew, else as it was."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autosparse.pipeline.measured import latencies
from autosparse.pipeline.measured.ledger import Measured
from autosparse.pipeline.results.calibration import calibration
from autosparse.pipeline.results.choosing import choose
from autosparse.pipeline.trained.accuracies import Reached
from autosparse.plans.front import Point
from autosparse.report import document as form
from autosparse.report.verdict import sentence, smallest_feasible_ms

_DISTURBED = "undisturbed measurement"


@dataclass(frozen=True, slots=True, kw_only=True)
class Amendment:
    """What a training adds to a run.

    Attributes:
        reached: plan id to accuracies, of those that are new.
        weights: plan id to the file of its weights, relative to the run's folder, of those trained now.
        dense: keys of the dense model's part that change.
        figures: plan id to its whole-model figures; every configuration, all of one session.
        references: figures of the dense model in that session, by engine.
        disturbances: why that session may be off; empty if it is not.
    """

    reached: Mapping[str, Reached]
    weights: Mapping[str, str]
    dense: Mapping[str, Any]
    figures: Mapping[str, Measured]
    references: Mapping[str, Measured]
    disturbances: Sequence[str] = ()


def amended(values: Mapping[str, Any], amendment: Amendment) -> dict[str, Any]:
    """Gives the content of pareto.json with an amendment; what it does not concern stays as it is.

    Args:
        values: the content so far, as plain JSON values.
        amendment: what is new.
    """
    after = copy.deepcopy(dict(values))
    after["dense"] |= latencies.dense_latencies(amendment.references, after["dtypes"])
    after["dense"] |= amendment.dense
    for row in measured_rows(after):
        if row["id"] in amendment.reached:
            row |= amendment.reached[row["id"]].values()
        if row["id"] in amendment.weights:
            row["weights"] = amendment.weights[row["id"]]
        row |= latencies.latency_values(amendment.figures[row["id"]])
    for config in after["configs"]:
        _measure(config, amendment, after["budget_ms"])
    if after.get("calibration"):
        after["calibration"] |= _calibration(after["calibration"], amendment.figures)
    after["skipped"] = [row for row in after.get("skipped", ()) if row["what"] != _DISTURBED]
    after["skipped"] += [{"what": _DISTURBED, "why": why} for why in amendment.disturbances]
    after["verdict"] = {"id": _chosen(after)}
    document = form.parse(after)
    if after.get("feasibility"):
        after["feasibility"]["smallest_feasible_ms"] = smallest_feasible_ms(document)
    after["verdict"]["text"] = sentence(document)
    return after


def measured_rows(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Gives the rows of pareto.json that were run whole and can be again: those with a plan."""
    yield from values["configs"]
    for baseline in values.get("baselines", ()):
        if baseline.get("id") is not None:
            yield baseline


def _measure(config: dict[str, Any], amendment: Amendment, budget_ms: float | None) -> None:
    figure = amendment.figures[config["id"]]
    config["speedup"] = latencies.speedup(figure.latency, amendment.references)
    config["feasible"] = budget_ms is None or figure.latency.ci_high_ms <= budget_ms
    ran = {layer.name: layer for layer in figure.layers}
    for layer in config.get("layers", ()):
        if layer["name"] in ran:
            layer["kernel"] = ran[layer["name"]].kernel
            layer["measured_us"] = ran[layer["name"]].median_us


def _calibration(before: Mapping[str, Any], figures: Mapping[str, Measured]) -> dict[str, Any]:
    points, state = before["points"], before.get("state", "")
    measured = {point["id"]: point["measured_ms"] for point in points}
    measured |= {
        name: figure.judged_in(state).latency.median_ms
        for name, figure in figures.items()
        if name in measured
    }
    return calibration([(p["id"], p["predicted_ms"], measured[p["id"]]) for p in points])


def _chosen(values: Mapping[str, Any]) -> str | None:
    budget_ms = values["budget_ms"]
    points = [
        Point(
            config["id"],
            config["measured_latency_ms"],
            config["validation_accuracy"] if "validation_accuracy" in config else config["accuracy"],
            0.0 if budget_ms is None else config["latency_ci_ms"][1] - budget_ms,
        )
        for config in values["configs"]
    ]
    best = choose(points, has_budget=budget_ms is not None)
    return best.name if best else None
