"""Everything a run leaves behind: pareto.json, tables, plans, and the report made from them."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import numpy as np
import scipy.stats

from autosparse import report
from autosparse.pipeline.measured.finalists import Finalist
from autosparse.pipeline.measured.latencies import dense_latencies, latency_values, speedup
from autosparse.pipeline.measured.ledger import Ledger, Measured
from autosparse.pipeline.subject.survey import Survey
from autosparse.pipeline.trained.accuracies import DenseAccuracies, Reached
from autosparse.plans.front import Scored, feasible_front, knee
from autosparse.plans.plan import Plan
from autosparse.records import LatencyOption
from autosparse.report import document as form
from autosparse.report.verdict import sentence, smallest_feasible_ms
from autosparse.run_folders import RunFolder
from autosparse.searching import knapsack
from autosparse.searching.problem import Problem
from autosparse.searching.trials import StudyResult, TrialRecord
from autosparse.storage.files import write_json, write_rows_csv, write_text, write_yaml
from autosparse.tuning.autotune import TuneResult
from autosparse.version import __version__

LATENCY_COLUMNS = (
    "layer", "shape", "label", "kernel", "dtype", "threads",
    "median_us", "ci_low_us", "ci_high_us", "flops_kept",
)  # fmt: skip
TRIAL_COLUMNS = (
    "number", "state", "kind", "plan_id", "dtype", "latency_ms", "accuracy", "accuracy_kind",
    "accuracy_split", "feasible", "reason", "params",
)  # fmt: skip
_FRONT_POINTS = 24
_PLANS = "configs"
_S = TypeVar("_S", bound=Scored)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entrant:
    """A configuration of the report: a finalist with what it finally reached.

    Attributes:
        finalist: plan, one-shot accuracy and predicted latency.
        measured: whole-model figures of the weights that are deployed.
        reached: accuracies of those weights.
        weights: file of those weights, relative to the run's folder; None where they are the dense
            ones, pruned by the plan.
    """

    finalist: Finalist
    measured: Measured
    reached: Reached
    weights: str | None = None

    @property
    def latency_ms(self) -> float:
        """Measured median."""
        return self.measured.latency.median_ms

    @property
    def accuracy_value(self) -> float:
        """What the verdict is chosen by: accuracy on the validation split, since test only reports."""
        return self.reached.validation.value

    @property
    def excess_ms(self) -> float:
        """Upper end of the measured interval over the budget; 0 or less is feasible."""
        if self.finalist.budget_us is None:
            return 0.0
        return self.measured.latency.ci_high_ms - self.finalist.budget_us / 1e3


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """All that a finished search knows.

    Attributes:
        survey: the run's subject.
        command: how to get the same run.
        dense_accuracies: of the un-pruned model as it is.
        tuning: the tuner's result.
        study: the study's result.
        problem: the table with its fitted correction.
        ledger: whole-model figures.
        entrants: the configurations of the final front and those promoted beside it.
        trained_dense: dense models trained like the configurations, as pareto.json holds them.
        uniform: the uniform-sparsity plan that was trained and measured like them, if there is one.
        skipped: what was left out, and why.
    """

    survey: Survey
    command: str
    dense_accuracies: DenseAccuracies
    tuning: TuneResult
    study: StudyResult | None
    problem: Problem
    ledger: Ledger
    entrants: tuple[Entrant, ...]
    trained_dense: tuple[Mapping[str, Any], ...] = ()
    uniform: Entrant | None = None
    skipped: tuple[tuple[str, str], ...] = field(default=())


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


def write_start(run: RunFolder, survey: Survey) -> None:
    """Writes what is known before any measurement: the configuration and the host."""
    write_json(run.path / "hardware.json", survey.hardware.to_json())
    write_text(run.path / "space.yaml", survey.space.to_yaml())


def write_plan(run: RunFolder, plan: Plan) -> None:
    """Writes a configuration's plan."""
    run.folder(_PLANS)
    write_yaml(run.path / plan_file(plan.id), json.loads(json.dumps(plan.to_json())))


def plan_file(plan_id: str) -> str:
    """Gives the file of a plan, relative to the run's folder."""
    return f"{_PLANS}/{plan_id}.yaml"


def _entered(findings: Findings) -> dict[str, Plan]:
    return {entrant.finalist.plan.id: entrant.finalist.plan for entrant in findings.entrants}


def _measured_baselines(findings: Findings) -> dict[str, Plan]:
    ids = [row["id"] for row in _baselines(findings) if row["id"] is not None]
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


# ------------------------------------------------------------------------------------ pareto.json


