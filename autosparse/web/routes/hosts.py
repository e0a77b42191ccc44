"""Hosts: daemons, who measures, the nodes of a cluster, and rows that would be measured again."""

from __future__ import annotations

from fastapi import APIRouter, Request

from autosparse.web.hosting import HostsShape, hosts_of, rows_of
from autosparse.web.problems import refusals
from autosparse.web.routes.asked import Asked

router = APIRouter(prefix="/hosts", tags=["hosts"])


@router.get(
    "",
    operation_id="get_hosts",
    summary="Look at the hosts",
    description="What takes long to find out, nodes and stale rows, is told as it was known last, and "
    "found out anew beside if that is some minutes ago.",
    responses=refusals(422),
)
def get_hosts(service: Asked, request: Request) -> HostsShape:
    """Gives what is known of hosts."""
    return HostsShape.of(hosts_of(request.app, service))


@router.post(
    "/look",
    operation_id="look_at_rows",
    summary="Have the rows of the tuning database looked at again",
    description="It goes on beside: `looking` tells when it has ended.",
    status_code=202,
    responses=refusals(422),
)
def look_at_rows(service: Asked, request: Request) -> HostsShape:
    """Has the rows looked at."""
    rows_of(request.app).look(again=True)
    return HostsShape.of(hosts_of(request.app, service))
