"""The queue: what is in line and at work, what has ended, and a form for a new search."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response

from autosparse.daemon.place import Follower, later, size_of
from autosparse.daemon.service import Service
from autosparse.errors import AutosparseError
from autosparse.jobs.queue import Conflict
from autosparse.jobs.records import Job, Snapshot
from autosparse.jobs.states import OPEN, State
from autosparse.storage.for_job import EVENTS
from autosparse.storage.serial import short_hash
from autosparse.web.asking import MOST_ID, JobSubmitted
from autosparse.web.pages import fields
from autosparse.web.pages.route import Form, PageRoute, to
from autosparse.web.pages.view import page
from autosparse.web.problems import status_of
from autosparse.web.routes.asked import Asked, JobId

router = APIRouter(route_class=PageRoute)

_MOST_OPEN, _MOST_ENDED = 100, 25
_TAIL_BYTES = 2**15
ENDED = tuple(state for state in State if state not in OPEN)
_FIELDS = fields.every(fields.MAIN, fields.MORE, fields.JOB)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A job as a line of the queue.

    Attributes:
        job: the job.
        now: how far it is; None before it has said so, and once it has ended.
    """

    job: Job
    now: Snapshot | None

    @property
    def subject(self) -> str:
        """What it works on."""
        settings = self.job.request.settings
        named = (settings.get(key) for key in ("model", "artifact", "run"))
        return next((str(name) for name in named if name), "")

    @property
    def part(self) -> float | None:
        """How much of its step is done, a fraction; None while that is not known."""
        if self.now is None or not self.now.total:
            return None
        return min(1.0, max(0.0, self.now.done / self.now.total))


def row_of(service: Service, job: Job) -> Row:
    """Gives a job with how far it is by now."""
    return Row(job=job, now=_now(service, job) if job.state == State.RUNNING else None)


def _now(service: Service, job: Job) -> Snapshot | None:
    """Gives how far a running job is: by its last events where they lie here."""
    if job.snapshot is None or job.owner != service.daemon_id:
        return job.snapshot
    events = service.folder(job.id) / EVENTS
    said = Follower(events, max(0, size_of(events) - _TAIL_BYTES)).follow()
    return later(job.snapshot, said)


@router.get("/")
def show_queue(
    request: Request,
    service: Asked,
    state: Annotated[State | None, Query()] = None,
    before: Annotated[int | None, Query(ge=1, le=MOST_ID)] = None,
) -> Response:
    """Shows the queue."""
    return _queue(request, service, state, before, form={}, errors={})


@router.get("/jobs")
def find_queue() -> Response:
    """Leads to the queue who asks anew where a form was sent."""
    return to("/")


@router.post("/jobs")
def submit(request: Request, service: Asked, form: Form) -> Response:
    """Submits a search; a form that is sent twice makes one job."""
    try:
        asked = fields.read(JobSubmitted, form, "search")
        job, _ = service.submit(asked.verb, asked.plain_settings(), asked.options(), key=_key_of(form))
    except fields.Refused as refused:
        return _queue(request, service, None, None, form=form, errors=refused.errors, status=422)
    except AutosparseError as error:
        errors = fields.beside(error, _FIELDS)
        return _queue(request, service, None, None, form=form, errors=errors, status=status_of(error))
    return to(f"/jobs/{job.id}")


def _key_of(form: Mapping[str, str]) -> str:
    """Gives the key of a form as it is filled: changed and sent again it is another job."""
    filled = {name: text for name, text in form.items() if text}
    return f"page-{short_hash(filled, 32)}" if form.get("once") else ""


def _queue(
    request: Request,
    service: Service,
    state: State | None,
    before: int | None,
    *,
    form: Mapping[str, str],
    errors: Mapping[str, str],
    status: int = 200,
) -> Response:
    queue = service.queue
    shows_open = before is None and (state is None or state in OPEN)
    shows_ended = state is None or state not in OPEN
    opened: Sequence[Job] = ()
    if shows_open:
        opened = queue.jobs(states=OPEN if state is None else [state], limit=_MOST_OPEN)
    ended: Sequence[Job] = ()
    if shows_ended:
        states = ENDED if state is None else [state]
        ended = queue.jobs(states=states, before_id=before, limit=_MOST_ENDED + 1)
    older = _older(state, ended[_MOST_ENDED - 1]) if len(ended) > _MOST_ENDED else None
    return page(
        request,
        "queue.html.j2",
        status,
        depths=queue.depths(),
        state=state,
        before=before,
        shows_open=shows_open,
        shows_ended=shows_ended,
        opened=[row_of(service, job) for job in _in_order(opened)],
        ended=[Row(job=job, now=None) for job in ended[:_MOST_ENDED]],
        older=older,
        now_s=time.time(),
        is_cut=len(opened) == _MOST_OPEN,
        at=_address(state, before),
        **fields.asked(form, errors),
        once=secrets.token_urlsafe(12),
    )


def _in_order(jobs: Sequence[Job]) -> list[Job]:
    """Gives open jobs as they are worked on: those that run, then those in line by priority and age."""
    return sorted(
        jobs,
        key=lambda job: (job.state != State.RUNNING, -job.request.options.priority, job.id),
    )


def _older(state: State | None, last: Job) -> str:
    return f"{_address(state, last.id)}#ended"


def _address(state: State | None, before: int | None) -> str:
    asked = {"state": state, "before": before}
    query = urlencode({name: str(each) for name, each in asked.items() if each is not None})
    return f"/?{query}" if query else "/"


@router.post("/jobs/{job_id}/cancel")
def cancel(service: Asked, job_id: JobId) -> Response:
    """Cancels a job; one that has just ended stays as it ended, which its page says."""
    with suppress(Conflict):
        service.cancel(job_id)
    return to(f"/jobs/{job_id}")


@router.post("/jobs/{job_id}/resume")
def resume(service: Asked, job_id: JobId) -> Response:
    """Resumes a job; one that somebody else has just resumed goes on, which its page says."""
    with suppress(Conflict):
        service.resume(job_id)
    return to(f"/jobs/{job_id}")
