"""How well predictions met measurements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.stats

from autosparse.pipeline.results.findings import Findings


def calibration_of(findings: Findings) -> dict[str, Any] | None:
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
