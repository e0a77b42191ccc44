"""The daemon's page: written on the server, whole without a script; with one it keeps itself current.

    view       templates, and how times and durations are written
    route      forms read, refusals shown as pages
    chart      latency against accuracy as SVG
    fields     what a form asks for, and what it got
    queue, job, runs, compare, hosts, schedules, watches, session   a page each

What stands in a section marked ``data-live`` is replaced by what the same address says later, whenever
the daemon tells that something happened.
"""

from __future__ import annotations

from fastapi import FastAPI

from autosparse.web.pages import compare, files, hosts, job, queue, runs, schedules, session, watches
from autosparse.web.pages.files import OPEN_PATHS

__all__ = ["OPEN_PATHS", "install"]


def install(app: FastAPI) -> None:
    """Adds the page to an application of the daemon."""
    for part in (files, session, queue, job, runs, compare, hosts, schedules, watches):
        app.include_router(part.router, include_in_schema=False)
