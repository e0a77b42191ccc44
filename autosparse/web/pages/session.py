"""The beginning and the end of a browser's session."""

from __future__ import annotations

import secrets
import time

from fastapi import APIRouter, Request, Response

from autosparse.web.pages.route import Form, PageRoute, own_path, to
from autosparse.web.pages.view import page
from autosparse.web.security import LOGIN
from autosparse.web.session import make_session, set_cookie

router = APIRouter(route_class=PageRoute)


@router.get(LOGIN)
def show_login(request: Request, next: str = "/") -> Response:
    """Asks for the token."""
    return page(request, "login.html.j2", next=own_path(next), error="")


@router.post(LOGIN)
def log_in(request: Request, form: Form) -> Response:
    """Begins a session, if the token is right."""
    token: str = request.app.state.token
    target = own_path(form.get("next", "/"))
    if not secrets.compare_digest(form.get("token", "").encode(errors="replace"), token.encode()):
        error = "token must be the daemon's, but this is another one; read it from its token file"
        return page(request, "login.html.j2", 401, next=target, error=error)
    response = to(target)
    response.headers["Set-Cookie"] = set_cookie(make_session(token, time.time()), secure=_tls(request))
    return response


@router.post("/logout")
def log_out(request: Request) -> Response:
    """Ends a session."""
    response = to(LOGIN)
    response.headers["Set-Cookie"] = set_cookie("", secure=_tls(request))
    return response


def _tls(request: Request) -> bool:
    listening = request.app.state.listening
    return bool(listening.behind_proxy or listening.scheme == "https")
