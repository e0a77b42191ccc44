"""`autosparse train`: train configurations of a finished search, and measure all of them again."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from autosparse import hardware, report
from autosparse.config import SearchConfig, validate
from autosparse.errors import RunError, UsageError
from autosparse.hosts.opening import open_host
from autosparse.pipeline.measured.ledger import Ledger
from autosparse.pipeline.measured.session import Contestant
from autosparse.pipeline.results.amending import Amendment, amended, measured_rows
from autosparse.pipeline.results.outcomes import TrainOutcome
from autosparse.pipeline.subject.arithmetic import Arithmetic
from autosparse.pipeline.subject.arrangement import Arrangement
from autosparse.pipeline.subject.requests import (
    check_trainable,
    dense_weights,
    evaluator_for,
    ledger_for,
    pool_for,
    recipe_for,
    train_job,
    weights_in,
)
from autosparse.pipeline.subject.survey import Survey, survey
from autosparse.pipeline.trained.accuracies import Reached, dense_accuracies
from autosparse.pipeline.trained.training import train_with_dense
from autosparse.plans.front import Point, knee
from autosparse.plans.plan import Plan
from autosparse.progress import Progress
from autosparse.report import document as form
from autosparse.run_folders import RunFolder
from autosparse.run_folders.event_log import EventLog
from autosparse.searching.pool import AbstractPool
from autosparse.storage.files import read_json
from autosparse.train.job import load_result
from autosparse.train.recipes import Recipe
from autosparse.train.tickets.sharing import Shared

NAMED = ("knee", "fastest", "most-accurate")
_TRAINED = ("short", "full")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    """What the steps of one call share.

    Attributes:
        survey: the run's subject.
        run: the run, locked.
        pool: runs the trainings.
        progress: told of every step.
        weights: dense weights that untrained configurations prune.
        values: the content of pareto.json before.
        plans: plan id to plan, of all that was run whole.
    """

    survey: Survey
    run: RunFolder
    pool: AbstractPool
    progress: Progress
    weights: Path
    values: Mapping[str, Any]
    plans: Mapping[str, Plan]


def train(
    run: Path,
    pick: Sequence[str] = (),
    *,
    kind: Literal["short", "full"] = "full",
    recipe: str | None = None,
    change: Sequence[str] = (),
    epochs: int | None = None,
    arrangement: Arrangement | None = None,
    progress: Progress | None = None,
) -> TrainOutcome:
    """Trains configurations of a run, measures all of the run's anew, updates its report.

    The dense model is trained in the same way beside them, so that what pruning costs is told from what
    training gains.

    The run stays finished whatever happens meanwhile: until everything is measured its results are
    the old ones.

    Args:
        run: folder of a finished search.
        pick: ids of configurations, ``knee``, ``fastest`` or ``most-accurate``; all if empty.
        kind: recipe; ``full`` is SUBP from scratch, ``short`` a fine-tune of the dense weights.
        recipe: a preset or a YAML file of that kind instead.
        change: keys of the recipe set anew, such as ``lr=0.05`` or ``settings.tau=0.1``.
        epochs: epochs instead of the recipe's.
        arrangement: where the trainings go, and whether configurations share them.
        progress: told of every epoch.

    Raises:
        RunError: the run is unfinished, in use, from another host's search, or lacks weights.
        UsageError: an id that the run does not have, or a configuration that can no longer be meant.
        Stopped: a stop was asked for; the same call continues from the last epoch.
    """
    document = form.load(run)
    names = picked(document, pick)
    arrangement = arrangement or Arrangement()
    arrangement.places()  # refuses what is not there, before any work
    config = SearchConfig.from_yaml(run / "config.yaml")
    validate(config.model_copy(update={"out": run.absolute().parent}))  # wherever the run is by now
    with RunFolder.amend(run) as folder, open_host(config.host, config.address) as host:
        values = read_json(folder.path / form.FILE)
        _check_weights(folder.path, values, names)
        log = EventLog(folder.path / "logs" / "events.jsonl")
        progress = (progress or Progress()).of(f"train {folder.name}", log)
        subject = survey(config, progress, evaluates=True, trains=True, host=host)
        own_id = subject.device.id
        is_own = document.hardware_id == own_id
        is_former = hardware.is_here(own_id) and hardware.is_here(document.hardware_id)
        if not is_own and not is_former:
            raise RunError(
                f"a run is trained and measured on its own kind of host, but {run.name} is of "
                f"{document.hardware_id} and this is {own_id}; search here first"
            )
        how = recipe_for(subject, kind, recipe).with_changes(change)
        if epochs is not None:
            how = dataclasses.replace(how, epochs=epochs)
        plans = {r["id"]: Plan.load(folder.path / r["plan"]) for r in measured_rows(values)}
        check_trainable(subject, how, [plans[name] for name in names])
        arithmetic = Arithmetic(dtypes=document.dtypes)  # what the run came to, not what it could be
        subject = dataclasses.replace(subject, arithmetic=arithmetic)
        with progress.at("baseline"):
            weights = dense_weights(subject, progress)
        with pool_for(subject, folder, progress) as pool:
            work = _Work(
                survey=subject,
                run=folder,
                pool=pool,
                progress=progress,
                weights=weights,
                values=values,
                plans=plans,
            )
            with progress.at("train"):
                trained, dense = _train(work, names, how, arrangement)
            with progress.at("final measurement"):
                rows = _amend(work, trained, dense)
    return TrainOutcome(run=str(run), rows=tuple(rows), dense=tuple(map(dict, dense)))


def picked(document: form.Document, pick: Sequence[str]) -> list[str]:
    """Turns names and ids into ids; validation data decide who is the knee and who the most accurate.

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
        "most-accurate": max(measured, key=lambda c: c.deciding_accuracy).id,
        "knee": _knee(measured),
    }
    wanted = [named.get(name, name) for name in pick] or list(ids)
    for name in wanted:
        if name not in ids:
            known = ", ".join([*NAMED, *ids])
            raise UsageError(f"a configuration must be one of {known}, but got {name!r}")
    return list(dict.fromkeys(wanted))


