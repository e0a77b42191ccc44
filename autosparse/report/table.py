"""pareto.csv: the configurations of pareto.json as a table, every digit kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from autosparse.plans.front import Point, non_dominated
from autosparse.records import HOST_STATES
from autosparse.report.document import Config, Document
from autosparse.report.verdict import (
    accuracy_change,
    best,
    counterpart_name,
    dense_reference,
    speedup,
)
from autosparse.storage.files import write_rows_csv

FILE = "pareto.csv"
COLUMNS = (
    "id",
    "measured_latency_ms",
    "latency_ci_low_ms",
    "latency_ci_high_ms",
    "host_state",
    "latency_shared_ms",
    "latency_apart_ms",
    "predicted_latency_ms",
    "speedup",
    "speedup_over",
    "accuracy",
    "accuracy_kind",
    "accuracy_split",
    "accuracy_samples",
    "accuracy_dtype",
    "accuracy_through",
    "accuracy_change",
    "accuracy_change_against",
    "validation_accuracy",
    "one_shot_validation_accuracy",
    "epochs",
    "pruned_from",
    "ensemble_accuracy",
    "ensemble_models",
    "sparsity",
    "feasible",
    "on_front",
    "chosen",
    "plan",
    "dtype",
    "threads",
    "batch_size",
    "hardware_id",
)


def measured_front(document: Document) -> frozenset[str]:
    """Gives the ids of the configurations that no other beats in measured latency and accuracy.

    Only accuracies of one split are compared with each other.
    """
    ids: set[str] = set()
    for split in {config.accuracy_split for config in document.configs}:
        points = [
            Point(config.id, config.measured_latency_ms, config.accuracy)
            for config in document.configs
            if config.accuracy_split == split and config.measured_latency_ms is not None
        ]
        ids |= {point.name for point in non_dominated(points)}
    return frozenset(ids)


def rows(document: Document) -> list[dict[str, Any]]:
    """Gives one row per configuration, in the order of pareto.json."""
    front = measured_front(document)
    return [_row(document, config, config.id in front) for config in document.configs]


def _row(document: Document, config: Config, on_front: bool) -> dict[str, Any]:
    low, high = config.latency_ci_ms or (None, None)
    reference = dense_reference(document)
    return {
        "id": config.id,
        "measured_latency_ms": config.measured_latency_ms,
        "latency_ci_low_ms": low,
        "latency_ci_high_ms": high,
        "host_state": document.host_state,
        **{f"latency_{state}_ms": _median_in(state, config) for state in HOST_STATES},
        "predicted_latency_ms": config.predicted_latency_ms,
        "speedup": speedup(document, config),
        "speedup_over": reference.engine if reference else None,
        "accuracy": config.accuracy,
        "accuracy_kind": config.accuracy_kind,
        "accuracy_split": config.accuracy_split,
        "accuracy_samples": config.accuracy_samples,
        "accuracy_dtype": config.accuracy_dtype,
        "accuracy_through": config.accuracy_through,
        "accuracy_change": accuracy_change(document, config),
        "accuracy_change_against": counterpart_name(config),
        "validation_accuracy": config.accuracy_on("validation"),
        "one_shot_validation_accuracy": config.one_shot_accuracy,
        "epochs": config.epochs,
        "pruned_from": config.shared.trained if config.shared else None,
        "ensemble_accuracy": config.shared.ensemble.value if config.shared else None,
        "ensemble_models": config.shared.tickets if config.shared else None,
        "sparsity": config.sparsity,
        "feasible": config.feasible,
        "on_front": on_front,
        "chosen": config == best(document),
        "plan": config.plan,
        "dtype": config.dtype,
        "threads": document.threads,
        "batch_size": document.batch_size,
        "hardware_id": document.hardware_id,
    }


def _median_in(state: str, config: Config) -> float | None:
    latency = config.latency_states.get(state)
    return None if latency is None else latency.median_ms


def write(document: Document, path: Path) -> None:
    """Writes the table.

    Raises:
        RunError: the file cannot be written.
    """
    write_rows_csv(path, rows(document), COLUMNS)
