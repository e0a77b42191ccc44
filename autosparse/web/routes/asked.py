"""What the operations have in common: the service that does the work, and parts of paths."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from fastapi import Depends, FastAPI, Path, Request

from autosparse.daemon.service import Service
from autosparse.errors import UsageError, got
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


async def refuse_unknown(request: Request) -> None:
    """Refuses a query with parameters that an operation does not have: a typing error would do nothing.

    Raises:
        UsageError: there is one; names those that the operation has.
    """
    known = _parameters(request.app)[request.scope["route"].operation_id]
    for name in request.query_params:
        if name not in known:
            told = f"known: {', '.join(known)}" if known else "this operation has none"
            raise UsageError(f"a query's parameters must be known ones, but got {got(name)}; {told}")


def _parameters(app: FastAPI) -> Mapping[str, tuple[str, ...]]:
    """Gives the names of each operation's parameters in the query."""
    if not hasattr(app.state, "parameters"):
        app.state.parameters = {
            operation["operationId"]: tuple(
                parameter["name"]
                for parameter in operation.get("parameters", ())
                if parameter["in"] == "query"
            )
            for path in app.openapi()["paths"].values()
            for operation in path.values()
        }
    found: Mapping[str, tuple[str, ...]] = app.state.parameters
    return found
