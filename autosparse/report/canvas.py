"""What all figures share: palette, axes, hover texts, and a legend that the page draws.

Figures are built in the light palette; `DARK` maps every colour they use to its dark counterpart, which
the page's script applies when the reader's system is dark. Legends are drawn by the page, outside the
plot, where they wrap on narrow screens. Text that comes from a run is escaped in `hover`, because
plotly reads tags in labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import plotly.graph_objects as go

INK, MUTED, GRID = "#1c2430", "#5b6675", "#e4e8ee"
BLUE, ORANGE, TEAL, PURPLE, GREEN, GREY = (
    "#2457d6",
    "#d4500c",
    "#0b8577",
    "#7b4fd0",
    "#1a8a4a",
    "#8b95a3",
)
FAINT, SHADE, CLEAR, SURFACE = (
    "rgba(110,122,140,0.38)",
    "rgba(26,138,74,0.07)",
    "rgba(0,0,0,0)",
    "#ffffff",
)
DARK = {
    INK: "#e8ecf2",
    MUTED: "#9aa6b6",
    GRID: "#2a323e",
    BLUE: "#7ea6ff",
    ORANGE: "#ff9d5c",
    TEAL: "#3ccfbd",
    PURPLE: "#b79aff",
    GREEN: "#52d689",
    GREY: "#7f8b9b",
    FAINT: "rgba(160,174,194,0.36)",
    SHADE: "rgba(82,214,137,0.08)",
    SURFACE: "#171c24",
}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


@dataclass(frozen=True, slots=True, kw_only=True)
class LegendEntry:
    """One line of a figure's legend.

    Attributes:
        label: text.
        traces: indices of the traces it shows and hides.
        symbol: ``circle``, ``diamond``, ``square`` (each also ``-open``), ``ring``, ``line``, ``dash``.
        color: colour of the light palette.
    """

    label: str
    traces: tuple[int, ...]
    symbol: str
    color: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A figure ready for the page.

    Attributes:
        spec: plotly's ``data`` and ``layout`` as plain values.
        legend: what the symbols mean.
        caption: remarks, such as how many points lie outside the view.
        label: description for readers who do not see it.
    """

    spec: dict[str, Any]
    legend: tuple[LegendEntry, ...]
    caption: str
    label: str


class Canvas:
    """Collects traces together with their legend."""

    def __init__(self) -> None:
        self.figure = go.Figure()
        self.legend: list[LegendEntry] = []

    def add(self, trace: Any, label: str, symbol: str, color: str) -> None:
        """Adds a trace and its line in the legend."""
        self.legend.append(
            LegendEntry(label=label, traces=(len(self.figure.data),), symbol=symbol, color=color)
        )
        self.figure.add_trace(trace)

    def finish(self, x: str, y: str, *, caption: str = "", label: str, **layout: Any) -> Figure:
        """Gives the figure, with axis titles `x` and `y` and the style all figures share."""
        self.figure.update_layout(
            template="none",
            font={"family": FONT, "size": 13, "color": INK},
            paper_bgcolor=CLEAR,
            plot_bgcolor=CLEAR,
            margin={"l": 56, "r": 14, "t": 26, "b": 50},
            showlegend=False,
            modebar={"bgcolor": CLEAR, "color": GREY, "activecolor": BLUE},
            hovermode="closest",
            hoverlabel={
                "bgcolor": SURFACE,
                "bordercolor": GREY,
                "align": "left",
                "font": {"family": FONT, "size": 12.5, "color": INK},
            },
            **layout,
        )
        self.figure.update_xaxes(title={"text": x, "standoff": 10}, **_AXIS)
        self.figure.update_yaxes(title={"text": y, "standoff": 8}, **_AXIS)
        spec = self.figure.to_plotly_json()
        spec["layout"].pop("template", None)
        return Figure(spec=spec, legend=tuple(self.legend), caption=caption, label=label)


_AXIS = {
    "gridcolor": GRID,
    "linecolor": GREY,
    "tickcolor": GREY,
    "tickfont": {"color": MUTED, "size": 12},
    "title_font": {"color": MUTED, "size": 12.5},
    "zeroline": False,
    "ticks": "outside",
    "ticklen": 4,
    "showline": True,
    "automargin": True,
}


def hover(title: str, *lines: str) -> str:
    """Gives the text of a hover box: a bold title, then lines; empty ones are left out."""
    return "<br>".join([f"<b>{escape(title)}</b>", *(escape(line) for line in lines if line)])


def bars(
    values: Sequence[tuple[float | None, tuple[float, float] | None]], color: str
) -> dict[str, Any]:
    """Gives horizontal error bars from (value, interval) pairs; none if no interval is known."""
    if all(interval is None for _, interval in values):
        return {"visible": False}
    spans = [
        (0.0, 0.0)
        if ci is None or value is None
        else (max(0.0, value - ci[0]), max(0.0, ci[1] - value))
        for value, ci in values
    ]
    return {
        "type": "data",
        "symmetric": False,
        "array": [above for _, above in spans],
        "arrayminus": [below for below, _ in spans],
        "color": color,
        "thickness": 1.5,
        "width": 4,
    }