def to_document(findings: Findings) -> dict[str, Any]:
    """Gives the content of pareto.json, checked against its format."""
    survey = findings.survey
    reach = knapsack.feasibility(findings.problem)
    best = choose(findings.entrants, has_budget=survey.config.latency_budget is not None)
    values: dict[str, Any] = {
        "schema": form.SCHEMA,
        "model": survey.config.model,
        "hardware_id": survey.device.id,
        "threads": survey.threads,
        "batch_size": survey.config.batch_size,
        "dtypes": list(survey.dtypes),
        "no_dtypes": dict(survey.arithmetic.why_not),
        "compact_weights": survey.config.compact_weights,
        "budget_ms": _ms(survey.config.latency_budget),
        "judged": survey.config.judged,
        "input_shape": list(survey.input_shape),
        "data": survey.config.data,
        "data_resolution": survey.data_resolution,
        "seed": survey.config.seed,
        "command": findings.command,
        "version": __version__,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "dense": {
            **dense_latencies(findings.ledger.references, survey.dtypes),
            **findings.dense_accuracies.values(),
            "trained": [dict(each) for each in findings.trained_dense],
        },
        "given_weights": survey.config.weights is not None,
        "baselines": _baselines(findings),
        "configs": [_config(entrant, findings) for entrant in findings.entrants],
        "predicted_front": _predicted_front(findings),
        "calibration": _calibration(findings),
        "hypervolume": [
            {"trial": point.trial, "value": point.value}
            for point in (findings.study.hypervolume if findings.study else ())
        ],
        "tuning": _tuning(findings.tuning),
        "skipped": [{"what": what, "why": why} for what, why in findings.skipped],
        "verdict": {"id": best.finalist.plan.id if best else None},
        "feasibility": {
            "fastest_ms": reach.fastest_us / 1e3,
            "dense_ms": reach.dense_us / 1e3,
            "slowest_ms": reach.slowest_us / 1e3,
            "smallest_feasible_ms": reach.smallest_feasible_us / 1e3,
        },
        "policy": _policy(survey),
        "versions": versions(),
    }
    document = form.parse(values)
    values["feasibility"]["smallest_feasible_ms"] = smallest_feasible_ms(document)
    values["verdict"]["text"] = sentence(document)
    return values


def choose(points: Sequence[_S], *, has_budget: bool) -> _S | None:
    """Picks what to deploy: the most accurate within the budget, without one the front's knee."""
    front = feasible_front(points)
    if not front:
        return None
    if not has_budget:
        return knee(front)
    return max(front, key=lambda point: (point.accuracy_value, -point.latency_ms))


def _ms(value_us: float | None) -> float | None:
    return None if value_us is None else value_us / 1e3


def _policy(survey: Survey) -> dict[str, Any]:
    """Gives how layers were measured; the distance of their weights differs with the type."""
    policies = {dtype: survey.tune_request(dtype).policy for dtype in survey.dtypes}
    values: dict[str, Any] = policies[survey.dtypes[0]].to_json()
    if len(policies) > 1:
        values["reuse_bytes"] = {dtype: policy.reuse_bytes for dtype, policy in policies.items()}
    return values


def _baselines(findings: Findings) -> list[dict[str, Any]]:
    if findings.study is None:
        return []
    trials = [
        t for t in findings.study.trials if t.kind == "uniform" and t.plan_id in findings.study.plans
    ]
    first = {trial.plan_id: trial for trial in reversed(trials) if trial.state == "COMPLETE"}
    return [
        _baseline(trial, findings, findings.study.plans[plan_id]) for plan_id, trial in first.items()
    ]


def _baseline(trial: TrialRecord, findings: Findings, plan: Plan) -> dict[str, Any]:
    deployed = findings.uniform
    if deployed is not None and deployed.finalist.plan.id != plan.id:
        deployed = None
    measured = deployed.measured if deployed else findings.ledger.measured.get(plan.id)
    unmeasured = {"measured_latency_ms": None, "latency_ci_ms": None, "latency_repeats": 0}
    return {
        "name": plan.note,
        "id": plan.id if measured else None,
        "predicted_latency_ms": trial.latency_ms,
        **(latency_values(measured) if measured else unmeasured),
        **(deployed.reached.values() if deployed else _of_trial(trial)),
        "dtype": plan.dtype,
        "plan": plan_file(plan.id) if measured else "",
        "weights": deployed.weights if deployed else None,
    }


def _of_trial(trial: TrialRecord) -> dict[str, Any]:
    """Gives the accuracy of a baseline that was not run to the end: on validation data alone."""
    assert trial.accuracy is not None  # the trial is complete
    return {
        "accuracy": trial.accuracy.value,
        "accuracy_kind": trial.accuracy.kind,
        "accuracy_split": trial.accuracy.split,
        "accuracy_samples": trial.accuracy.samples,
    }


