"""What the operations have in common: the service that does the work, and parts of paths."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request

from autosparse.daemon.service import Service
from autosparse.web.asking import MOST_ID


async def _service(request: Request) -> Service:
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


Asked = Annotated[Service, Depends(_service)]
"""The daemon's service."""

JobId = Annotated[int, Path(ge=1, le=MOST_ID, description="Number of the job.")]
ScheduleName = Annotated[
    str,
    Path(min_length=1, max_length=200, description="Number or name of the schedule."),
]
RunName = Annotated[
    str,
    Path(
        min_length=1,
        max_length=255,
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$",
        description="Name of the run, a unique beginning of it, or `latest`.",
    ),
]
