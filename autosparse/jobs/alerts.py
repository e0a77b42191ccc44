"""What happened that somebody ought to hear of, kept beside the jobs: once each, whatever dies.

An alert is stored in the transaction that records the end of the job it is about. So there is one for
every such end, and none for an end that was not recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from autosparse.jobs.queue import Then
from autosparse.jobs.records import Job
from autosparse.jobs.rows import to_job
from autosparse.jobs.schema import ALERTS, JOBS, SCHEDULES
from autosparse.jobs.states import State
from autosparse.jobs.store import Store
from autosparse.storage.serial import Record

TELLING = (State.DONE, State.INFEASIBLE, State.FAILED)
"""Ends that say something of what was done; the others are those of jobs that somebody stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert(Record):
    """Something that somebody ought to hear of.

    Attributes:
        kind: what happened, such as ``front.moved``.
        title: it in a few words.
        body: all of it, plain values.
        id: its number; 0 before it is stored.
        at_s: when it was stored, seconds since the epoch.
        job_id: the job whose end it is about.
        schedule_id: of the schedule that made the job.
    """

    kind: str
    title: str
    body: Mapping[str, Any]
    id: int = 0
    at_s: float = 0.0
    job_id: int = 0
    schedule_id: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended(Record):
    """The end of a job, for whoever decides what it means.

    Attributes:
        job: as it is now.
        at_s: when it ended.
        before: the job of its schedule that ended last before it, in a way that tells something; None
            if there was none, or it is no schedule's.
        schedule: name of its schedule; empty if it is none's.
    """

    job: Job
    at_s: float
    before: Job | None = None
    schedule: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Meaning(Record):
    """What the end of a job means.

    Attributes:
        outcome: of the job, to be kept; None for nothing.
        alert: what somebody ought to hear of; None for nothing.
    """

    outcome: Mapping[str, Any] | None = None
    alert: Alert | None = None


class Alerts:
    """The alerts of a store.

    Args:
        store: where they are kept.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    def noting(self, meaning: Callable[[Ended], Meaning]) -> Then:
        """Gives what `Queue.end` does in its transaction: it keeps what the end means."""

        def note(connection: sa.Connection, job: Job) -> None:
            ended = _ended(connection, job, self._store.now_s(connection))
            found = meaning(ended)
            if found.outcome is not None:
                changed = sa.update(JOBS).where(JOBS.c.id == job.id)
                connection.execute(changed.values(outcome=dict(found.outcome)))
            if found.alert is not None:
                _add(connection, found.alert, ended)

        return note

    def latest(self, *, before_id: int | None = None, limit: int = 50) -> list[Alert]:
        """Gives alerts, newest first.

        Args:
            before_id: only those with lower numbers, to go on with a list.
            limit: how many at most.
        """
        query = sa.select(ALERTS).order_by(ALERTS.c.id.desc()).limit(limit)
        if before_id is not None:
            query = query.where(ALERTS.c.id < before_id)
        with self._store.reading() as connection:
            return [Alert(**row) for row in connection.execute(query).mappings()]


def last_ended(store: Store, schedule_ids: Iterable[int]) -> dict[int, Job]:
    """Gives the job of each schedule that ended last in a way that tells something, if there is one."""
    with store.reading() as connection:
        found = {number: _last_ended(connection, number) for number in schedule_ids}
    return {number: job for number, job in found.items() if job is not None}


def _ended(connection: sa.Connection, job: Job, at_s: float) -> Ended:
    if job.schedule_id is None:
        return Ended(job=job, at_s=at_s)
    name = sa.select(SCHEDULES.c.name).where(SCHEDULES.c.id == job.schedule_id)
    return Ended(
        job=job,
        at_s=at_s,
        before=_last_ended(connection, job.schedule_id, other_than=job.id),
        schedule=connection.execute(name).scalar() or "",
    )


def _last_ended(
    connection: sa.Connection, schedule_id: int, other_than: int | None = None
) -> Job | None:
    query = sa.select(JOBS).where(
        JOBS.c.schedule_id == schedule_id, JOBS.c.state.in_([str(state) for state in TELLING])
    )
    if other_than is not None:
        query = query.where(JOBS.c.id != other_than)
    query = query.order_by(JOBS.c.changed_at_s.desc(), JOBS.c.id.desc()).limit(1)
    row = connection.execute(query).mappings().first()
    return None if row is None else to_job(row)


def _add(connection: sa.Connection, alert: Alert, ended: Ended) -> None:
    """Stores an alert, unless the job had the same one: it was resumed, and ended as before."""
    same = (ALERTS.c.job_id == ended.job.id, ALERTS.c.kind == alert.kind)
    if connection.execute(sa.select(ALERTS.c.id).where(*same)).first() is not None:
        return
    values = {
        "at_s": ended.at_s,
        "kind": alert.kind,
        "job_id": ended.job.id,
        "schedule_id": ended.job.schedule_id,
        "title": alert.title,
        "body": dict(alert.body),
    }
    connection.execute(sa.insert(ALERTS).values(values))
