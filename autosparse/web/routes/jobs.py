"""Jobs: submitted, listed, looked at, cancelled and resumed."""

from __future__ import annotations

import json
import os
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response

from autosparse.daemon.place import LOG, result_of
from autosparse.jobs.states import State
from autosparse.storage.files import opened
from autosparse.web.asking import MOST_ID, JobSubmitted
from autosparse.web.paging import Limit, page
from autosparse.web.problems import NotThere, refusals
from autosparse.web.routes.asked import Asked, JobId
from autosparse.web.shapes import JobPage, JobShape, TransitionList, TransitionShape

MOST_LOG_BYTES = 2**20

router = APIRouter(prefix="/jobs", tags=["jobs"])

_LOCATION = {"headers": {"Location": {"schema": {"type": "string"}, "description": "Path of the job."}}}
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="A word of the submitter's own, such as a UUID. Asking again with the same key and "
        "the same body gives the same job; with another body it is a conflict.",
    ),
]


@router.get(
    "",
    operation_id="list_jobs",
    summary="List jobs, newest first",
    description="Follow `next` until it is null. Pages hold their place while jobs are added.",
    responses=refusals(422),
)
def list_jobs(
    service: Asked,
    response: Response,
    state: Annotated[list[State], Query(max_length=len(State), description="Only those in one.")] = [],  # noqa: B006
    schedule: Annotated[
        int | None, Query(ge=1, le=MOST_ID, description="Only those of one schedule.")
    ] = None,
    limit: Limit = 50,
    before: Annotated[
        int | None, Query(ge=1, le=MOST_ID, description="Only those with lower numbers.")
    ] = None,
) -> JobPage:
    """Gives a page of jobs."""
    found = service.queue.jobs(states=state, schedule_id=schedule, before_id=before, limit=limit + 1)
    filters = [("state", str(each)) for each in state]
    filters += [] if schedule is None else [("schedule", str(schedule))]
    items, following = page(found, limit, "/api/v1/jobs", filters, "id", response)
    return JobPage(items=[JobShape.of(job) for job in items], next=following)


@router.post(
    "",
    operation_id="submit_job",
    summary="Submit a job",
    description="Everything is checked as the command line would, before anything is stored. With an "
    "`Idempotency-Key` a request may be repeated when its answer was lost.",
    status_code=201,
    responses={
        201: {"description": "The job is stored.", **_LOCATION},
        200: {"description": "The key was known: this is its job.", "model": JobShape, **_LOCATION},
        **refusals(409, 422, 424, body=True),
    },
)
def submit_job(
    service: Asked,
    asked: JobSubmitted,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> JobShape:
    """Stores a job."""
    settings, options = asked.plain_settings(), asked.options()
    job, is_new = service.submit(asked.verb, settings, options, key=idempotency_key or "")
    response.status_code = 201 if is_new else 200
    response.headers["Location"] = f"/api/v1/jobs/{job.id}"
    return JobShape.of(job)


@router.get("/{job_id}", operation_id="get_job", summary="Look at a job", responses=refusals(404, 422))
def get_job(service: Asked, job_id: JobId) -> JobShape:
    """Gives a job."""
    return JobShape.of(service.queue.get(job_id))


@router.get(
    "/{job_id}/transitions",
    operation_id="list_transitions",
    summary="List all that happened to a job, oldest first",
    responses=refusals(404, 422),
)
def list_transitions(service: Asked, job_id: JobId) -> TransitionList:
    """Gives all changes of a job's state."""
    found = service.queue.transitions(job_id)
    return TransitionList(items=[TransitionShape.of(each) for each in found])


@router.get(
    "/{job_id}/result",
    operation_id="get_result",
    summary="Get what the job's verb gave with --json",
    response_class=Response,
    responses={
        200: {"description": "The result.", "content": {"application/json": {"schema": {}}}},
        **refusals(404, 422),
    },
)
def get_result(service: Asked, job_id: JobId) -> Response:
    """Gives a job's result as its process wrote it."""
    job = service.queue.get(job_id)
    result: Any = None if job.is_open else result_of(service.folder(job_id))
    if result is None:
        raise NotThere(f"a job must have ended with a result, but job {job_id}, {job.state}, has none")
    return Response(json.dumps(result), media_type="application/json")


@router.get(
    "/{job_id}/log",
    operation_id="get_log",
    summary="Read what the job said, from an offset",
    description=f"At most {MOST_LOG_BYTES} bytes at a time; ask again from `X-Next-Offset`.",
    response_class=Response,
    responses={
        200: {
            "description": "A part of the log.",
            "content": {"text/plain": {"schema": {"type": "string"}}},
            "headers": {
                "X-Next-Offset": {
                    "schema": {"type": "integer"},
                    "description": "Where the log goes on, in bytes.",
                }
            },
        },
        **refusals(404, 422),
    },
)
def get_log(
    service: Asked,
    job_id: JobId,
    offset: Annotated[int, Query(ge=0, le=2**53, description="Where to begin, in bytes.")] = 0,
) -> Response:
    """Gives a part of a job's log."""
    service.queue.get(job_id)
    text = b""
    try:
        with opened(service.folder(job_id) / LOG) as stream:
            offset = min(offset, os.fstat(stream.fileno()).st_size)
            stream.seek(offset)
            text = whole_characters(stream.read(MOST_LOG_BYTES))
    except OSError:  # it has said nothing yet
        offset = 0
    headers = {"X-Next-Offset": str(offset + len(text))}
    return Response(text.decode(errors="replace"), media_type="text/plain", headers=headers)


def whole_characters(text: bytes) -> bytes:
    """Gives UTF-8 without a character at its end that is not whole yet."""
    for back in range(1, min(4, len(text)) + 1):
        first = text[-back]
        if first < 0x80:
            return text
        if 0xC2 <= first < 0xF5:
            length = 2 if first < 0xE0 else 3 if first < 0xF0 else 4
            return text[:-back] if back < length and back < len(text) else text
    return text


@router.post(
    "/{job_id}/cancel",
    operation_id="cancel_job",
    summary="Cancel a job",
    description="One that waits ends at once. One that runs is asked to stop, and ends within seconds.",
    status_code=202,
    responses=refusals(404, 409, 422),
)
def cancel_job(service: Asked, job_id: JobId) -> JobShape:
    """Ends a job."""
    return JobShape.of(service.cancel(job_id))


@router.post(
    "/{job_id}/resume",
    operation_id="resume_job",
    summary="Resume a job that was stopped, cancelled or failed",
    description="It goes on from its run's folder.",
    status_code=202,
    responses=refusals(404, 409, 422),
)
def resume_job(service: Asked, job_id: JobId) -> JobShape:
    """Puts a job in line again."""
    return JobShape.of(service.resume(job_id))
