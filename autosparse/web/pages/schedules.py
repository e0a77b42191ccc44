"""Schedules: when they are due next, what became of their last times, and a form for a new one."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Query, Request, Response

from autosparse.daemon.service import Service
from autosparse.daemon.watches import VERB as CHECK
from autosparse.errors import AutosparseError
from autosparse.schedules import times
from autosparse.schedules.schedule import Schedule
from autosparse.schedules.store import NoSuchSchedule, Occurrence
from autosparse.web.asking import MOST_ID, ScheduleAsked
from autosparse.web.pages import fields
from autosparse.web.pages.route import Form, PageRoute, own_path, to
from autosparse.web.pages.view import page
from autosparse.web.problems import status_of
from autosparse.web.routes.asked import Asked

router = APIRouter(route_class=PageRoute)

_NEXT, _LAST = 3, 8
_PREVIEWED = 5
_WHEN = fields.every(fields.WHEN)
_FIELDS = (*fields.every(fields.MAIN, fields.MORE, fields.JOB), *_WHEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """A time at which a schedule is due: for everybody, and on the clock that it is about."""

    at_s: float
    there: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A schedule as the page shows it.

    Attributes:
        schedule: the schedule.
        said: when it is due, in words.
        next: its next times; none while it is paused.
        last: what became of its last times, the latest first.
    """

    schedule: Schedule
    said: str
    next: Sequence[Due]
    last: Sequence[Occurrence]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a cron expression means before it is stored.

    Attributes:
        said: in words; empty where it cannot be meant.
        due: its next times.
        errors: message by field.
    """

    said: str
    due: Sequence[Due]
    errors: Mapping[str, str]


@router.get("/schedules")
def show_schedules(
    request: Request,
    service: Asked,
    cron: Annotated[str, Query(max_length=200)] = "",
    timezone: Annotated[str, Query(max_length=64)] = "",
) -> Response:
    """Shows all schedules; with a cron expression also what it means."""
    form = {name: text for name, text in request.query_params.items() if name in _FIELDS and text}
    return _schedules(request, service, form, _preview(cron, timezone), {})


@router.post("/schedules")
def add(request: Request, service: Asked, form: Form) -> Response:
    """Adds a schedule of searches."""
    try:
        asked = fields.read(ScheduleAsked, form, "search", _WHEN)
        service.add_schedule(
            asked.verb,
            asked.plain_settings(),
            asked.options(),
            name=asked.name,
            cron=asked.cron,
            timezone=asked.timezone,
            catch_up=asked.catch_up,
            jitter_s=asked.jitter_s(),
        )
    except fields.Refused as refused:
        errors, status = refused.errors, 422
    except AutosparseError as error:
        errors, status = fields.beside(error, _FIELDS), int(status_of(error))
    else:
        return to("/schedules")
    preview = _preview(form.get("cron", ""), form.get("timezone", ""))
    return _schedules(request, service, form, preview, errors, status)


@router.post("/schedules/{schedule}/{change}")
def change(service: Asked, schedule: int, change: str, form: Form) -> Response:
    """Pauses, resumes or removes a schedule; its number names it, as a name may be given anew."""
    changes = {
        "pause": service.schedules.pause,
        "resume": service.schedules.resume,
        "remove": service.schedules.remove,
    }
    if change not in changes or not 0 < schedule <= MOST_ID:
        raise NoSuchSchedule("what is done to a schedule must be one of pause, resume and remove")
    changes[change](schedule)
    return to(own_path(form.get("back", ""), "/schedules"))


def rows_of(service: Service, schedules: Sequence[Schedule]) -> list[Row]:
    """Gives schedules with their next times and what became of their last ones."""
    now_s = time.time()
    return [
        Row(
            schedule=each,
            said=_said(each.cron),
            next=_due(each.cron, each.timezone, now_s, _NEXT) if each.is_enabled else (),
            last=service.schedules.occurrences(each.id, _LAST),
        )
        for each in schedules
    ]


def _schedules(
    request: Request,
    service: Service,
    form: Mapping[str, str],
    preview: Preview,
    errors: Mapping[str, str],
    status: int = 200,
) -> Response:
    every = service.schedules.all()
    return page(
        request,
        "schedules.html.j2",
        status,
        rows=rows_of(service, [each for each in every if each.request.verb != CHECK]),
        watches=sum(each.request.verb == CHECK for each in every),
        preview=preview,
        when=fields.WHEN,
        **fields.asked(form, {**preview.errors, **errors}, fields.WHEN),
    )


def _preview(cron: str, timezone: str) -> Preview:
    if not cron:
        return Preview(said="", due=(), errors={})
    try:
        checked = times.check_cron(cron)
        zone = times.check_timezone(timezone or "UTC")
    except AutosparseError as error:
        return Preview(said="", due=(), errors=fields.beside(error, _WHEN))
    return Preview(said=_said(checked), due=_due(checked, zone, time.time(), _PREVIEWED), errors={})


def _due(cron: str, timezone: str, now_s: float, count: int) -> list[Due]:
    zone = ZoneInfo(timezone)
    return [
        Due(at_s=at_s, there=f"{datetime.fromtimestamp(at_s, zone):%a %Y-%m-%d %H:%M %Z}")
        for at_s in times.next_times(cron, timezone, now_s, count)
    ]


def _said(cron: str) -> str:
    return times.describe(cron)