def _config(entrant: Entrant, findings: Findings) -> dict[str, Any]:
    plan, latency = entrant.finalist.plan, entrant.measured.latency
    return {
        "id": plan.id,
        "predicted_latency_ms": entrant.finalist.predicted_us / 1e3,
        **latency_values(entrant.measured),
        "speedup": speedup(latency, findings.ledger.references),
        **entrant.reached.values(),
        "one_shot_accuracy": entrant.finalist.accuracy.value,
        "sparsity": weight_sparsity(plan, findings.survey),
        "feasible": entrant.excess_ms <= 0,
        "plan": plan_file(plan.id),
        "weights": entrant.weights,
        "dtype": latency.dtype,
        "layers": [_layer(name, entrant, findings) for name in findings.problem.layers],
    }


def _layer(name: str, entrant: Entrant, findings: Findings) -> dict[str, Any]:
    choice = entrant.finalist.plan.choice(name)
    ran = next((layer for layer in entrant.measured.layers if layer.name == name), None)
    scope = next((s for s in findings.survey.scopes if s.name == name), None)
    why = "; ".join(scope.why_dense) if scope and scope.why_dense else ""
    dense = findings.problem.dense_option(name, entrant.finalist.plan.dtype)
    row = dense if choice.pattern.is_dense else findings.problem.option(name, choice)
    return {
        "name": name,
        "label": choice.label,
        "dtype": entrant.finalist.plan.dtype,
        "kernel": ran.kernel if ran else row.choice.kernel,
        "predicted_us": row.median_us,
        "measured_us": ran.median_us if ran else None,
        "dense_us": dense.median_us,
        "sparsity": choice.sparsity,
        "why_dense": why if choice.pattern.is_dense else "",
    }


def weight_sparsity(plan: Plan, survey: Survey) -> float:
    """Gives the fraction of the traced layers' weights that a plan prunes."""
    total = pruned = 0.0
    for layer in survey.layers:
        if layer.shape is not None:
            total += layer.shape.weights
            pruned += layer.shape.weights * plan.choice(layer.name).sparsity
    return pruned / total


def _predicted_front(findings: Findings) -> list[dict[str, Any]]:
    problem = findings.problem
    return [
        {
            "latency_ms": point.us / 1e3,
            "accuracy": max(0.0, problem.dense_accuracy - point.loss),
            "dtype": point.plan.dtype,
        }
        for point in knapsack.front(problem, _FRONT_POINTS)
    ]


def _calibration(findings: Findings) -> dict[str, Any] | None:
    """Sets predictions beside measurements in the state of the host that the table is of."""
    state = findings.tuning.state
    bare = findings.study.problem if findings.study else findings.problem
    figures = {
        **findings.ledger.measured,
        **{entrant.finalist.plan.id: entrant.measured for entrant in findings.entrants},
    }
    predicted = {
        entrant.finalist.plan.id: entrant.finalist.predicted_us for entrant in findings.entrants
    }
    pairs = [
        (
            plan_id,
            predicted.get(plan_id) or bare.predicted_us(findings.ledger.plans[plan_id]),
            figure.judged_in(state).latency.median_ms,
        )
        for plan_id, figure in figures.items()
    ]
    pairs = [(plan_id, predicted_us / 1e3, ms) for plan_id, predicted_us, ms in pairs]
    return {**calibration(pairs), "state": state} if pairs else None


def calibration(pairs: Sequence[tuple[str, float, float]]) -> dict[str, Any]:
    """Says how well predictions met measurements.

    Args:
        pairs: plan id, predicted and measured latency in milliseconds; at least one.
    """
    predicted = np.array([pair[1] for pair in pairs])
    measured = np.array([pair[2] for pair in pairs])
    varied = len(pairs) > 2 and np.ptp(predicted) > 0 and np.ptp(measured) > 0
    return {
        "factor": float(np.median(measured / predicted)),
        "mape": float(np.mean(np.abs(predicted - measured) / measured)),
        "spearman": float(scipy.stats.spearmanr(predicted, measured).statistic) if varied else None,
        "points": [{"id": i, "predicted_ms": p, "measured_ms": m} for i, p, m in pairs],
    }


def _tuning(tuning: TuneResult) -> dict[str, Any]:
    return {
        "considered": tuning.considered,
        "timed": tuning.timed,
        "reused": tuning.reused,
        "skipped": [{"reason": skip.reason, "count": skip.count} for skip in tuning.skipped],
    }


def versions() -> dict[str, str]:
    """Gives the versions that a result depends on."""
    libraries = ("torch", "optuna", "ray", "numpy", "scipy")
    found = {name: importlib.metadata.version(name) for name in libraries}
    return {"autosparse": __version__, "python": platform.python_version(), **found}
