"""Two runs compared: what of the front moved beyond its intervals, as words, figure and table."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from autosparse.daemon.service import Service
from autosparse.errors import AutosparseError
from autosparse.plans.front import Point, feasible_front
from autosparse.report import words
from autosparse.report.document import Config, Document, load
from autosparse.report.fronts import compare_fronts
from autosparse.report.moves import FrontMove
from autosparse.run_folders.listing import list_runs
from autosparse.run_folders.state import FINISHED
from autosparse.web.pages.chart import Chart, Kind, Mark, draw
from autosparse.web.pages.route import PageRoute
from autosparse.web.pages.view import page
from autosparse.web.problems import status_of
from autosparse.web.routes.asked import Asked

router = APIRouter(route_class=PageRoute)

_OFFERED = 100
Named = Annotated[str, Query(max_length=255)]


@router.get("/compare")
def compare(request: Request, service: Asked, a: Named = "", b: Named = "") -> Response:
    """Shows two runs compared, the first one the older; without them, which there are."""
    move, chart, why, status = None, None, "", 200
    if a and b:
        try:
            move, chart = _compared(service, a, b)
        except AutosparseError as error:
            why, status = str(error), int(status_of(error))
    runs = [run for run in list_runs(service.place.results, limit=_OFFERED) if run.state in FINISHED]
    return page(
        request,
        "compare.html.j2",
        status,
        a=a,
        b=b,
        move=move,
        chart=chart,
        why=why,
        runs=runs,
        notes=_notes(move),
    )


def _notes(move: FrontMove | None) -> list[str]:
    """Gives why some of two runs is not compared, each reason once."""
    if move is None:
        return []
    reasons = (why for config in move.configs for why in config.why_not)
    return list(dict.fromkeys([*move.notes, *reasons]))


def _compared(service: Service, older: str, newer: str) -> tuple[FrontMove, Chart | None]:
    before, after = service.run(older), service.run(newer)
    first, second = load(before), load(after)
    move = compare_fronts(first, second, (before.name, after.name))
    return move, _chart(first, second) if move.is_comparable else None


def _chart(older: Document, newer: Document) -> Chart | None:
    split = newer.main_split
    first, second = _marks(older, "older", "older"), _marks(newer, "newer", "newer")
    return draw(
        [*first, *second],
        fronts=[("older", _front(first)), ("newer", _front(second))],
        budget_ms=newer.budget_ms if newer.budget_ms == older.budget_ms else None,
        title="Both fronts",
        description=(
            f"Latency against accuracy on the {split} split, each with its 95 % interval: "
            f"{words.count(len(first), 'configuration')} of the older run, "
            f"{len(second)} of the newer one"
        ),
        accuracy_of=f"{split} split",
    )


def _marks(document: Document, kind: Kind, whose: str) -> list[Mark]:
    """Gives the configurations of a run that were measured, on the split of its reports."""
    marks = []
    for config in document.configs:
        latency_ms, accuracy = config.measured_latency_ms, config.accuracy_on(document.main_split)
        if latency_ms is not None and accuracy is not None:
            title = f"{whose}, {_said(config, latency_ms, accuracy)}"
            marks.append(
                Mark(
                    latency_ms=latency_ms,
                    accuracy=accuracy,
                    kind=kind,
                    title=title,
                    interval_ms=config.latency_ci_ms,
                )
            )
    return marks


def _said(config: Config, latency_ms: float, accuracy: float) -> str:
    latency = words.ms_ci(latency_ms, config.latency_ci_ms)
    return f"{config.id}: {latency}, {words.percent(accuracy)}, {config.dtype}"


def _front(marks: list[Mark]) -> list[Mark]:
    points = [Point(str(n), mark.latency_ms, mark.accuracy) for n, mark in enumerate(marks)]
    return [marks[int(point.name)] for point in feasible_front(points)]