def _knee(configs: Sequence[form.Config]) -> str:
    return knee([Point(c.id, c.measured_latency_ms or 0.0, c.deciding_accuracy) for c in configs]).name


def _check_weights(run: Path, values: Mapping[str, Any], names: Sequence[str]) -> None:
    """Refuses a run of which a trained configuration could not be measured again, before any work."""
    for row in measured_rows(values):
        if row["id"] in names or row["accuracy_kind"] not in _TRAINED:
            continue
        weights = row.get("weights")
        if weights is None or not os.path.isfile(run / weights):
            found = "names none" if weights is None else f"{run / weights} is missing"
            raise RunError(
                f"a trained configuration must have its weights, to be measured with the others, but "
                f"that of {row['id']} {found}; pick it too, or run the search again"
            )


def _train(
    work: _Work, names: Sequence[str], recipe: Recipe, arrangement: Arrangement
) -> tuple[dict[str, Shared], tuple[Mapping[str, Any], ...]]:
    """Trains what was picked and, to compare with, the dense model as long."""
    work.progress.log("stage: train")
    place = arrangement.places()
    usual = recipe_for(work.survey, recipe.kind)
    own = "" if recipe == dataclasses.replace(usual, epochs=recipe.epochs) else f"-{recipe.id}"
    if arrangement.workers > 1:
        own += f"-{arrangement.workers}-workers"
    jobs = {
        name: train_job(
            work.survey,
            work.plans[name],
            recipe,
            work.weights,
            work.run.folder("train", f"{name}-{recipe.kind}-{recipe.epochs}{own}"),
            next(place),
            arrangement.workers,
        )
        for name in names
    }
    return train_with_dense(
        jobs,
        work.run.path,
        work.pool,
        work.progress,
        suffix=own,
        share_reach=arrangement.share_reach,
    )


def _amend(
    work: _Work, trained: Mapping[str, Shared], dense: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Measures all configurations with dense in one session, and writes results and report."""
    work.progress.log("stage: final measurement")
    evaluator = evaluator_for(work.survey, work.weights)
    ledger = ledger_for(work.survey, work.run, work.pool, work.weights, evaluator, work.progress)
    figures = ledger.measure_deployed(
        _contestants(work, {name: each.result.weights for name, each in trained.items()})
    )
    amendment = Amendment(
        reached=_reached(work, trained, ledger),
        weights={name: weights_in(work.run.path, each.result) for name, each in trained.items()},
        dense=_dense_values(work, dense),
        figures=figures,
        references=ledger.references,
        disturbances=ledger.disturbances,
    )
    values = amended(work.values, amendment)
    form.write(work.run.path / form.FILE, values)
    report.build(work.run.path)
    rows = [config for config in values["configs"] if config["id"] in trained]
    return [{key: value for key, value in row.items() if key != "layers"} for row in rows]


def _reached(work: _Work, trained: Mapping[str, Shared], ledger: Ledger) -> dict[str, Reached]:
    """Gives the accuracies of what was trained, and those that a row of the run does not have yet."""
    found = {name: Reached.by(each) for name, each in trained.items()}
    for row in measured_rows(work.values):
        name, weights = row["id"], row.get("weights")
        if name in found or (row.get("accuracy_split") == "test" and "validation_accuracy" in row):
            continue
        result = load_result((work.run.path / weights).parent) if weights else None
        found[name] = Reached.by(Shared(result=result)) if result else ledger.reached(work.plans[name])
    return found


def _dense_values(work: _Work, trained: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Gives what changes of the dense model's accuracies: those as it is where a split lacks them."""
    before = work.values["dense"]
    found: dict[str, Any] = {}
    if not before.get("validation"):
        found = dense_accuracies(work.survey, work.weights, work.progress).values()
    new = {(each["kind"], each["epochs"]) for each in trained}
    kept = [each for each in before.get("trained", ()) if (each["kind"], each["epochs"]) not in new]
    return {**found, "trained": [*kept, *map(dict, trained)]}


def _contestants(work: _Work, trained: Mapping[str, str]) -> list[Contestant]:
    """Every configuration of the run as it would be deployed, and the baselines that were run whole.

    Args:
        work: of this call.
        trained: configuration to the file of its new weights.
    """
    found: dict[str, Contestant] = {}
    for row in measured_rows(work.values):
        name = row["id"]
        kept = row.get("weights")
        weights = trained.get(name) or (kept and str(work.run.path / kept))
        found.setdefault(
            name,
            Contestant(
                name=name,
                weights=weights or str(work.weights),
                plan=work.plans[name],
                pruned=bool(weights),
                dtype=work.plans[name].dtype,
            ),
        )
    return list(found.values())
