"""Runs: all of them with their verdicts, and one with its report."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from autosparse.daemon.service import Service
from autosparse.errors import RunError
from autosparse.run_folders.listing import list_runs, summarize
from autosparse.run_folders.state import FINISHED, RunState, RunSummary, read_state
from autosparse.web.pages.found import Found, found_in
from autosparse.web.pages.route import PageRoute
from autosparse.web.pages.view import page
from autosparse.web.routes.asked import Asked, RunName

router = APIRouter(route_class=PageRoute)

_ON_A_PAGE = 30
_OFFERED = 50
REPORT = "report.html"


@router.get("/runs")
def show_runs(
    request: Request,
    service: Asked,
    before: Annotated[str | None, Query(min_length=1, max_length=255)] = None,
) -> Response:
    """Shows a list of runs."""
    found = list_runs(service.place.results, before=before, limit=_ON_A_PAGE + 1)
    shown = found[:_ON_A_PAGE]
    is_cut = len(found) > _ON_A_PAGE
    return page(
        request,
        "runs.html.j2",
        runs=shown,
        before=before,
        finished=[run for run in shown if run.state in FINISHED],
        older=f"/runs?{urlencode({'before': shown[-1].name})}" if is_cut else None,
    )


@router.get("/runs/{run}")
def show_run(request: Request, service: Asked, run: RunName) -> Response:
    """Shows a run."""
    folder = service.run(run)
    summary, state = summarize(folder), _state(service, folder.name)
    return page(
        request,
        "run.html.j2",
        run=summary,
        recorded=state,
        has_report=(folder / REPORT).is_file(),
        found=_found(service, summary),
        others=_others(service, summary),
    )


def _state(service: Service, name: str) -> RunState | None:
    """Gives what a run says of itself; None if that is damaged."""
    try:
        return read_state(service.place.results / name)
    except RunError:
        return None


def _found(service: Service, run: RunSummary) -> Found | None:
    """Gives what the study of a run that is not finished has found so far."""
    if run.state in FINISHED:
        return None
    return found_in(service.place.results / run.name, run.budget_ms)


def _others(service: Service, run: RunSummary) -> list[RunSummary]:
    """Gives runs that a run can be compared with, those of its model first."""
    runs = list_runs(service.place.results, limit=_OFFERED)
    others = [each for each in runs if each.name != run.name and each.state in FINISHED]
    return sorted(others, key=lambda each: each.model != run.model)
