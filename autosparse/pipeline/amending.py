"""pareto.json after a further training: with what was trained and measured anew, else as it was."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autosparse.front import Point
from autosparse.pipeline import publish
from autosparse.pipeline.ledger import Measured
from autosparse.pipeline.requests import weights_in
from autosparse.report import document as form
from autosparse.report.verdict import sentence, smallest_feasible_ms
from autosparse.train.job import TrainResult

_DISTURBED = "undisturbed measurement"


@dataclass(frozen=True, slots=True, kw_only=True)
class Amendment:
    """What a training adds to a run.

    Attributes:
        trained: plan id to what its training reached.
        figures: plan id to its whole-model figures; every configuration, all of one session.
        references: figures of the dense model in that session, by engine.
        disturbances: why that session may be off; empty if it is not.
    """

    trained: Mapping[str, TrainResult]
    figures: Mapping[str, Measured]
    references: Mapping[str, Measured]
    disturbances: Sequence[str] = ()


def amended(values: Mapping[str, Any], amendment: Amendment, run: Path) -> dict[str, Any]:
    """Gives the content of pareto.json with an amendment; what it does not concern stays as it is.

    Args:
        values: the content so far, as plain JSON values.
        amendment: what is new.
        run: the run's folder.
    """
    after = copy.deepcopy(dict(values))
    after["dense"] |= publish.dense_latencies(amendment.references, after["dtypes"])
    for row in measured_rows(after):
        _train(row, amendment.trained.get(row["id"]), run)
        row |= publish.latency_values(amendment.figures[row["id"]].latency)
    for config in after["configs"]:
        _measure(config, amendment, after["budget_ms"])
    if after.get("calibration"):
        after["calibration"] |= _calibration(after["calibration"]["points"], amendment.figures)
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


def _train(row: dict[str, Any], result: TrainResult | None, run: Path) -> None:
    if result is None:
        return
    row["accuracy"] = result.accuracy.value
    row["accuracy_kind"] = result.accuracy.kind
    row["accuracy_split"] = result.accuracy.split
    row["accuracy_samples"] = result.accuracy.samples
    row["accuracy_dtype"] = result.accuracy.dtype
    row["accuracy_through"] = result.accuracy.through
    row["weights"] = weights_in(run, result)


def _measure(config: dict[str, Any], amendment: Amendment, budget_ms: float | None) -> None:
    figure = amendment.figures[config["id"]]
    config["speedup"] = publish.speedup(figure.latency, amendment.references)
    config["feasible"] = budget_ms is None or figure.latency.ci_high_ms <= budget_ms
    ran = {layer.name: layer for layer in figure.layers}
    for layer in config.get("layers", ()):
        if layer["name"] in ran:
            layer["kernel"] = ran[layer["name"]].kernel
            layer["measured_us"] = ran[layer["name"]].median_us


def _calibration(
    points: Sequence[Mapping[str, Any]], figures: Mapping[str, Measured]
) -> dict[str, Any]:
    measured = {point["id"]: point["measured_ms"] for point in points}
    measured |= {name: figure.latency.median_ms for name, figure in figures.items() if name in measured}
    return publish.calibration([(p["id"], p["predicted_ms"], measured[p["id"]]) for p in points])


def _chosen(values: Mapping[str, Any]) -> str | None:
    budget_ms = values["budget_ms"]
    points = [
        Point(
            config["id"],
            config["measured_latency_ms"],
            config["accuracy"],
            0.0 if budget_ms is None else config["latency_ci_ms"][1] - budget_ms,
        )
        for config in values["configs"]
    ]
    best = publish.choose(points, has_budget=budget_ms is not None)
    return best.name if best else None
