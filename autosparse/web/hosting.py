"""Hosts as far as a daemon knows them, for its page and its API; nobody waits for what is not known."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from fastapi import FastAPI
from pydantic import Field

from autosparse.daemon.nodes import ClusterNodes, Node
from autosparse.daemon.service import Service
from autosparse.daemon.stale import Looked, StaleRows
from autosparse.database.staleness import Freshness
from autosparse.jobs.daemons import daemons
from autosparse.jobs.records import Daemon
from autosparse.jobs.states import State
from autosparse.measuring.lock import Holder, who_measures
from autosparse.web.shapes import Shape, Time, clean, written

_MOST_RUNNING = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Hosts:
    """What is known of hosts.

    Attributes:
        daemons: all that work on the jobs of the database, the oldest first.
        working: numbers of the jobs that run, by the daemon that owns them.
        measuring: who times something on the host of the daemon that answers; None if nobody does.
        nodes: of the cluster that jobs join.
        nodes_problem: why those are not known; empty if they are, or are being asked for.
        rows: what the last look at the tuning database found; None before the first has ended.
        is_looking: whether another look is under way.
        lease_s: how long a daemon counts as alive without a word of it.
        now_s: when this was.
    """

    daemons: tuple[Daemon, ...]
    working: Mapping[str, tuple[int, ...]]
    measuring: Holder | None
    nodes: tuple[Node, ...]
    nodes_problem: str
    rows: Looked | None
    is_looking: bool
    lease_s: float
    now_s: float

    def silent_s(self, daemon: Daemon) -> float:
        """Gives how long ago a daemon last gave word."""
        return max(0.0, self.now_s - daemon.seen_at_s)


def hosts_of(app: FastAPI, service: Service) -> Hosts:
    """Gives what is known, and has found out anew what is old."""
    rows, nodes = rows_of(app), app.state.nodes
    assert isinstance(nodes, ClusterNodes)
    rows.look()
    nodes.look()
    return Hosts(
        daemons=tuple(daemons(service.queue.store)),
        working=_working(service),
        measuring=who_measures(),
        nodes=nodes.nodes,
        nodes_problem=nodes.problem,
        rows=rows.known(),
        is_looking=rows.is_looking,
        lease_s=service.queue.lease_s,
        now_s=time.time(),
    )


def rows_of(app: FastAPI) -> StaleRows:
    """Gives the application's knowledge of the tuning database's rows."""
    rows = app.state.stale_rows
    assert isinstance(rows, StaleRows)
    return rows


def _working(service: Service) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for job in service.queue.jobs(states=[State.RUNNING], limit=_MOST_RUNNING):
        found[job.owner] = (*found.get(job.owner, ()), job.id)
    return found


# ------------------------------------------------------------------------------------------- answers


class DaemonShape(Shape):
    """A daemon that works on the jobs of the database."""

    id: str = Field(description="Its own, new at each start.")
    host: str = Field(description="Name of its machine.")
    pid: int = Field(description="Its process there.")
    hardware_id: str = Field(description="What is measured there.")
    started_at: Time = Field(description="When it began.")
    seen_at: Time = Field(description="When it last gave word.")
    silent: bool = Field(description="Whether that is longer ago than a lease: its jobs are taken up.")
    job_ids: list[int] = Field(description="Numbers of the jobs that it works on.")


class MeasuringShape(Shape):
    """Who times something on the host of the daemon that answers."""

    pid: int = Field(description="Its process.")
    what: str = Field(description="What is timed.")
    command: str = Field(description="How the process was called.")
    since: str = Field(description="When it began, as it said.")


class NodeShape(Shape):
    """A node of the cluster that jobs join."""

    hostname: str = Field(description="Its name.")
    address: str = Field(description="Its address in the network.")
    hardware_id: str = Field(description="What it is; empty where it did not say.")
    cpu: str = Field(description="The vendor's name of its processor.")
    roles: list[str] = Field(description="What it is for: measure, train.")
    alive: bool = Field(description="Whether it is in the cluster.")
    busy: bool = Field(description="Whether somebody measured there when it was asked.")

    @classmethod
    def of(cls, node: Node) -> Self:
        """Makes it of a record."""
        return cls(
            hostname=clean(node.hostname),
            address=clean(node.address),
            hardware_id=clean(node.hardware_id),
            cpu=clean(node.cpu),
            roles=[clean(role) for role in node.roles],
            alive=node.is_alive,
            busy=node.is_busy,
        )


class DeviceRowsShape(Shape):
    """Rows of the tuning database of one device."""

    hardware_id: str = Field(description="The device.")
    here: bool = Field(description="Whether it is the host of the daemon that answers.")
    rows: int = Field(description="All of them.")
    stale: int = Field(description="Those that would be measured again.")
    changed: dict[str, int] = Field(description="Rows by kernel, where it has changed since.")
    gone: dict[str, int] = Field(description="Rows by kernel, where there is none of that name now.")
    facts: dict[str, int] = Field(
        description="Rows by the microcode, driver or libraries they were taken under, if others now."
    )
    today: str = Field(description="What there is now instead; empty where it is not known.")

    @classmethod
    def of(cls, device: Freshness) -> Self:
        """Makes it of a record."""
        return cls(
            hardware_id=clean(device.hardware_id),
            here=device.is_here,
            rows=device.rows,
            stale=device.stale,
            changed=clean(dict(device.changed)),
            gone=clean(dict(device.gone)),
            facts=clean(dict(device.facts)),
            today=clean(device.today),
        )


class RowsShape(Shape):
    """What a look at the tuning database found."""

    at: Time = Field(description="When that was.")
    devices: list[DeviceRowsShape] = Field(description="By device.")
    problem: str = Field(description="Why nothing is known; empty if something is.")


class HostsShape(Shape):
    """Hosts, as far as they are known."""

    daemons: list[DaemonShape] = Field(description="The oldest first.")
    measuring: MeasuringShape | None = Field(
        description="Who times something on the host of the daemon that answers; null if nobody does."
    )
    nodes: list[NodeShape] = Field(description="Of the cluster that jobs join; empty without one.")
    nodes_problem: str = Field(description="Why nodes are not known; empty if they are.")
    rows: RowsShape | None = Field(description="Of the tuning database; null before the first look.")
    looking: bool = Field(description="Whether the database is being looked at.")

    @classmethod
    def of(cls, hosts: Hosts) -> Self:
        """Makes it of what is known."""
        return cls(
            daemons=[_daemon(each, hosts) for each in hosts.daemons],
            measuring=_measuring(hosts.measuring),
            nodes=[NodeShape.of(node) for node in hosts.nodes],
            nodes_problem=clean(hosts.nodes_problem),
            rows=_rows(hosts.rows),
            looking=hosts.is_looking,
        )


def _daemon(daemon: Daemon, hosts: Hosts) -> DaemonShape:
    return DaemonShape(
        id=clean(daemon.id),
        host=clean(daemon.host),
        pid=daemon.pid,
        hardware_id=clean(daemon.hardware_id),
        started_at=written(daemon.started_at_s),
        seen_at=written(daemon.seen_at_s),
        silent=hosts.silent_s(daemon) > hosts.lease_s,
        job_ids=list(hosts.working.get(daemon.id, ())),
    )


def _measuring(holder: Holder | None) -> MeasuringShape | None:
    return None if holder is None else MeasuringShape(**clean(holder.to_json()))


def _rows(looked: Looked | None) -> RowsShape | None:
    if looked is None:
        return None
    devices = [DeviceRowsShape.of(device) for device in looked.devices]
    return RowsShape(at=written(looked.at_s), devices=devices, problem=clean(looked.problem))
