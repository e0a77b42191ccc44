"""`autosparse train`: train configurations of a finished search further, and measure them again."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from autosparse import report
from autosparse.config import SearchConfig
from autosparse.errors import ExitCode, RunError, UsageError
from autosparse.files import write_json
from autosparse.front import Point, knee
from autosparse.pipeline.ledger import Ledger
from autosparse.pipeline.outcomes import TrainOutcome
from autosparse.pipeline.requests import (
    contestant,
    dense_weights,
    evaluator_for,
    recipe_for,
    session_request,
    train_job,
)
from autosparse.pipeline.survey import Survey, survey
from autosparse.pipeline.training import train_all
from autosparse.plan import Plan
from autosparse.progress import Progress
from autosparse.report import document as form
from autosparse.report.verdict import sentence
from autosparse.runs import RunFolder
from autosparse.searching.parallel import Pool
from autosparse.searching.pool import AbstractPool
from autosparse.train.job import TrainResult

NAMED = ("knee", "fastest", "most-accurate")


def train(
    run: Path,
    pick: Sequence[str] = (),
    *,
    kind: Literal["short", "full"] = "full",
    epochs: int | None = None,
    progress: Progress | None = None,
) -> TrainOutcome:
    """Trains configurations of a run with SUBP, measures them whole, and updates the run's report.

    Args:
        run: folder of a finished search.
        pick: ids of configurations, ``knee``, ``fastest`` or ``most-accurate``; all if empty.
        kind: recipe; ``full`` starts from scratch, ``short`` from the dense weights.
        epochs: epochs instead of the recipe's.
        progress: told of every epoch.

    Raises:
        RunError: the run is unfinished, in use, or from another host's search.
        UsageError: an id that the run does not have.
        Stopped: a stop was asked for; the same call continues from the last epoch.
    """
    progress = progress or Progress()
    document = form.load(run)
    chosen = [document.config(name) for name in picked(document, pick)]
    subject = survey(SearchConfig.from_yaml(run / "config.yaml"), progress)
    if subject.hardware.hardware_id != document.hardware_id:
        raise RunError(
            f"a run is trained and measured on its own kind of host, but {run.name} is of "
            f"{document.hardware_id} and this is {subject.hardware.hardware_id}; search here first"
        )
    with RunFolder.resume(run) as folder:
        folder.enter("train")
        with Pool(cores=subject.hardware.cpu.cores_usable, log_folder=folder.folder("logs")) as pool:
            rows = _train(subject, folder, chosen, kind, epochs, pool, progress)
        folder.finish("done", ExitCode.DONE)
    return TrainOutcome(run=str(run), rows=tuple(rows))


def picked(document: form.Document, pick: Sequence[str]) -> list[str]:
    """Turns names and ids into ids.

    Raises:
        UsageError: an id that the document does not have.
    """
    ids = {config.id: config for config in document.configs}
    measured = [config for config in document.configs if config.measured_latency_ms is not None]
    if not measured:
        raise UsageError("training needs a measured configuration, but the run has none")
    latency = {config.id: config.measured_latency_ms or 0.0 for config in measured}
    named = {
        "fastest": min(measured, key=lambda c: latency[c.id]).id,
        "most-accurate": max(measured, key=lambda c: c.accuracy).id,
        "knee": _knee(measured),
    }
    wanted = [named.get(name, name) for name in pick] or list(ids)
    for name in wanted:
        if name not in ids:
            known = ", ".join([*NAMED, *ids])
            raise UsageError(f"a configuration must be one of {known}, but got {name!r}")
    return list(dict.fromkeys(wanted))


def _knee(configs: Sequence[form.Config]) -> str:
    return knee([Point(c.id, c.measured_latency_ms or 0.0, c.accuracy) for c in configs]).name


def _train(
    subject: Survey,
    folder: RunFolder,
    chosen: Sequence[form.Config],
    kind: Literal["short", "full"],
    epochs: int | None,
    pool: AbstractPool,
    progress: Progress,
) -> list[dict[str, Any]]:
    weights = dense_weights(subject, progress)
    recipe = recipe_for(kind, len(subject.images().train), subject.config.seed)
    if epochs is not None:
        recipe = dataclasses.replace(recipe, epochs=epochs)
    plans = {config.id: Plan.load(folder.path / config.plan) for config in chosen}
    jobs = {
        name: train_job(
            subject, plan, recipe, weights, folder.folder("train", f"{name}-{kind}-{recipe.epochs}")
        )
        for name, plan in plans.items()
    }
    results = train_all(jobs, pool, cores=max(1, pool.cores // len(jobs)), progress=progress)
    ledger = Ledger(
        folder.path / "sessions.jsonl",
        session_request(subject),
        str(weights.resolve()),
        pool,
        evaluator_for(subject, weights),
        progress,
    )
    figures = ledger.measure_deployed(
        [contestant(plans[name], result, weights) for name, result in results.items()]
    )
    values = form.load(folder.path).model_dump(mode="json", by_alias=True)
    rows = [_update(values, name, results[name], figures[name].latency) for name in results]
    values["verdict"]["id"] = _best(values)
    values["verdict"]["text"] = sentence(form.parse(values))
    write_json(folder.path / form.FILE, values)
    report.build(folder.path)
    return rows


def _update(values: dict[str, Any], name: str, result: TrainResult, latency: Any) -> dict[str, Any]:
    config = next(config for config in values["configs"] if config["id"] == name)
    config["accuracy"] = result.accuracy.value
    config["accuracy_kind"] = result.accuracy.kind
    config["accuracy_split"] = result.accuracy.split
    config["measured_latency_ms"] = latency.median_ms
    config["latency_ci_ms"] = [latency.ci_low_ms, latency.ci_high_ms]
    budget_ms = values["budget_ms"]
    config["feasible"] = budget_ms is None or latency.ci_high_ms <= budget_ms
    return {**{k: v for k, v in config.items() if k != "layers"}, "weights": result.weights}


def _best(values: dict[str, Any]) -> str | None:
    feasible = [config for config in values["configs"] if config["feasible"]]
    if not feasible:
        return None
    best = max(feasible, key=lambda c: (c["accuracy"], -c["measured_latency_ms"]))
    return str(best["id"])
