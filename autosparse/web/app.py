"""The application: everything that a daemon answers, put together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, Depends, FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.middleware import Middleware

from autosparse.daemon.access import Listening
from autosparse.daemon.nodes import ClusterNodes
from autosparse.daemon.service import Service
from autosparse.daemon.stale import StaleRows
from autosparse.web import pages, problems, security
from autosparse.web.metrics import Collector, Metrics
from autosparse.web.routes import events, hosts, jobs, runs, schedules, server, watches
from autosparse.web.routes.asked import refuse_unknown
from autosparse.web.standing import StaleRowFigures, WatchedBudgets
from autosparse.web.streams import Streams

PREFIX = "/api/v1"
_VERSION = "1"
_ABOUT = """Jobs, schedules and runs of an autosparse daemon.

Every request but those that say so shows the daemon's token: `Authorization: Bearer TOKEN`. Refusals
are problem details (RFC 9457); `exit_code` is what the command line would have ended with. Lists come
in pages: follow `next`, or the header `Link`, until it is null. Times are ISO 8601 in UTC; durations
are asked for with a unit (`2h`) and answered in seconds (`_s`)."""


def _works() -> bool:
    """Nobody takes jobs in this process who could have ended."""
    return True


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    end_streams(app)


def end_streams(app: FastAPI) -> None:
    """Ends all streams of an application; from any thread.

    Servers wait for open answers before they tell an application that they end, so that whoever runs
    the server calls this first.
    """
    app.state.streams.end()


def make_app(
    service: Service,
    listening: Listening,
    token: str,
    *,
    is_working: Callable[[], bool] = _works,
    collectors: Sequence[Collector] = (),
    open_metrics: bool = False,
    login_path: str | None = security.LOGIN,
    stale_rows: StaleRows | None = None,
    nodes: ClusterNodes | None = None,
) -> FastAPI:
    """Makes the application of a daemon.

    Args:
        service: what it does when it is asked.
        listening: its names, and whether it is reached over TLS.
        token: by which it knows its user.
        is_working: tells whether jobs are taken.
        collectors: of figures beside those of jobs.
        open_metrics: whether figures are for everybody.
        login_path: where browsers begin a session; None where there is no page.
        stale_rows: what is known of the tuning database's rows; None finds out when the page asks.
        nodes: of the cluster that jobs join, likewise.
    """
    app = FastAPI(
        title="autosparse",
        version=_VERSION,
        description=_ABOUT,
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=_lifespan,
        middleware=[
            Middleware(security.ResponseHeaders),
            Middleware(problems.Unexpected),
            Middleware(
                security.Door,
                listening=listening,
                token=token,
                open_paths={
                    *security.OPEN_PATHS,
                    *(pages.OPEN_PATHS if login_path else ()),
                    *(("/metrics",) if open_metrics else ()),
                },
                login_path=login_path,
            ),
            Middleware(security.BodyLimit),
        ],
    )
    app.state.service = service
    app.state.is_working = is_working
    app.state.stale_rows = stale_rows or StaleRows(service.place.database)
    standing = (WatchedBudgets(service), StaleRowFigures(app.state.stale_rows.known))
    app.state.metrics = Metrics(service, is_working, (*standing, *collectors))
    app.state.streams = Streams(service)
    app.state.token = token
    app.state.listening = listening
    app.state.nodes = nodes or ClusterNodes(service.place.address)
    problems.tell_problems(app)
    api = APIRouter(prefix=PREFIX, dependencies=[Depends(refuse_unknown)])
    for router in (
        server.router,
        events.router,
        jobs.router,
        schedules.router,
        runs.router,
        watches.router,
        hosts.router,
    ):
        api.include_router(router)
    app.include_router(api)
    app.include_router(server.health)
    if login_path:
        pages.install(app)
    app.openapi = lambda: _schema(app)  # type: ignore[method-assign]
    return app


def _schema(app: FastAPI) -> dict[str, Any]:
    """Gives the schema of the API: as FastAPI makes it, with problems and the token."""
    if app.openapi_schema is None:
        made = get_openapi(
            title=app.title,
            version=app.version,
            description=app.description,
            routes=app.routes,
        )
        components = made.setdefault("components", {})
        described = problems.Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        components.setdefault("schemas", {}).update(
            {**described.pop("$defs", {}), problems.Problem.__name__: described}
        )
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        made["security"] = [{"token": []}]
        for path in security.OPEN_PATHS:
            for operation in made["paths"].get(path, {}).values():
                operation["security"] = []
        app.openapi_schema = made
    return app.openapi_schema
