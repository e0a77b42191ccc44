"""One job: what it was asked, what became of it, how far it is, what it says and what it has found."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response

from autosparse.daemon.place import LOG, result_of, size_of
from autosparse.daemon.service import Service
from autosparse.errors import RunError
from autosparse.jobs.records import Job
from autosparse.run_folders.listing import summarize
from autosparse.run_folders.state import STATE_FILE, RunSummary, read_state
from autosparse.web.job_files import lines_from, tail_begin
from autosparse.web.pages.found import Found, found_in
from autosparse.web.pages.queue import row_of
from autosparse.web.pages.route import PageRoute
from autosparse.web.pages.view import lines, page
from autosparse.web.routes.asked import Asked, JobId

router = APIRouter(route_class=PageRoute)

_TAIL_BYTES = 2**14
_MOST_LINES = 80


@router.get("/jobs/{job_id}")
def show_job(request: Request, service: Asked, job_id: JobId) -> Response:
    """Shows a job."""
    job = service.queue.get(job_id)
    said = _last_lines(service, job)
    return page(
        request,
        "job.html.j2",
        row=row_of(service, job),
        job=job,
        transitions=service.queue.transitions(job_id),
        said=lines(said),
        line_count=len(said),
        found=_found(service, job),
        run=_run(service, job),
        result=_outcome(service, job),
        older=str((job.outcome or {}).get("older") or ""),
        schedule=_schedule(service, job),
        now_s=time.time(),
    )


def _last_lines(service: Service, job: Job) -> list[str]:
    folder = service.folder(job.id)
    begin = tail_begin(folder, _TAIL_BYTES)
    return [line.text for line in lines_from(folder, begin, size_of(folder / LOG))][-_MOST_LINES:]


def _run(service: Service, job: Job) -> RunSummary | None:
    """Gives the run of a job; None before it has one, and where it lies elsewhere or is gone."""
    folder = _run_folder(service, job)
    return None if folder is None else summarize(folder)


def _run_folder(service: Service, job: Job) -> Path | None:
    is_name = job.run not in ("", "..") and Path(job.run).name == job.run
    folder = service.place.results / job.run
    return folder if is_name and os.path.isfile(folder / STATE_FILE) else None


def _found(service: Service, job: Job) -> Found | None:
    """Gives what the study of a job's run has found so far; None where there is no study."""
    folder = _run_folder(service, job)
    try:
        return None if folder is None else found_in(folder, read_state(folder).budget_ms)
    except RunError:
        return None


def _outcome(service: Service, job: Job) -> str:
    """Gives the result of an ended job in a sentence; empty where its verb says none."""
    if job.is_open:
        return ""
    kept, given = job.outcome or {}, result_of(service.folder(job.id))
    return _sentence(kept) or (_sentence(given) if isinstance(given, Mapping) else "")


def _sentence(result: Mapping[str, Any]) -> str:
    for key in ("sentence", "verdict", "text"):
        said = result.get(key)
        if isinstance(said, Mapping):
            said = said.get("text")
        if isinstance(said, str):
            return said
    return ""


def _schedule(service: Service, job: Job) -> str:
    """Gives the name of the schedule that made a job; empty where none did, or it was removed."""
    if job.schedule_id is None:
        return ""
    every = {schedule.id: schedule.name for schedule in service.schedules.all()}
    return every.get(job.schedule_id, "")
