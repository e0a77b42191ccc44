"""Everything a run leaves behind: pareto.json, tables, plans, and the report made from them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from autosparse import report
from autosparse.pipeline.results.findings import Findings
from autosparse.pipeline.results.pareto import PLANS, baselines, plan_file, to_document
from autosparse.pipeline.subject.survey import Survey
from autosparse.plans.plan import Plan
from autosparse.records import LatencyOption
from autosparse.report import document as form
from autosparse.report import moves
from autosparse.report.moves import FrontMove
from autosparse.run_folders import RunFolder
from autosparse.searching.trials import StudyResult, TrialRecord
from autosparse.storage.files import write_json, write_rows_csv, write_text, write_yaml

LATENCY_COLUMNS = (
    "layer", "shape", "label", "kernel", "dtype", "threads",
    "median_us", "ci_low_us", "ci_high_us", "flops_kept",
)  # fmt: skip
TRIAL_COLUMNS = (
    "number", "state", "kind", "plan_id", "dtype", "latency_ms", "accuracy", "accuracy_kind",
    "accuracy_split", "feasible", "reason", "params",
)  # fmt: skip


def publish(run: RunFolder, findings: Findings) -> dict[str, Any]:
    """Writes every result file of a run and its report; gives the content of pareto.json."""
    write_latency_table(run, findings.survey, findings.tuning.options)
    write_trials(run, findings.study)
    for plan in {**_measured_baselines(findings), **_entered(findings)}.values():
        write_plan(run, plan)
    values = to_document(findings)
    form.write(run.path / form.FILE, values)
    report.build(run.path)
    return values


def write_moved(run: RunFolder, moved: FrontMove) -> None:
    """Writes what became of the front of the run that was taken over from."""
    write_json(run.path / moves.FILE, moved.to_json())


def write_start(run: RunFolder, survey: Survey) -> None:
    """Writes what is known before any measurement: the configuration and the host."""
    write_json(run.path / "hardware.json", survey.hardware.to_json())
    write_text(run.path / "space.yaml", survey.space.to_yaml())


def write_plan(run: RunFolder, plan: Plan) -> None:
    """Writes a configuration's plan."""
    run.folder(PLANS)
    write_yaml(run.path / plan_file(plan.id), json.loads(json.dumps(plan.to_json())))


def _entered(findings: Findings) -> dict[str, Plan]:
    return {entrant.finalist.plan.id: entrant.finalist.plan for entrant in findings.entrants}


def _measured_baselines(findings: Findings) -> dict[str, Plan]:
    ids = [row["id"] for row in baselines(findings) if row["id"] is not None]
    return {plan_id: findings.ledger.plans[plan_id] for plan_id in ids}


def latency_rows(
    survey: Survey, options: Mapping[str, Sequence[LatencyOption]]
) -> list[dict[str, Any]]:
    """Gives one plain row per layer and measured option."""
    shapes = {layer.name: layer.shape.key for layer in survey.layers if layer.shape}
    return [
        {
            "layer": layer,
            "shape": shapes[layer],
            "label": option.choice.label,
            "kernel": option.choice.kernel,
            "dtype": option.choice.dtype,
            "threads": survey.threads,
            "median_us": option.median_us,
            "ci_low_us": option.ci_low_us,
            "ci_high_us": option.ci_high_us,
            "flops_kept": option.flops_kept,
        }
        for layer, found in options.items()
        for option in found
    ]


def write_latency_table(
    run: RunFolder, survey: Survey, options: Mapping[str, Sequence[LatencyOption]]
) -> None:
    """Writes latency_table.csv."""
    write_rows_csv(run.path / "latency_table.csv", latency_rows(survey, options), list(LATENCY_COLUMNS))


def write_trials(run: RunFolder, study: StudyResult | None) -> None:
    """Writes trials.csv, with the header alone where no study was run."""
    rows = [_trial_row(trial) for trial in study.trials] if study else []
    write_rows_csv(run.path / "trials.csv", rows, list(TRIAL_COLUMNS))


def _trial_row(trial: TrialRecord) -> dict[str, Any]:
    done = trial.state == "COMPLETE"
    return {
        "number": trial.number,
        "state": trial.state,
        "kind": trial.kind,
        "plan_id": trial.plan_id,
        "dtype": trial.dtype,
        "latency_ms": trial.latency_ms if done else None,
        "accuracy": trial.accuracy_value if done else None,
        "accuracy_kind": trial.accuracy_kind,
        "accuracy_split": trial.accuracy.split if trial.accuracy else "",
        "feasible": trial.feasible if done else None,
        "reason": trial.reason,
        "params": json.dumps(dict(trial.params), sort_keys=True),
    }
