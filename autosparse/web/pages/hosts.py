"""Hosts: daemons, who measures now, and which rows of the tuning database would be measured again."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from autosparse import hardware
from autosparse.web.hosting import hosts_of, rows_of
from autosparse.web.pages.route import PageRoute, to
from autosparse.web.pages.view import page
from autosparse.web.routes.asked import Asked

router = APIRouter(route_class=PageRoute)


@router.get("/hosts")
def show_hosts(request: Request, service: Asked) -> Response:
    """Shows the hosts."""
    return page(
        request,
        "hosts.html.j2",
        hosts=hosts_of(request.app, service),
        here_id=service.daemon_id,
        cpu=hardware.describe().cpu.model,
        gpus=hardware.describe().gpus,
        address=service.place.address,
    )


@router.post("/hosts/look")
def look(request: Request) -> Response:
    """Has the rows of the database looked at again."""
    rows_of(request.app).look(again=True)
    return to("/hosts")
