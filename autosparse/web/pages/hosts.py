"""Hosts: daemons, who measures now, and which rows of the tuning database would be measured again."""

from __future__ import annotations

import time

from fastapi import APIRouter, Request, Response

from autosparse import hardware
from autosparse.daemon.nodes import ClusterNodes
from autosparse.daemon.service import Service
from autosparse.daemon.stale import StaleRows
from autosparse.jobs.daemons import daemons
from autosparse.jobs.records import Job
from autosparse.jobs.states import State
from autosparse.measuring.lock import who_measures
from autosparse.web.pages.route import PageRoute, to
from autosparse.web.pages.view import page
from autosparse.web.routes.asked import Asked

router = APIRouter(route_class=PageRoute)

_MOST_RUNNING = 200


@router.get("/hosts")
def show_hosts(request: Request, service: Asked) -> Response:
    """Shows the hosts."""
    known = daemons(service.queue.store)
    here = next((each for each in known if each.id == service.daemon_id), None)
    rows = _rows(request)
    rows.look()
    nodes = request.app.state.nodes
    assert isinstance(nodes, ClusterNodes)
    nodes.look()
    return page(
        request,
        "hosts.html.j2",
        daemons=known,
        here=here,
        cpu=hardware.describe().cpu.model,
        gpus=hardware.describe().gpus,
        working=_working(service),
        measuring=who_measures(),
        rows=rows.known(),
        is_looking=rows.is_looking,
        nodes=nodes,
        address=service.place.address,
        lease_s=service.queue.lease_s,
        now_s=time.time(),
    )


@router.post("/hosts/look")
def look(request: Request) -> Response:
    """Has the rows of the database looked at again."""
    _rows(request).look(again=True)
    return to("/hosts")


def _rows(request: Request) -> StaleRows:
    rows = request.app.state.stale_rows
    assert isinstance(rows, StaleRows)
    return rows


def _working(service: Service) -> dict[str, list[Job]]:
    """Gives the jobs that run, by the daemon that owns them."""
    running = service.queue.jobs(states=[State.RUNNING], limit=_MOST_RUNNING)
    found: dict[str, list[Job]] = {}
    for job in running:
        found.setdefault(job.owner, []).append(job)
    return found
