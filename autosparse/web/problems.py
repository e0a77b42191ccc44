"""Every refusal as RFC 9457 problem details, whoever refuses: the API, FastAPI, or the door."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from autosparse.daemon.service import NoSuchRun
from autosparse.errors import (
    AutosparseError,
    DatabaseError,
    ExitCode,
    MissingDependency,
    RunError,
    UsageError,
    got,
)
from autosparse.jobs.queue import Conflict
from autosparse.jobs.rows import NoSuchJob
from autosparse.schedules.store import NoSuchSchedule
from autosparse.storage.locks import Held

log = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
_LONGEST_PATH = 500
_MOST_ERRORS = 20
_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


class NotThere(RunError):
    """What was asked for is not there, or not yet."""


# The first class that an error is of says the status.
_STATUS: tuple[tuple[type[AutosparseError], HTTPStatus], ...] = (
    (Conflict, HTTPStatus.CONFLICT),
    (Held, HTTPStatus.CONFLICT),
    (NoSuchJob, HTTPStatus.NOT_FOUND),
    (NoSuchSchedule, HTTPStatus.NOT_FOUND),
    (NoSuchRun, HTTPStatus.NOT_FOUND),
    (NotThere, HTTPStatus.NOT_FOUND),
    (DatabaseError, HTTPStatus.SERVICE_UNAVAILABLE),
    (UsageError, HTTPStatus.UNPROCESSABLE_ENTITY),
    (MissingDependency, HTTPStatus.FAILED_DEPENDENCY),
)


class FieldError(BaseModel):
    """One thing that is wrong with a request."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    where: str = Field(description="Part of the request, such as `body.priority`.")
    message: str = Field(description="The rule that it breaks, and what it got.")


