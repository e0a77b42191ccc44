"""A comparison as a figure: one bar per contestant, one panel per thread count."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib.util import find_spec
from pathlib import Path

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from autosparse.compare.records import Comparison, Result, Session
from autosparse.report import words
from autosparse.report.canvas import BLUE, FONT, GREY, GRID, INK, MUTED, ORANGE, SURFACE, TEAL
from autosparse.storage.files import write_bytes, write_text

NAME = "bench"
_PANEL_WIDTH, _LEAST_WIDTH, _BAR_HEIGHT, _FRAME_HEIGHT = 720, 1000, 34, 210
_ROOM = 1.35  # of the longest bar, so that its label fits
_SCALE = 2  # pixels per unit in the PNG
# Whose engine and which type: colour and legend.
_KINDS = {
    (False, "f32"): (GREY, "other engines, f32"),
    (False, "bf16"): (ORANGE, "other engines, bf16"),
    (True, "f32"): (BLUE, "autosparse, f32"),
    (True, "bf16"): (TEAL, "autosparse, bf16"),
}


def figure(comparison: Comparison) -> go.Figure:
    """Draws medians with their 95 % intervals, slowest on top, and ratios to the fastest f32 peer."""
    sessions = [session for session in comparison.sessions if session.results]
    drawn = make_subplots(
        rows=1,
        cols=max(1, len(sessions)),
        subplot_titles=[words.count(session.threads, "thread") for session in sessions],
        horizontal_spacing=0.2 / max(1, len(sessions) - 1),
    )
    shown: set[str] = set()
    for column, session in enumerate(sessions, 1):
        for kind, (color, label) in _KINDS.items():
            results = [r for r in session.results if _kind(r) == kind]
            if results:
                bars = _bars(results, color, label, show_legend=label not in shown)
                drawn.add_trace(bars, row=1, col=column)
                shown.add(label)
        drawn.add_trace(_labels(session.results), row=1, col=column)
        _arrange(drawn, session, column)
    _dress(drawn, comparison, sessions)
    return drawn


def _kind(result: Result) -> tuple[bool, str]:
    return result.contestant.is_ours, result.contestant.dtype


def _bars(results: Sequence[Result], color: str, label: str, *, show_legend: bool) -> go.Bar:
    latencies = [result.latency for result in results]
    return go.Bar(
        y=[result.contestant.name for result in results],
        x=[latency.median_ms for latency in latencies],
        orientation="h",
        name=label,
        legendgroup=label,
        showlegend=show_legend,
        marker={"color": color},
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [latency.ci_high_ms - latency.median_ms for latency in latencies],
            "arrayminus": [latency.median_ms - latency.ci_low_ms for latency in latencies],
            "color": MUTED,
            "thickness": 1,
        },
    )


def _labels(results: Sequence[Result]) -> go.Scatter:
    """Writes the figures behind the end of each interval, where no error bar crosses them."""
    return go.Scatter(
        y=[result.contestant.name for result in results],
        x=[result.latency.ci_high_ms for result in results],
        mode="text",
        text=[f"  {_text(result)}" for result in results],
        textposition="middle right",
        cliponaxis=False,
        showlegend=False,
        hoverinfo="skip",
    )


def _text(result: Result) -> str:
    ratio = result.ratios.get("f32")
    median = words.ms(result.latency.median_ms)
    return median if ratio is None else f"{median}  {words.times(ratio.median)}"


def _arrange(drawn: go.Figure, session: Session, column: int) -> None:
    order = sorted(session.results, key=lambda result: result.latency.median_ms)
    drawn.update_yaxes(
        categoryorder="array",
        categoryarray=[result.contestant.name for result in order],
        row=1,
        col=column,
    )
    longest = max(result.latency.ci_high_ms for result in session.results)
    drawn.update_xaxes(range=[0, _ROOM * longest], row=1, col=column)


def _dress(drawn: go.Figure, comparison: Comparison, sessions: Sequence[Session]) -> None:
    shape = words.TIMES.join(map(str, comparison.input_shape))
    over = {r.ratios["f32"].over for s in sessions for r in s.results if "f32" in r.ratios}
    times = f"; {words.TIMES}: times as fast as {' or '.join(sorted(over))}" if over else ""
    compact = "; ours with compact weights" if comparison.asked.compact_weights else ""
    cpu = comparison.hardware.cpu
    bars = max((len(session.results) for session in sessions), default=1)
    drawn.update_layout(
        title={
            "text": f"{escape(comparison.asked.subject.model)}, {shape}"
            f"<br><sup>{cpu.model}, {cpu.architecture}; median and 95 % interval, in turn"
            f"{times}{compact}</sup>"
        },
        template="none",
        font={"family": FONT, "size": 13, "color": INK},
        paper_bgcolor=SURFACE,
        plot_bgcolor=SURFACE,
        width=max(_LEAST_WIDTH, _PANEL_WIDTH * len(sessions)),
        height=_FRAME_HEIGHT + _BAR_HEIGHT * bars,
        margin={"l": 20, "r": 20, "t": 110, "b": 90},
        legend={"orientation": "h", "x": 0.5, "xanchor": "center", "yref": "container", "y": 0.02},
        barmode="overlay",
        bargap=0.3,
    )
    drawn.update_xaxes(title="ms", gridcolor=GRID, zeroline=False)
    drawn.update_yaxes(automargin=True, ticks="", ticklabelstandoff=6)


def write(comparison: Comparison, folder: Path) -> tuple[list[Path], str]:
    """Writes the figure as a page, and as SVG and PNG where that is possible here.

    Returns:
        The files, and why some are missing; empty if none is.

    Raises:
        RunError: the folder cannot be written.
    """
    drawn = figure(comparison)
    page = folder / f"{NAME}.html"
    write_text(page, drawn.to_html(include_plotlyjs=True, full_html=True))
    files = [page]
    for suffix in ("svg", "png"):
        try:
            content = drawn.to_image(format=suffix, scale=_SCALE if suffix == "png" else 1)
        except Exception as error:  # plotly's exporter raises what its browser does
            return files, _why_no_image(error)
        write_bytes(folder / f"{NAME}.{suffix}", content)
        files.append(folder / f"{NAME}.{suffix}")
    return files, ""


def _why_no_image(error: Exception) -> str:
    if find_spec("kaleido") is None:
        return (
            "no PNG and SVG: plotly needs kaleido for them, which is absent; run: pip install kaleido"
        )
    first = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"no PNG and SVG: kaleido needs a Chrome or Chromium that starts, but got: {first[:160]}"
