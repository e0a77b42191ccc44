"""Watches: deployed artifacts that are checked again and again, and alerts of all kinds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from autosparse import values
from autosparse.daemon import watches
from autosparse.daemon.service import Service
from autosparse.errors import AutosparseError, UsageError
from autosparse.jobs.records import JobOptions
from autosparse.web.asking import MOST_ID
from autosparse.web.pages import fields
from autosparse.web.pages.route import Form, PageRoute, to
from autosparse.web.pages.schedules import rows_of
from autosparse.web.pages.view import page
from autosparse.web.problems import status_of
from autosparse.web.routes.asked import Asked

router = APIRouter(route_class=PageRoute)

_ON_A_PAGE = 25
_FIELDS = fields.every(fields.WATCH)


@router.get("/watches")
def show_watches(
    request: Request,
    service: Asked,
    before: Annotated[int | None, Query(ge=1, le=MOST_ID)] = None,
) -> Response:
    """Shows all watches and the latest alerts."""
    return _watches(request, service, before, {}, {})


@router.post("/watches")
def add(request: Request, service: Asked, form: Form) -> Response:
    """Adds a watch."""
    try:
        for needed in ("artifact", "latency_budget"):
            if not form.get(needed):
                raise UsageError(f"{needed} must be given, but it is empty")
        threads = form.get("threads")
        service.add_watch(
            form["artifact"],
            form["latency_budget"],
            JobOptions(),
            name=form.get("name") or None,
            cron=form.get("cron") or watches.CRON,
            timezone=form.get("timezone") or "UTC",
            threads=values.count(1)(threads, "threads") if threads else None,
        )
    except AutosparseError as error:
        errors = fields.beside(error, _FIELDS)
        return _watches(request, service, None, form, errors, int(status_of(error)))
    return to("/watches")


def _watches(
    request: Request,
    service: Service,
    before: int | None,
    form: Mapping[str, str],
    errors: Mapping[str, str],
    status: int = 200,
) -> Response:
    every = service.watches()
    alerts = service.alerts(before_id=before, limit=_ON_A_PAGE + 1)
    is_cut = len(alerts) > _ON_A_PAGE
    return page(
        request,
        "watches.html.j2",
        status,
        watches=list(zip(every, rows_of(service, [each.schedule for each in every]), strict=True)),
        alerts=alerts[:_ON_A_PAGE],
        older=f"/watches?before={alerts[_ON_A_PAGE - 1].id}#alerts" if is_cut else None,
        before=before,
        what=fields.WATCH,
        known=_FIELDS,
        form=form,
        errors=errors,
    )
