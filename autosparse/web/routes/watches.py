"""Watches of deployed artifacts, and alerts of all kinds."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from autosparse.daemon.service import Service
from autosparse.daemon.watches import Watch
from autosparse.errors import got
from autosparse.web.asking import MOST_ID
from autosparse.web.paging import Limit, page
from autosparse.web.problems import NotThere, refusals
from autosparse.web.routes.asked import Asked, ScheduleName
from autosparse.web.watching import AlertPage, AlertShape, WatchAsked, WatchList, WatchShape

router = APIRouter(tags=["watches"])


@router.get(
    "/watches",
    operation_id="list_watches",
    summary="List all watches and how they stand, the oldest first",
    responses=refusals(422),
)
def list_watches(service: Asked) -> WatchList:
    """Gives all watches."""
    return WatchList(items=[WatchShape.of(watch) for watch in service.watches()])


@router.post(
    "/watches",
    operation_id="add_watch",
    summary="Watch a deployed artifact",
    description="A watch is a schedule that checks whether the artifact meets its budget.",
    status_code=201,
    responses={
        201: {
            "description": "The watch is stored.",
            "headers": {
                "Location": {"schema": {"type": "string"}, "description": "Path of the watch."}
            },
        },
        **refusals(409, 422, 424, body=True),
    },
)
def add_watch(service: Asked, asked: WatchAsked, response: Response) -> WatchShape:
    """Stores a watch."""
    made = service.add_watch(
        asked.artifact,
        asked.latency_budget,
        asked.options(),
        name=asked.name,
        cron=asked.cron,
        timezone=asked.timezone,
        jitter_s=asked.jitter_s(),
        threads=asked.threads,
        judged=asked.judged,
    )
    response.headers["Location"] = f"/api/v1/watches/{made.schedule.id}"
    return WatchShape.of(made)


@router.get(
    "/watches/{schedule}",
    operation_id="get_watch",
    summary="Look at a watch",
    responses=refusals(404, 422),
)
def get_watch(service: Asked, schedule: ScheduleName) -> WatchShape:
    """Gives a watch and how it stands."""
    return WatchShape.of(_watch(service, schedule))


@router.delete(
    "/watches/{schedule}",
    operation_id="remove_watch",
    summary="Remove a watch",
    description="Its checks and alerts stay.",
    status_code=204,
    response_class=Response,
    responses=refusals(404, 422),
)
def remove_watch(service: Asked, schedule: ScheduleName) -> None:
    """Removes a watch."""
    service.schedules.remove(_watch(service, schedule).schedule.id)


def _watch(service: Service, named: str) -> Watch:
    """Gives a watch by the number or name of its schedule.

    Raises:
        NotThere: the schedule is another one's.
        NoSuchSchedule: there is none.
    """
    number = service.schedules.get(named).id
    for watch in service.watches():
        if watch.schedule.id == number:
            return watch
    raise NotThere(f"a watch must be one of `autosparse watch list`, but {got(named)} is a schedule")


@router.get(
    "/alerts",
    operation_id="list_alerts",
    summary="List alerts, newest first",
    description="Follow `next` until it is null. Pages hold their place while alerts are added.",
    responses=refusals(422),
)
def list_alerts(
    service: Asked,
    response: Response,
    limit: Limit = 50,
    before: Annotated[
        int | None, Query(ge=1, le=MOST_ID, description="Only those with lower numbers.")
    ] = None,
) -> AlertPage:
    """Gives a page of alerts."""
    found = service.alerts(before_id=before, limit=limit + 1)
    items, following = page(found, limit, "/api/v1/alerts", [], "id", response)
    return AlertPage(items=[AlertShape.of(alert) for alert in items], next=following)
