"""Latency against accuracy: what the run reports, and what the search saw, each of one split."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any, TypeVar

import plotly.graph_objects as go

from autosparse.records import Accuracy, SplitName, WholeLatency
from autosparse.report import words
from autosparse.report.canvas import (
    BLUE,
    FAINT,
    GREEN,
    GREY,
    INK,
    ORANGE,
    PURPLE,
    SHADE,
    SURFACE,
    TEAL,
    Canvas,
    Figure,
    bars,
    hover,
)
from autosparse.report.document import Baseline, Config, Document
from autosparse.report.source import Source, Trial
from autosparse.report.verdict import TRAINED, best, dense_reference, speedup

_E = TypeVar("_E", Baseline, Config)

MAX_TRIALS = 4000  # beyond this many points a browser stutters

_SYMBOLS = {"full": "circle", "short": "circle", "one-shot": "circle-open", "predicted": "circle-open"}


def pareto(source: Source) -> Figure:
    """Draws what the run reports: configurations, dense and baselines on the split of the reports."""
    return _scatter(source, source.document.main_split)


def search_view(source: Source) -> Figure | None:
    """Draws what the search saw, on the validation split; None where the reports are of it too."""
    return None if source.document.main_split == "validation" else _scatter(source, "validation")


def _scatter(source: Source, split: SplitName) -> Figure:
    """Draws all that has an accuracy on a split; that of trials and predicted front is validation."""
    document = source.document
    trials = source.trials if split == "validation" else ()
    canvas = Canvas()
    shown = _add_trials(canvas, trials)
    if split == "validation":
        _add_front(canvas, document)
    _add_baselines(canvas, document.baselines, split)
    _add_dense(canvas, document, split)
    _add_configs(canvas, document, split)
    canvas.legend.reverse()  # drawn last is on top and matters most
    view = _view(document, split)
    x_range, y_range = view or (None, None)
    return canvas.finish(
        f"Latency (ms) · {_setting(document)}",
        f"Top-1 accuracy, {split} split (%)",
        caption=_pareto_caption(trials, shown, view),
        label=f"Scatter of latency in milliseconds against top-1 {split} accuracy in per cent",
        xaxis={"range": x_range},
        yaxis={"range": y_range},
        **_budget(document.budget_ms),
    )


def _setting(document: Document) -> str:
    threads = words.count(document.threads, "thread")
    return escape(f"batch {document.batch_size}, {threads}, {'/'.join(document.dtypes)}")


def _budget(budget_ms: float | None) -> dict[str, Any]:
    if budget_ms is None:
        return {}
    area = {
        "type": "rect",
        "xref": "x",
        "yref": "paper",
        "x0": 0,
        "x1": budget_ms,
        "y0": 0,
        "y1": 1,
        "layer": "below",
        "line": {"width": 0},
        "fillcolor": SHADE,
    }
    line = {
        "type": "line",
        "xref": "x",
        "yref": "paper",
        "x0": budget_ms,
        "x1": budget_ms,
        "y0": 0,
        "y1": 1,
        "layer": "below",
        "line": {"color": GREEN, "width": 1.5, "dash": "dash"},
    }
    text = {
        "x": budget_ms,
        "xref": "x",
        "y": 1,
        "yref": "paper",
        "yanchor": "bottom",
        "showarrow": False,
        "text": f"budget {words.budget(budget_ms)}",
        "font": {"color": GREEN, "size": 12},
    }
    return {"shapes": [area, line], "annotations": [text]}


def _add_trials(canvas: Canvas, trials: Sequence[Trial]) -> int:
    done = [t for t in trials if t.latency_ms is not None and t.accuracy is not None]
    step = -(-len(done) // MAX_TRIALS) or 1
    drawn = done[::step]
    if not drawn:
        return 0
    kinds = " or ".join(dict.fromkeys(t.accuracy_kind for t in drawn))
    canvas.add(
        go.Scatter(
            x=[t.latency_ms for t in drawn],
            y=[100 * (t.accuracy or 0.0) for t in drawn],
            mode="markers",
            marker={"size": 5, "color": FAINT},
            hovertext=[
                hover(
                    f"trial {t.number}" + (f" · {t.kind}" if t.kind else ""),
                    f"{words.ms(t.latency_ms)} predicted",
                    f"{words.percent(t.accuracy)} {words.kind(t.accuracy_kind)}, {t.dtype}",
                    "" if t.feasible else "over budget",
                )
                for t in drawn
            ],
            hoverinfo="text",
        ),
        f"search trial (latency predicted, accuracy {kinds})",
        "dot",
        FAINT,
    )
    return len(drawn)


def _add_front(canvas: Canvas, document: Document) -> None:
    front = sorted(document.predicted_front, key=lambda point: point.latency_ms)
    if not front:
        return
    canvas.add(
        go.Scatter(
            x=[point.latency_ms for point in front],
            y=[100 * point.accuracy for point in front],
            mode="lines",
            line={"color": PURPLE, "width": 1.75, "dash": "dot"},
            hovertext=[
                hover(
                    "additive model",
                    f"{words.ms(p.latency_ms)} predicted",
                    f"{words.percent(p.accuracy)} predicted, {p.dtype}",
                )
                for p in front
            ],
            hoverinfo="text",
        ),
        "front of the additive model (both predicted)",
        "dash",
        PURPLE,
    )


def _add_baselines(canvas: Canvas, baselines: Iterable[Baseline], split: SplitName) -> None:
    for measured in (True, False):
        group = [
            b
            for b in _known(baselines, split)
            if (b.measured_latency_ms is not None) == measured and _latency_of(b) is not None
        ]
        if not group:
            continue
        how = "measured" if measured else "predicted"
        symbol = "square" if measured else "square-open"
        canvas.add(
            go.Scatter(
                x=[_latency_of(b) for b in group],
                y=[_percent(b, split) for b in group],
                mode="markers",
                marker={
                    "symbol": symbol,
                    "size": 9,
                    "color": TEAL,
                    "line": {"width": 1.5, "color": TEAL},
                },
                error_x=bars([(b.measured_latency_ms, b.latency_ci_ms) for b in group], TEAL),
                hovertext=[
                    hover(
                        b.name,
                        f"{words.ms_ci(_latency_of(b), b.latency_ci_ms)} {how}",
                        f"{words.percent(b.accuracy_on(split))} {split}, "
                        f"{words.kind(b.accuracy_kind)}, {b.dtype}",
                    )
                    for b in group
                ],
                hoverinfo="text",
            ),
            f"uniform baseline ({how})",
            symbol,
            TEAL,
        )


def _latency_of(item: Baseline | Config) -> float | None:
    return item.measured_latency_ms or item.predicted_latency_ms


def _known(items: Iterable[_E], split: SplitName) -> list[_E]:
    return [item for item in items if item.accuracy_on(split) is not None]


def _percent(item: Baseline | Config, split: SplitName) -> float:
    return 100 * (item.accuracy_on(split) or 0.0)


def _add_dense(canvas: Canvas, document: Document, split: SplitName) -> None:
    for engine, run in document.dense.runs.items():
        accuracy = document.dense.on(split, run.dtype)
        if accuracy is None:
            continue
        symbol = "diamond" if run.engine == "autosparse" else "diamond-open"
        _add_dense_point(canvas, run, accuracy, f"dense, {engine} (measured)", symbol)
    reference = dense_reference(document)
    for each in document.dense.trained:
        accuracy = each.on(split)
        if accuracy is not None and reference is not None:
            name = f"dense, {words.kind(each.kind)}, {words.count(each.epochs, 'epoch')}"
            _add_dense_point(canvas, reference.latency, accuracy, name, "square")


def _add_dense_point(
    canvas: Canvas, run: WholeLatency, accuracy: Accuracy, label: str, symbol: str
) -> None:
    interval = (run.ci_low_ms, run.ci_high_ms)
    line = {"width": 1.5, "color": INK}
    canvas.add(
        go.Scatter(
            x=[run.median_ms],
            y=[100 * accuracy.value],
            mode="markers",
            marker={"symbol": symbol, "size": 12, "color": INK, "line": line},
            error_x=bars([(run.median_ms, interval)], INK),
            hovertext=[
                hover(
                    label,
                    f"{words.ms_ci(run.median_ms, interval)} measured",
                    f"{run.engine}, {run.dtype}, {words.count(run.threads, 'thread')}, "
                    f"{run.repeats} runs",
                    f"{words.percent(accuracy.value)} {accuracy.split}, {accuracy.samples} samples",
                )
            ],
            hoverinfo="text",
        ),
        label,
        symbol,
        INK,
    )


def _add_configs(canvas: Canvas, document: Document, split: SplitName) -> None:
    measured = [c for c in _known(document.configs, split) if c.measured_latency_ms is not None]
    for feasible in (False, True):
        for kind in dict.fromkeys(c.accuracy_kind for c in measured):
            group = [c for c in measured if c.feasible == feasible and c.accuracy_kind == kind]
            if group:
                _add_group(canvas, document, group, feasible, kind, split)
    chosen = best(document)
    if chosen is not None and chosen in measured:
        ring = {"symbol": "circle-open", "size": 20, "color": ORANGE, "line": {"width": 2.5}}
        trace = go.Scatter(
            x=[chosen.measured_latency_ms],
            y=[_percent(chosen, split)],
            mode="markers",
            marker=ring,
            hoverinfo="skip",
        )
        canvas.add(trace, "best configuration", "ring", ORANGE)


def _add_group(
    canvas: Canvas,
    document: Document,
    group: Sequence[Config],
    feasible: bool,
    kind: str,
    split: SplitName,
) -> None:
    color = BLUE if feasible else GREY
    symbol = _SYMBOLS[kind]
    marker = {"symbol": symbol, "size": 11, "color": color, "line": {"width": 2, "color": color}}
    if kind == "short":  # a trained one is filled; the rim tells short from full training
        marker["line"] = {"width": 2.5, "color": SURFACE}
    canvas.add(
        go.Scatter(
            x=[c.measured_latency_ms for c in group],
            y=[_percent(c, split) for c in group],
            mode="markers",
            marker=marker,
            error_x=bars([(c.measured_latency_ms, c.latency_ci_ms) for c in group], color),
            hovertext=[_confighover(document, c, split) for c in group],
            hoverinfo="text",
        ),
        ("" if feasible else "over budget: ") + f"configuration, measured · {words.kind(kind)}",
        symbol,
        color,
    )


def _confighover(document: Document, config: Config, split: SplitName) -> str:
    ratio, reference = speedup(document, config), dense_reference(document)
    over = f"{words.times(ratio)} over dense {reference.engine}" if ratio and reference else ""
    return hover(
        config.id,
        f"{words.ms_ci(config.measured_latency_ms, config.latency_ci_ms)} measured",
        f"{words.ms(config.predicted_latency_ms)} predicted",
        over,
        f"{words.percent(config.accuracy_on(split))} {split}, {words.kind(config.accuracy_kind)}",
        f"{words.percent(config.sparsity)} of the weights are zero, {config.dtype}",
        "" if config.feasible else "over budget",
    )


def _view(document: Document, split: SplitName) -> tuple[list[float], list[float]] | None:
    """Frames the configurations, the dense runs and the budget: what a decision is made between.

    Untrained baselines and trials, far below, would squeeze them into a corner.
    """
    measured = [c for c in _known(document.configs, split) if c.measured_latency_ms is not None]
    trained = [b for b in _known(document.baselines, split) if b.accuracy_kind in TRAINED]
    framed: list[Baseline | Config] = [*measured, *trained]
    xs = [x for x in map(_latency_of, framed) if x is not None]
    ys = [item.accuracy_on(split) or 0.0 for item in framed]
    xs += [run.median_ms for run in document.dense.runs.values()]
    xs += [document.budget_ms] if document.budget_ms else []
    dense = [document.dense.on(split), *(each.on(split) for each in document.dense.trained)]
    ys += [each.value for each in dense if each is not None]
    if not xs or not ys:
        return None
    x_pad = 0.06 * (max(xs) - min(xs)) or 0.1 * max(xs)
    y_pad = max(100 * 0.15 * (max(ys) - min(ys)), 0.5)
    return (
        [max(0.0, min(xs) - x_pad), max(xs) + x_pad],
        [100 * min(ys) - y_pad, min(100 * max(ys) + y_pad, 101.5)],
    )


def _pareto_caption(
    trials: Sequence[Trial], shown: int, view: tuple[list[float], list[float]] | None
) -> str:
    done = [(t.latency_ms, 100 * t.accuracy) for t in trials if t.latency_ms and t.accuracy is not None]
    parts = []
    if shown < len(done):
        parts.append(f"{shown} of {len(done)} trials are drawn, evenly picked.")
    if view is not None:
        (left, right), (low, high) = view
        outside = sum(not (left <= x <= right and low <= y <= high) for x, y in done)
        if outside:
            verb = "lies" if outside == 1 else "lie"
            parts.append(f"{words.count(outside, 'trial')} {verb} outside the first view: show all.")
    return " ".join(parts)
