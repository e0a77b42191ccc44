"""The content of pareto.json, made from what a search knows."""

from __future__ import annotations

import importlib.metadata
import platform
from datetime import UTC, datetime
from typing import Any

from autosparse.pipeline.measured.latencies import dense_latencies, latency_values, speedup, was_run
from autosparse.pipeline.results.calibration import calibration_of
from autosparse.pipeline.results.choosing import choose
from autosparse.pipeline.results.findings import Entrant, Findings
from autosparse.pipeline.subject.survey import Survey
from autosparse.plans.plan import Plan
from autosparse.report import document as form
from autosparse.report.verdict import sentence, smallest_feasible_ms
from autosparse.searching import knapsack
from autosparse.searching.trials import TrialRecord
from autosparse.tuning.autotune import TuneResult
from autosparse.version import __version__

PLANS = "configs"
"""Folder of plans in a run."""

_FRONT_POINTS = 24


def plan_file(plan_id: str) -> str:
    """Gives the file of a plan, relative to the run's folder."""
    return f"{PLANS}/{plan_id}.yaml"


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
        "since": findings.since,
        "recorded": "" if survey.host.runs else survey.device.name,
        "command": findings.command,
        "version": __version__,
        "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "dense": {
            **dense_latencies(findings.ledger.references, survey.dtypes),
            **findings.dense_accuracies.values(),
            "trained": [dict(each) for each in findings.trained_dense],
        },
        "given_weights": survey.config.weights is not None,
        "baselines": baselines(findings),
        "configs": [_config(entrant, findings) for entrant in findings.entrants],
        "predicted_front": _predicted_front(findings),
        "calibration": calibration_of(findings),
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


def _ms(value_us: float | None) -> float | None:
    return None if value_us is None else value_us / 1e3


def _policy(survey: Survey) -> dict[str, Any]:
    """Gives how layers were measured; the distance of their weights differs with the type."""
    policies = {dtype: survey.tune_request(dtype).policy for dtype in survey.dtypes}
    values: dict[str, Any] = policies[survey.dtypes[0]].to_json()
    if len(policies) > 1:
        values["reuse_bytes"] = {dtype: policy.reuse_bytes for dtype, policy in policies.items()}
    return values


def baselines(findings: Findings) -> list[dict[str, Any]]:
    """Gives the uniform plans that the study tried, as pareto.json holds them."""
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
        "measured_us": ran.median_us if ran and was_run(entrant.measured.latency) else None,
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
