"""report.html: one file that opens offline, built from the run folder alone."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import plotly.offline
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from autosparse import factories
from autosparse.report import break_even, facts, figures, layers, table, words
from autosparse.report.canvas import DARK, Figure
from autosparse.report.document import Config, Document
from autosparse.report.pareto_figure import pareto, search_view
from autosparse.report.source import Source, read
from autosparse.report.verdict import (
    accuracy_change,
    best,
    counterpart_name,
    dense_counterpart,
    dense_reference,
    fastest_upper_ms,
    sentence,
    smallest_feasible_ms,
    speedup,
    status,
)
from autosparse.storage.files import write_text

FILE = "report.html"
_TEMPLATES = Path(__file__).parent / "templates"


def build(run: Path) -> Path:
    """Writes report.html and pareto.csv of a run.

    Args:
        run: the run's folder; `pareto.json` must be there, every other file may be absent, and the
            page then says what is missing.

    Returns:
        The path of report.html.

    Raises:
        RunError: `pareto.json` is missing, damaged or of another schema, or the folder is unwritable.
    """
    source = read(run)
    table.write(source.document, run / table.FILE)
    write_text(run / FILE, render(source))
    return run / FILE


def render(source: Source) -> str:
    """Gives the page as text; the same source gives the same text."""
    return _environment().get_template("report.html.j2").render(_context(source))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["w"] = words
    environment.globals["include_raw"] = lambda name: Markup((_TEMPLATES / name).read_text("utf-8"))
    environment.globals["plotly_js"] = lambda: Markup(_script(plotly.offline.get_plotlyjs()))
    environment.filters["relative"] = _relative
    environment.filters["glue"] = words.glue
    environment.filters["shown"] = factories.shown
    return environment


def _script(code: str) -> str:
    """Makes JavaScript safe to stand between script tags."""
    return re.sub(r"</(?=script)", r"<\\/", code, flags=re.IGNORECASE)


def _embedded(values: Any) -> Markup:
    """Writes JSON so that no text in it can end the script element that holds it."""
    text = json.dumps(values, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


def _relative(path: str) -> str:
    """Gives a link below the run folder; anything that would leave it becomes a dead anchor."""
    leaves = path.startswith("/") or ".." in path.split("/") or "\\" in path
    return "#" if leaves else "./" + quote(path)


def _context(source: Source) -> dict[str, Any]:
    document = source.document
    drawn = {
        "pareto": pareto(source),
        "trials": search_view(source),
        "calibration": figures.calibration(document),
        "hypervolume": figures.hypervolume(document),
    }
    ordered = sorted(document.configs, key=_latency)
    chosen = best(document)
    return {
        "source": source,
        "doc": document,
        "status": status(document),
        "sentence": document.verdict.text or sentence(document),
        "tiles": _tiles(document, chosen),
        "key_facts": facts.key_facts(source),
        "figures": drawn,
        "figures_json": _embedded(_specs(drawn)),
        "chosen": chosen,
        "rows": [_row(document, config) for config in ordered],
        "reference_note": facts.reference_note(document),
        "dense_rows": facts.dense_rows(document),
        "dense_accuracies": facts.dense_accuracies(document),
        "matrix": _matrix(source, ordered),
        "break_even": break_even.view(source),
        "blocks": [_block(source, config) for config in ordered],
        "hardware": facts.hardware(source.hardware) if source.hardware else [],
        "policy": facts.policy(document),
        "provenance": facts.provenance(document),
    }


def _latency(config: Config) -> float:
    return config.measured_latency_ms or config.predicted_latency_ms or float("inf")


def _specs(drawn: Mapping[str, Figure | None]) -> dict[str, Any]:
    specs = {name: figure.spec for name, figure in drawn.items() if figure is not None}
    return {"specs": specs, "dark": DARK}


def _tiles(document: Document, chosen: Config | None) -> list[tuple[str, str, str]]:
    """Gives the numbers of the headline: label, value, and where the value comes from."""
    if chosen is None:
        return _tiles_without(document)
    reference = dense_reference(document)
    measured = chosen.measured_latency_ms is not None
    change = accuracy_change(document, chosen)
    dense = dense_counterpart(document, chosen)
    against = (
        "no dense model trained as long, of the same split"
        if dense is None
        else f"{counterpart_name(chosen)}: {words.percent(dense.value)}, {dense.split} split"
    )
    return [
        (
            "Latency",
            words.ms(chosen.measured_latency_ms if measured else chosen.predicted_latency_ms),
            f"measured, whole model in {chosen.dtype}, 95 % interval "
            f"{words.span_ms(chosen.latency_ci_ms)}"
            if measured
            else f"predicted in {chosen.dtype}, not measured",
        ),
        (
            "Speed-up",
            words.times(speedup(document, chosen)),
            f"over dense {reference.engine}, {words.ms(reference.latency.median_ms)}"
            if reference
            else "no dense run measured",
        ),
        (
            "Top-1 accuracy",
            words.percent(chosen.accuracy),
            f"{words.kind(chosen.accuracy_kind)}, {chosen.accuracy_split} split, computed in "
            f"{chosen.accuracy_dtype}",
        ),
        ("Change", words.points(change), against),
        ("Zero weights", words.percent(chosen.sparsity), f"configuration {chosen.id}"),
    ]


def _tiles_without(document: Document) -> list[tuple[str, str, str]]:
    tiles = []
    bound = smallest_feasible_ms(document)
    if document.budget_ms is not None:
        tiles.append(("Budget asked for", words.budget(document.budget_ms), "latency of one run"))
    if bound is not None:
        measured = bound == fastest_upper_ms(document)
        origin = "fastest configuration, measured" if measured else "fastest assignment, predicted"
        tiles.append(("Smallest feasible budget", words.least_ms(bound), origin))
    reference = dense_reference(document)
    if reference is not None:
        median = words.ms(reference.latency.median_ms)
        tiles.append(("Dense", median, f"measured, {reference.engine}"))
    return tiles


def _row(document: Document, config: Config) -> dict[str, Any]:
    return {
        "config": config,
        "speedup": speedup(document, config),
        "change": accuracy_change(document, config),
        "against": counterpart_name(config),
        "is_open": document.is_open(config),
        "elsewhere": facts.elsewhere(document, config.latency_states),
        "chosen": config == best(document),
        "on_front": config.id in table.measured_front(document),
    }


def _block(source: Source, config: Config) -> dict[str, Any]:
    views = layers.views(source, config)
    return {"config": config, "views": views, "totals": layers.totals(views)}


def _matrix(source: Source, configs: Sequence[Config]) -> list[tuple[str, list[Any]]]:
    """Gives one line per layer: its name, and its view in every configuration (None if unnamed)."""
    views = [{view.layer.name: view for view in layers.views(source, config)} for config in configs]
    names = dict.fromkeys(name for column in views for name in column)
    return [(name, [column.get(name) for column in views]) for name in names]
