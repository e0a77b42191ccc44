"""The daemon itself: what it is and allows, whether it lives and is ready."""

from __future__ import annotations

import time
from http import HTTPStatus

from fastapi import APIRouter, Request, Response

from autosparse.jobs.verbs import VERBS
from autosparse.version import __version__
from autosparse.web.metrics import CONTENT_TYPE_LATEST, Metrics
from autosparse.web.problems import refusal, refusals
from autosparse.web.routes.asked import Asked
from autosparse.web.shapes import Health, ServerShape

router = APIRouter(tags=["server"])
health = APIRouter(tags=["server"])
_OPEN = refusals()[503]


@router.get(
    "/server",
    operation_id="get_server",
    summary="Look at the daemon",
    responses=refusals(422),
)
def get_server(service: Asked) -> ServerShape:
    """Gives what the daemon is and allows."""
    return ServerShape.of(service, __version__, list(VERBS), time.time())


@health.get(
    "/healthz",
    operation_id="get_health",
    summary="Tell that the process lives",
    description="Needs no token.",
)
async def get_health() -> Health:
    """Answers."""
    return Health()


@health.get(
    "/readyz",
    operation_id="get_readiness",
    summary="Tell whether the daemon works: its database answers, and jobs are taken",
    description="Needs no token.",
    responses={503: _OPEN},
    response_model=Health,
)
def get_readiness(service: Asked, request: Request) -> Health | Response:
    """Answers if all that a job needs of the daemon is there."""
    service.queue.last_transition()
    if request.app.state.is_working():
        return Health()
    detail = "the part of the daemon that takes jobs must work, but it has ended; see its log"
    return refusal(HTTPStatus.SERVICE_UNAVAILABLE, detail, request.url.path)


@health.get(
    "/metrics",
    operation_id="get_metrics",
    summary="Get figures for Prometheus",
    description="Jobs by state, how long the oldest waits, what runs here, and how long jobs took. "
    "Needs the token, unless the daemon was told that it does not.",
    response_class=Response,
    responses={
        200: {"description": "The figures.", "content": {"text/plain": {"schema": {"type": "string"}}}},
        **refusals(),
    },
)
def get_metrics(request: Request) -> Response:
    """Gives all figures."""
    metrics = request.app.state.metrics
    assert isinstance(metrics, Metrics)
    return Response(metrics.text(), media_type=CONTENT_TYPE_LATEST)
