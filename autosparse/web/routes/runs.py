"""Runs: listed, looked at, their reports, removed."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from autosparse.errors import RunError, UsageError, got
from autosparse.report.document import load
from autosparse.report.fronts import compare_fronts
from autosparse.run_folders.listing import list_runs, remove_run, show
from autosparse.storage.files import opened
from autosparse.web.paging import Limit, page
from autosparse.web.problems import NotThere, refusals
from autosparse.web.routes.asked import Asked, RunName
from autosparse.web.shapes import RunDetail, RunPage, RunShape, clean
from autosparse.web.watching import MoveShape

router = APIRouter(prefix="/runs", tags=["runs"])

_REPORT = "report.html"
# A report draws with scripts of its own. It holds names that others chose, so that it has an origin of
# its own too: nothing in it can speak to the daemon in the name of who looks at it.
_REPORT_POLICY = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'self'"
)


@router.get(
    "",
    operation_id="list_runs",
    summary="List runs, newest first",
    description="Follow `next` until it is null. Pages hold their place while runs come and go.",
    responses=refusals(422),
)
def list_all(
    service: Asked,
    response: Response,
    limit: Limit = 50,
    before: Annotated[
        str | None,
        Query(min_length=1, max_length=255, description="Only those older than this run."),
    ] = None,
) -> RunPage:
    """Gives a page of runs."""
    found = list_runs(service.place.results, before=before, limit=limit + 1)
    items, following = page(found, limit, "/api/v1/runs", [], "name", response)
    return RunPage(items=[RunShape.of(each) for each in items], next=following)


@router.get("/{run}", operation_id="get_run", summary="Look at a run", responses=refusals(404, 422))
def get_run(service: Asked, run: RunName) -> RunDetail:
    """Gives all that is known of a run."""
    return RunDetail(**clean(show(service.run(run))))


@router.get(
    "/{run}/report",
    operation_id="get_report",
    summary="Get a run's report, a page for browsers",
    response_class=Response,
    responses={
        200: {"description": "The page.", "content": {"text/html": {"schema": {"type": "string"}}}},
        **refusals(404, 422),
    },
)
def get_report(service: Asked, run: RunName) -> Response:
    """Gives a run's report."""
    folder = service.run(run)
    try:
        with opened(folder / _REPORT) as stream:
            text = stream.read()
    except OSError:
        raise NotThere(
            f"a run must have come to its report, but {folder.name} has none yet; wait for its job, or "
            "run its search again to finish it"
        ) from None
    headers = {"Content-Security-Policy": _REPORT_POLICY}
    return Response(text, media_type="text/html", headers=headers)


@router.get(
    "/{older}/compare/{newer}",
    operation_id="compare_runs",
    summary="Compare the fronts of two runs",
    description="Tells what moved beyond its intervals.",
    responses=refusals(404, 422),
)
def compare_runs(service: Asked, older: RunName, newer: RunName) -> MoveShape:
    """Gives what became of a front from one run to another."""
    before, after = service.run(older), service.run(newer)
    names = (before.name, after.name)
    return MoveShape.of(compare_fronts(load(before), load(after), names))


@router.delete(
    "/{run}",
    operation_id="remove_run",
    summary="Remove a run with all its files",
    description="Its whole name must be given. A run at which a process works stays.",
    status_code=204,
    response_class=Response,
    responses=refusals(404, 409, 422),
)
def remove(service: Asked, run: RunName) -> None:
    """Removes a run."""
    folder = service.run(run)
    if folder.name != run:
        raise UsageError(
            f"a run must be named whole to be removed, but got {got(run)}; did you mean {folder.name}?"
        )
    try:
        remove_run(folder)
    except RunError:
        service.run(run)  # somebody else was faster, or it really cannot be removed
        raise
