"""Latencies of whole models as pareto.json holds them, in every state that the host was seen in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autosparse.pipeline.measured.ledger import Measured, dense_name
from autosparse.records import WholeLatency
from autosparse.report import document as form


def dense_latencies(references: Mapping[str, Measured], dtypes: Sequence[str]) -> dict[str, Any]:
    """Gives the un-pruned model's latencies: on our engine, and as peers on others and in other types.

    Args:
        references: the dense runs of a session, by contestant.
        dtypes: types of the run; the first one's dense run is ``latency``.
    """
    first = dense_name(dtypes[0])
    references = {name: figure for name, figure in references.items() if was_run(figure.latency)}
    if first not in references:
        return {"latency": None}
    return {
        "latency": references[first].latency.to_json(),
        "peers": {
            form.run_name(figure.latency): figure.latency.to_json()
            for name, figure in references.items()
            if name != first
        },
        "latency_states": {
            form.run_name(figure.latency): _in_states(figure) for figure in references.values()
        },
    }


def latency_values(figure: Measured) -> dict[str, Any]:
    """Gives a measured latency as configurations and baselines hold it; none where nothing was run."""
    latency = figure.latency
    if not was_run(latency):
        return {"measured_latency_ms": None, "latency_ci_ms": None, "latency_repeats": 0}
    return {
        "measured_latency_ms": latency.median_ms,
        "latency_ci_ms": [latency.ci_low_ms, latency.ci_high_ms],
        "latency_repeats": latency.repeats,
        "latency_states": _in_states(figure),
        "latency_deciding_s": figure.deciding_s,
    }


def _in_states(figure: Measured) -> dict[str, Any]:
    """Gives the latency in every state of the host; nothing where it has only one."""
    if len(figure.states) < 2 and not figure.latency.state:
        return {}
    return {state: latency.to_json() for state, latency in figure.states.items()}


def was_run(latency: WholeLatency) -> bool:
    """Whether a latency is of runs; else it is a sum of rows, and a prediction."""
    return latency.repeats > 0


def speedup(latency: WholeLatency, references: Mapping[str, Measured]) -> float | None:
    """Gives the ratio of the fastest dense run, ours or a peer's, to a configuration's.

    None where nothing was run.
    """
    if not was_run(latency):
        return None
    return min(dense.latency.median_ms for dense in references.values()) / latency.median_ms
