"""The door before the application: who is heard, and what every answer says to browsers.

Plain ASGI, so that streams pass through as they come. A browser that holds the page's session can be
made by other pages to send requests, and by other names (DNS) to send them here; so the host must be
one of the daemon's, and the origin the daemon itself. Whoever has the token in hand needs no more.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Collection
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from urllib.parse import quote

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from autosparse.daemon.access import Listening
from autosparse.web.problems import refusal
from autosparse.web.session import COOKIE, is_session

API = "/api/"
OPEN_PATHS = frozenset({"/healthz", "/readyz"})
LOGIN = "/login"
MOST_BODY_BYTES = 2**20
_LOOKING = frozenset({"GET", "HEAD", "OPTIONS"})
_DEFAULT_PORTS = {"http": "80", "https": "443"}
_HEADERS = {
    "content-security-policy": "default-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


class ResponseHeaders:
    """Adds to every answer what browsers must know, unless the answer says something else.

    Args:
        app: what answers.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                if not headers.get("cache-control", "").startswith("public"):
                    headers["cache-control"] = "no-store"
            await send(message)

        await self._app(scope, receive, sending)


class Door:
    """Hears those who may be heard, and refuses everybody else before anything is looked up.

    Args:
        app: what they are let through to.
        listening: the daemon's names and scheme.
        token: by which it knows its user.
        open_paths: what needs no token.
        login_path: where browsers are sent that have no session; None refuses them like everybody.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        listening: Listening,
        token: str,
        open_paths: Collection[str] = OPEN_PATHS,
        login_path: str | None = None,
    ) -> None:
        self._app = app
        self._hosts = frozenset(listening.hosts)
        self._scheme = "https" if listening.behind_proxy else listening.scheme
        self._token = token
        self._login_path = login_path
        self._open_paths = frozenset(open_paths) | ({login_path} if login_path else set())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":  # there are no web sockets
            await send({"type": "websocket.close", "code": 1008})
            return
        refused = self._refused(scope)
        await (refused or self._app)(scope, receive, send)

    def _refused(self, scope: Scope) -> Response | None:
        headers, path = Headers(scope=scope), scope["path"]
        host = ",".join(headers.getlist("host")).lower()
        if _name(host) not in self._hosts:
            return refusal(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"the host must be one of {', '.join(sorted(self._hosts))}, but got "
                f"{host[:200]!r}; start the daemon with --allowed-host NAME to be spoken to by another",
                path,
            )
        if why := self._foreign(headers, host):
            return refusal(HTTPStatus.FORBIDDEN, why, path)
        if path in self._open_paths:
            return None
        return self._unknown(scope, headers, path)

    def _foreign(self, headers: Headers, host: str) -> str:
        """Says why a request is of another origin's; empty if it is not, or of no page at all."""
        for origin in headers.getlist("origin"):
            if not self._is_own(origin.lower(), host):
                return (
                    f"a page must be of the daemon's own origin, {self._scheme}://{host}, to speak to "
                    f"it, but got {origin[:200]!r}; use the daemon's page, or the command line"
                )
        for site in headers.getlist("sec-fetch-site"):
            if site.lower() not in ("same-origin", "none"):
                return (
                    f"a page must be of the daemon's own origin to speak to it, but this one is "
                    f"{site[:40]!r}; type the address, or follow links of the daemon's page"
                )
        return ""

    def _is_own(self, origin: str, host: str) -> bool:
        scheme, separator, rest = origin.partition("://")
        if not separator or scheme != self._scheme:
            return False
        return _with_port(rest, scheme) == _with_port(host, scheme)

    def _unknown(self, scope: Scope, headers: Headers, path: str) -> Response | None:
        """Refuses those who show neither the token nor a session."""
        shown = headers.getlist("authorization")
        if shown:
            scheme, _, given = shown[0].partition(" ")
            is_right = secrets.compare_digest(given.strip().encode(), self._token.encode())
            if len(shown) == 1 and scheme.lower() == "bearer" and is_right:
                return None
            return _who_are_you(path, "the token is not the daemon's")
        if not self._has_session(headers):
            if self._login_path and _is_browsing(scope, headers):
                target = f"{path}?{scope['query_string'].decode('latin-1')}".removesuffix("?")
                return RedirectResponse(f"{self._login_path}?next={quote(target, safe='')}", 303)
            return _who_are_you(path, "there was none")
        is_same = "origin" in headers or headers.get("sec-fetch-site", "").lower() == "same-origin"
        if scope["method"] not in _LOOKING and not is_same:
            return refusal(
                HTTPStatus.FORBIDDEN,
                "a session may change something from the daemon's own page alone, but the request "
                "has no Origin; send the token instead",
                path,
            )
        return None

    def _has_session(self, headers: Headers) -> bool:
        try:
            cookies = SimpleCookie("; ".join(headers.getlist("cookie")))
        except CookieError:
            return False
        found = cookies.get(COOKIE)
        return found is not None and is_session(self._token, found.value, time.time())


def _who_are_you(path: str, why: str) -> Response:
    return refusal(
        HTTPStatus.UNAUTHORIZED,
        f"requests must show the daemon's token, but {why}; send Authorization: Bearer TOKEN",
        path,
        headers={"WWW-Authenticate": "Bearer"},
    )


def _is_browsing(scope: Scope, headers: Headers) -> bool:
    wants = headers.get("accept", "")
    return scope["method"] == "GET" and not scope["path"].startswith(API) and "text/html" in wants


def _name(host: str) -> str:
    """Gives the name in ``name``, ``name:port``, ``[::1]`` or ``[::1]:port``."""
    name, separator, port = host.rpartition(":")
    is_port = separator and port.isascii() and port.isdecimal() and not host.endswith("]")
    return name if is_port else host


def _with_port(host: str, scheme: str) -> str:
    return host if _name(host) != host else f"{host}:{_DEFAULT_PORTS[scheme]}"


class BodyLimit:
    """Refuses bodies that are too large, as soon as that is known, and those of no JSON.

    Args:
        app: what reads them.
        most_bytes: the largest that is read.
    """

    def __init__(self, app: ASGIApp, *, most_bytes: int = MOST_BODY_BYTES) -> None:
        self._app = app
        self._most_bytes = most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        said = headers.get("content-length", "")
        if said.isascii() and said.isdecimal() and int(said[:20]) > self._most_bytes:
            await self._too_large(scope["path"])(scope, receive, send)
            return
        kind = headers.get("content-type", "").partition(";")[0].strip().lower()
        has_body = said.strip("0") != "" or "transfer-encoding" in headers
        if has_body and scope["path"].startswith(API) and kind != "application/json":
            detail = f"a body must be application/json, but got {kind[:100] or 'no type'!r}; say so in "
            response = refusal(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"{detail}Content-Type", scope["path"]
            )
            await response(scope, receive, send)
            return
        read_bytes = 0

        async def counting() -> Message:
            nonlocal read_bytes
            message = await receive()
            read_bytes += len(message.get("body", b""))
            if read_bytes > self._most_bytes:
                raise HTTPException(413, self._rule(), {"Connection": "close"})
            return message

        await self._app(scope, counting, send)

    def _rule(self) -> str:
        return f"a body must be at most {self._most_bytes} bytes, but this one is larger; send less"

    def _too_large(self, path: str) -> Response:
        return refusal(413, self._rule(), path, headers={"Connection": "close"})
