"""What all pages share: forms are read, refusals shown as pages, and changes lead back to a page."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import parse_qsl

from fastapi import Depends
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from autosparse.errors import AutosparseError, UsageError
from autosparse.web.pages.view import page
from autosparse.web.problems import status_of

_FORM = "application/x-www-form-urlencoded"
_MOST_FIELDS = 200


class PageRoute(APIRoute):
    """A route whose refusals are read by people."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Gives what answers a request."""
        handler = super().get_route_handler()

        async def answer(request: Request) -> Response:
            try:
                return await handler(request)
            except RequestValidationError:
                return refused(request, HTTPStatus.NOT_FOUND, "There is no page of that address.")
            except AutosparseError as error:
                status = status_of(error)
                if status == HTTPStatus.INTERNAL_SERVER_ERROR:
                    raise
                return refused(request, status, str(error))

        return answer


def refused(request: Request, status: int, why: str) -> Response:
    """Answers with a page that says why there is no other."""
    return page(request, "refused.html.j2", status, title=HTTPStatus(status).phrase, why=why)


async def _form(request: Request) -> Mapping[str, str]:
    """Reads a form's fields; of several of one name the last."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await request.body()
    if body and kind != _FORM:
        raise UsageError(f"a form must be sent as {_FORM}, but got {kind[:100] or 'no type'!r}")
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict"
        )
    except ValueError:
        raise UsageError(
            f"a form must hold at most {_MOST_FIELDS} fields of text in UTF-8, but this one does not"
        ) from None
    return {name: text.strip() for name, text in pairs}


Form = Annotated[Mapping[str, str], Depends(_form)]
"""The fields of the form that was sent."""


def to(path: str) -> Response:
    """Leads a browser on, so that to reload sends nothing again."""
    return RedirectResponse(path, HTTPStatus.SEE_OTHER)


def own_path(text: str, otherwise: str = "/") -> str:
    """Gives a path of this very host, whatever a form named."""
    is_own = text.startswith("/") and text.isprintable() and text[1:2] not in ("/", "\\")
    return text if is_own else otherwise
