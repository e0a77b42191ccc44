"""The report on a terminal: the verdict and a small table, plain text of fixed width."""

from __future__ import annotations

import textwrap
from collections.abc import Container, Sequence

from autosparse.report import words
from autosparse.report.document import Config, Document
from autosparse.report.facts import host_state, reference_note
from autosparse.report.verdict import best, sentence, smallest_feasible_ms, speedup, status

_HEADER = ("", "id", "measured", "predicted", "speed-up", "accuracy", "kind", "zeros", "type", "budget")


def summary(document: Document, *, width: int = 100, limit: int = 12) -> str:
    """Gives the verdict and the configurations, best first by latency.

    Args:
        document: the parsed pareto.json.
        width: columns to wrap the sentences at; the table takes about 95.
        limit: most configurations to list.

    Returns:
        Lines of text without a final line break.
    """
    lines = _wrapped(document.verdict.text or sentence(document), width)
    if status(document) == "infeasible" and (bound := smallest_feasible_ms(document)) is not None:
        lines.append(f"Try --latency-budget {words.least_ms(bound).replace(' ', '')} or more.")
    if document.host_state:
        lines += _wrapped(f"State of the host: {host_state(document)}.", width)
    if document.given_weights:
        lines += _wrapped(f"Dense weights: {words.GIVEN_WEIGHTS}.", width)
    if document.compact_weights:
        lines += _wrapped(f"Kernels: {words.COMPACT_WEIGHTS}.", width)
    if document.configs:
        lines += ["", *_table(document, limit), "", *_wrapped(reference_note(document), width)]
    return "\n".join(lines)


def _wrapped(text: str, width: int) -> list[str]:
    """Wraps text without parting numbers from their units."""
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in textwrap.wrap(words.glue(text), width)]


def _table(document: Document, limit: int) -> list[str]:
    chosen = best(document)
    ordered = sorted(document.configs, key=_latency)
    shown = ordered[:limit]
    if chosen is not None and chosen not in shown:
        shown[-1] = chosen
    cells = [_HEADER, *(_cells(document, config, config == chosen) for config in shown)]
    lines = aligned(cells, right={2, 3, 4, 7})
    lines.insert(1, "-" * len(lines[0]))
    hidden = len(ordered) - len(shown)
    return lines + ([f"… and {hidden} more in pareto.csv"] if hidden else [])


def _latency(config: Config) -> float:
    return config.measured_latency_ms or config.predicted_latency_ms or float("inf")


def _cells(document: Document, config: Config, chosen: bool) -> tuple[str, ...]:
    met = "" if document.budget_ms is None else "met" if config.feasible else "over"
    return (
        "*" if chosen else "",
        config.id,
        words.ms_ci(config.measured_latency_ms, config.latency_ci_ms),
        words.ms(config.predicted_latency_ms),
        words.times(speedup(document, config)),
        f"{words.percent(config.accuracy)} {config.accuracy_split}",
        config.accuracy_kind,
        words.percent(config.sparsity, 0),
        config.dtype,
        met,
    )


def aligned(rows: Sequence[Sequence[str]], right: Container[int]) -> list[str]:
    """Gives rows of cells as lines of text.

    Args:
        rows: of equally many cells each, at least one.
        right: columns that end, rather than begin, where others do.
    """
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(widths[i]) if i in right else cell.ljust(widths[i]) for i, cell in enumerate(row)
        ).rstrip()
        for row in rows
    ]