class Problem(BaseModel):
    """Problem details as RFC 9457 has them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    type: str = Field(default="about:blank", description="Always `about:blank`: the status says it.")
    title: str = Field(description="The status in words.")
    status: int = Field(ge=400, le=599, description="The status code of HTTP.")
    detail: str = Field(description="The rule, what it got, and what to do.")
    instance: str = Field(description="The path that was asked for.")
    exit_code: int | None = Field(
        default=None, description="What the command line would have ended with.", examples=[2]
    )
    errors: list[FieldError] | None = Field(
        default=None, description="Each part of the request that breaks a rule."
    )
    incident: str | None = Field(
        default=None, description="By which the daemon's log names what went wrong."
    )


_RESPONSES: Mapping[int, str] = {
    400: "The body cannot be read as JSON.",
    401: "No token, or a wrong one.",
    403: "The request came from a page of another origin.",
    404: "There is no such thing.",
    409: "It does not fit the state that something is in.",
    413: "The body is larger than 1 MiB.",
    415: "The body is not `application/json`.",
    421: "The request is meant for another host.",
    422: "Something in the request breaks a rule.",
    424: "Something that the request needs is not installed or does not answer.",
    503: "The database is away, or the daemon does not work.",
}
_ALWAYS = (401, 403, 421, 503)
_OF_BODIES = (400, 413, 415)


def refusals(*statuses: int, body: bool = False) -> dict[int | str, dict[str, Any]]:
    """Describes for the schema how an operation may be refused.

    Args:
        statuses: beside those that every operation has.
        body: whether it takes one.
    """
    every = sorted({*statuses, *_ALWAYS, *(_OF_BODIES if body else ())})
    content = {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    found: dict[int | str, dict[str, Any]] = {
        status: {"description": _RESPONSES[status], "content": content} for status in every
    }
    if 401 in found:
        header = {"schema": {"type": "string"}, "description": "`Bearer`."}
        found[401] = {**found[401], "headers": {"WWW-Authenticate": header}}
    return found


def refusal(
    status: int,
    detail: str,
    path: str,
    *,
    headers: Mapping[str, str] | None = None,
    exit_code: int | None = None,
    errors: Sequence[FieldError] | None = None,
    incident: str | None = None,
) -> Response:
    """Makes the response that refuses.

    Args:
        status: of HTTP.
        detail: the rule, what it got, and what to do.
        path: that was asked for.
        headers: to send with it.
        exit_code: see `Problem`.
        errors: see `Problem`.
        incident: see `Problem`.
    """
    problem = Problem(
        title=HTTPStatus(status).phrase,
        status=status,
        detail=detail,
        instance=path[:_LONGEST_PATH],
        exit_code=exit_code,
        errors=None if errors is None else list(errors),
        incident=incident,
    )
    # Escaped, as messages may quote what is no text that UTF-8 has.
    text = json.dumps(problem.model_dump(exclude_none=True))
    return Response(text, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def status_of(error: AutosparseError) -> HTTPStatus:
    """Gives the status that an error of ours is told with."""
    fits = (status for kind, status in _STATUS if isinstance(error, kind))
    return next(fits, HTTPStatus.INTERNAL_SERVER_ERROR)


def tell_problems(app: FastAPI) -> None:
    """Has an application answer with problem details wherever it refuses."""
    app.add_exception_handler(AutosparseError, _of_ours)
    app.add_exception_handler(RequestValidationError, _of_validation)
    app.add_exception_handler(HTTPException, _of_http)


async def _of_ours(request: Request, error: Exception) -> Response:
    assert isinstance(error, AutosparseError)
    status = status_of(error)
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        return unexpected(error, request.url.path)
    return refusal(status, str(error), request.url.path, exit_code=int(error.exit_code))


async def _of_validation(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    found = error.errors()
    if found and found[0]["type"] == "json_invalid":
        why = found[0].get("ctx", {}).get("error", "it is something else")
        detail = f"a body must be JSON, but at character {found[0]['loc'][-1]}: {why}"
        return refusal(HTTPStatus.BAD_REQUEST, detail, request.url.path)
    errors = [_field_error(each) for each in found[:_MOST_ERRORS]]
    detail = "; ".join(f"{each.where}: {each.message}" for each in errors)
    return refusal(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        detail,
        request.url.path,
        exit_code=int(ExitCode.USAGE),
        errors=errors,
    )


def _field_error(found: Mapping[str, Any]) -> FieldError:
    where = ".".join(str(part)[:80] for part in found["loc"])
    value = found.get("input")
    # Of something missing the input is what lacks it.
    tail = "" if found["type"] == "missing" else f", but got {got(value)}"
    return FieldError(where=_plain(where), message=_plain(f"{found['msg']}{tail}"))


def _plain(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


async def _of_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = request.url.path
    told = {
        HTTPStatus.NOT_FOUND: "a path must be one that exists, but this is none; see "
        "/api/v1/openapi.json",
        HTTPStatus.METHOD_NOT_ALLOWED: f"a path takes the methods of its header Allow, but got "
        f"{request.method}",
        HTTPStatus.BAD_REQUEST: "a body must be JSON in UTF-8, but this one cannot be read",
    }
    detail = told.get(HTTPStatus(error.status_code)) if _is_bare(error) else None
    headers = dict(error.headers or {})
    if error.status_code == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = ", ".join(_allowed(request))
    return refusal(error.status_code, detail or str(error.detail), path, headers=headers)


def _allowed(request: Request) -> list[str]:
    """Gives the methods that a path takes, of whichever route: the framework names those of one."""

    def takes(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] == Match.FULL for route in request.app.routes)

    return [method for method in _METHODS if takes(method)]


def _is_bare(error: HTTPException) -> bool:
    """Tells whether an error is the framework's own, whose words say no more than the status."""
    return error.detail in (
        HTTPStatus(error.status_code).phrase,
        "There was an error parsing the body",
    )


def unexpected(error: BaseException, path: str) -> Response:
    """Logs an error that nobody foresaw, and makes the response that names the line in the log."""
    incident = secrets.token_hex(6)
    log.error("incident %s at %s", incident, path[:_LONGEST_PATH], exc_info=error)
    detail = f"the daemon must answer, but something went wrong in it; its log says more: {incident}"
    return refusal(
        HTTPStatus.INTERNAL_SERVER_ERROR,
        detail,
        path,
        exit_code=int(ExitCode.INTERNAL),
        incident=incident,
    )


class Unexpected:
    """Answers with a problem where the application raises, and lets no traceback out.

    Args:
        app: what is watched.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        has_begun = False

        async def sending(message: Message) -> None:
            nonlocal has_begun
            has_begun = has_begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception as error:
            if scope["type"] != "http":
                raise
            response = unexpected(error, scope["path"])
            if not has_begun:
                await response(scope, receive, send)
            else:
                raise  # the server can only close the connection
