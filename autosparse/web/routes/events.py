"""Streams of what happens, as server-sent events."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request
from starlette.responses import StreamingResponse

from autosparse.web.problems import refusals
from autosparse.web.routes.asked import Asked, JobId
from autosparse.web.streams import EventStream, Streams

router = APIRouter(tags=["events"])

_MOST = 2**53
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The events.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    }
}


async def _streams(request: Request) -> Streams:
    streams = request.app.state.streams
    assert isinstance(streams, Streams)
    return streams


def _existing(service: Asked, job_id: JobId) -> int:
    return service.queue.get(job_id).id


StreamsAsked = Annotated[Streams, Depends(_streams)]
Existing = Annotated[int, Depends(_existing)]
LastEventId = Annotated[
    int | None,
    Header(
        alias="Last-Event-ID",
        ge=0,
        le=_MOST,
        description="The `id` of the last event that was heard: the stream goes on after it.",
    ),
]


@router.get(
    "/jobs/{job_id}/events",
    operation_id="follow_job",
    summary="Follow a job until it has ended",
    description="Events: `state` (the job, at first and whenever something changes), `progress`, `log` "
    "(a line of text), and at last `end` (the job). `id` is an offset in the log in bytes. A comment "
    "comes every 15 s when nothing else does.",
    response_class=StreamingResponse,
    responses={**_EVENTS, **refusals(404, 422)},
)
async def follow_job(
    streams: StreamsAsked,
    job_id: Existing,
    last_event_id: LastEventId = None,
    log_offset: Annotated[
        int | None,
        Query(ge=0, le=_MOST, description="Where in the log to begin; else shortly before its end."),
    ] = None,
) -> EventStream:
    """Gives what becomes of a job."""
    begin = log_offset if last_event_id is None else last_event_id
    return EventStream(streams.of_job(job_id, begin))


@router.get(
    "/events",
    operation_id="follow_all",
    summary="Follow the transitions of all jobs",
    description="Events: `transition`. Without `Last-Event-ID` it begins with the next one. One that "
    "was heard may come again after a lost connection; none is left out.",
    response_class=StreamingResponse,
    responses={**_EVENTS, **refusals(422)},
)
async def follow_all(streams: StreamsAsked, last_event_id: LastEventId = None) -> EventStream:
    """Gives all transitions."""
    return EventStream(streams.of_all(last_event_id))
