"""The two small figures: predicted against measured latency, and hypervolume over trials."""

from __future__ import annotations

import plotly.graph_objects as go

from autosparse.report import words
from autosparse.report.canvas import BLUE, GREY, PURPLE, SHADE, SURFACE, Canvas, Figure, hover
from autosparse.report.document import Document


def calibration(document: Document) -> Figure | None:
    """Draws predicted against measured latency; None without points."""
    if document.calibration is None or not document.calibration.points:
        return None
    points, factor = document.calibration.points, document.calibration.factor
    values = [v for p in points for v in (p.predicted_ms, p.measured_ms)]
    pad = 0.08 * (max(values) - min(values)) or 0.1 * max(values)
    low, high = max(0.0, min(values) - pad), max(values) + pad
    canvas = Canvas()
    _add_diagonal(canvas, low, high, 1.0, "measured = predicted", GREY, "solid")
    if factor is not None and abs(factor - 1) > 1e-3:
        label = f"measured = {words.plain(factor)} {words.TIMES} predicted"
        _add_diagonal(canvas, low, high, factor, label, PURPLE, "dot")
    canvas.add(
        go.Scatter(
            x=[p.predicted_ms for p in points],
            y=[p.measured_ms for p in points],
            mode="markers",
            marker={"size": 9, "color": BLUE, "line": {"width": 1, "color": SURFACE}},
            hovertext=[
                hover(
                    p.id,
                    f"{words.ms(p.predicted_ms)} predicted",
                    f"{words.ms(p.measured_ms)} measured",
                    f"{words.percent(p.measured_ms / p.predicted_ms - 1)} off".replace(
                        "-", words.MINUS
                    ),
                )
                for p in points
            ],
            hoverinfo="text",
        ),
        "configuration",
        "circle",
        BLUE,
    )
    return canvas.finish(
        "Predicted, sum of layers (ms)",
        "Measured, whole model (ms)",
        label="Scatter of predicted against measured latency in milliseconds",
        xaxis={"range": [low, high]},
        yaxis={"range": [low, high]},
    )


def _add_diagonal(
    canvas: Canvas, low: float, high: float, slope: float, label: str, color: str, dash: str
) -> None:
    trace = go.Scatter(
        x=[low, high],
        y=[slope * low, slope * high],
        mode="lines",
        line={"color": color, "width": 1.5, "dash": dash},
        hoverinfo="skip",
    )
    canvas.add(trace, label, "line" if dash == "solid" else "dash", color)


def hypervolume(document: Document) -> Figure | None:
    """Draws the growth of the dominated area over trials; None without points."""
    points = document.hypervolume
    if not points:
        return None
    canvas = Canvas()
    canvas.add(
        go.Scatter(
            x=[p.trial for p in points],
            y=[p.value for p in points],
            mode="lines",
            line={"color": BLUE, "width": 2, "shape": "hv"},
            fill="tozeroy" if min(p.value for p in points) == 0 else None,
            fillcolor=SHADE,
            hovertext=[
                hover(f"after trial {p.trial}", f"{words.plain(p.value, 4)} ms {words.TIMES} accuracy")
                for p in points
            ],
            hoverinfo="text",
        ),
        "hypervolume of the trials so far",
        "line",
        BLUE,
    )
    return canvas.finish(
        "Trials",
        f"Hypervolume (ms {words.TIMES} accuracy)",
        label="Line of the hypervolume of the front over the number of trials",
    )
