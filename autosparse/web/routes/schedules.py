"""Schedules: made, listed, paused, resumed, removed, and what becomes of their due times."""

from __future__ import annotations

import time
from typing import Annotated

from fastapi import APIRouter, Query, Response

from autosparse.schedules import times
from autosparse.web.asking import ScheduleAsked
from autosparse.web.problems import refusals
from autosparse.web.routes.asked import Asked, ScheduleName
from autosparse.web.shapes import (
    OccurrenceList,
    OccurrenceShape,
    ScheduleList,
    ScheduleShape,
    TimeList,
    written,
)

router = APIRouter(prefix="/schedules", tags=["schedules"])


@router.get(
    "",
    operation_id="list_schedules",
    summary="List all schedules, the oldest first",
    responses=refusals(422),
)
def list_schedules(service: Asked) -> ScheduleList:
    """Gives all schedules."""
    return ScheduleList(items=[ScheduleShape.of(each) for each in service.schedules.all()])


@router.post(
    "",
    operation_id="add_schedule",
    summary="Add a schedule",
    description="Everything is checked as for a job, before anything is stored. Its name is its own, "
    "so that a request with a name can be repeated: it then is a conflict.",
    status_code=201,
    responses={
        201: {
            "description": "The schedule is stored, and due from now on.",
            "headers": {
                "Location": {"schema": {"type": "string"}, "description": "Path of the schedule."}
            },
        },
        **refusals(409, 422, 424, body=True),
    },
)
def add_schedule(service: Asked, asked: ScheduleAsked, response: Response) -> ScheduleShape:
    """Stores a schedule."""
    made = service.add_schedule(
        asked.verb,
        asked.plain_settings(),
        asked.options(),
        name=asked.name,
        cron=asked.cron,
        timezone=asked.timezone,
        catch_up=asked.catch_up,
        jitter_s=asked.jitter_s(),
    )
    response.headers["Location"] = f"/api/v1/schedules/{made.id}"
    return ScheduleShape.of(made)


@router.get(
    "/{schedule}",
    operation_id="get_schedule",
    summary="Look at a schedule",
    responses=refusals(404, 422),
)
def get_schedule(service: Asked, schedule: ScheduleName) -> ScheduleShape:
    """Gives a schedule."""
    return ScheduleShape.of(service.schedules.get(schedule))


@router.delete(
    "/{schedule}",
    operation_id="remove_schedule",
    summary="Remove a schedule",
    description="Jobs that it made stay.",
    status_code=204,
    response_class=Response,
    responses=refusals(404, 422),
)
def remove_schedule(service: Asked, schedule: ScheduleName) -> None:
    """Removes a schedule."""
    service.schedules.remove(schedule)


@router.post(
    "/{schedule}/pause",
    operation_id="pause_schedule",
    summary="Pause a schedule",
    description="What falls due while it is paused is not made up for.",
    responses=refusals(404, 422),
)
def pause_schedule(service: Asked, schedule: ScheduleName) -> ScheduleShape:
    """Lets a schedule be due no more, until it is resumed."""
    return ScheduleShape.of(service.schedules.pause(schedule))


@router.post(
    "/{schedule}/resume",
    operation_id="resume_schedule",
    summary="Resume a schedule that was paused",
    responses=refusals(404, 422),
)
def resume_schedule(service: Asked, schedule: ScheduleName) -> ScheduleShape:
    """Lets a schedule be due again, from now on."""
    return ScheduleShape.of(service.schedules.resume(schedule))


@router.get(
    "/{schedule}/next",
    operation_id="list_next_times",
    summary="List when a schedule is due next",
    description="Empty while it is paused.",
    responses=refusals(404, 422),
)
def list_next_times(
    service: Asked,
    schedule: ScheduleName,
    count: Annotated[int, Query(ge=1, le=50, description="How many.")] = 5,
) -> TimeList:
    """Gives the next due times of a schedule."""
    found = service.schedules.get(schedule)
    if not found.is_enabled:
        return TimeList(items=[])
    due_s = times.next_times(found.cron, found.timezone, time.time(), count)
    return TimeList(items=[written(each_s) for each_s in due_s])


@router.get(
    "/{schedule}/occurrences",
    operation_id="list_occurrences",
    summary="List what became of a schedule's due times, the latest first",
    responses=refusals(404, 422),
)
def list_occurrences(
    service: Asked,
    schedule: ScheduleName,
    limit: Annotated[int, Query(ge=1, le=500, description="How many at most.")] = 50,
) -> OccurrenceList:
    """Gives what became of a schedule's due times."""
    found = service.schedules.get(schedule)
    items = service.schedules.occurrences(found.id, limit)
    return OccurrenceList(items=[OccurrenceShape.of(each) for each in items])
