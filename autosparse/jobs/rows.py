"""Rows of jobs and transitions, read, locked and turned into records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from autosparse.errors import UsageError
from autosparse.jobs.records import Job, JobOptions, JobRequest, Snapshot, Transition
from autosparse.jobs.schema import JOBS, TRANSITIONS
from autosparse.jobs.states import State


class NoSuchJob(UsageError):
    """No job has the number."""


def delete(connection: sa.Connection, numbers: Sequence[int]) -> None:
    """Deletes jobs and their transitions."""
    connection.execute(sa.delete(TRANSITIONS).where(TRANSITIONS.c.job_id.in_(numbers)))
    connection.execute(sa.delete(JOBS).where(JOBS.c.id.in_(numbers)))


def for_update(query: sa.Select[Any]) -> sa.Select[Any]:
    """Locks the rows that are read; those that others have locked are theirs to deal with.

    SQLite has no such lock, and needs none: one transaction writes at a time there.
    """
    return query.with_for_update(skip_locked=True)


def mine(number: int, daemon: str, attempt: int) -> tuple[sa.ColumnElement[bool], ...]:
    """Gives the condition that a job is an owner's, and at an attempt."""
    return (
        JOBS.c.id == number,
        JOBS.c.owner == daemon,
        JOBS.c.attempt == attempt,
        JOBS.c.state == str(State.RUNNING),
    )


def note(
    connection: sa.Connection,
    number: int,
    at_s: float,
    before: State | None,
    after: State,
    attempt: int = 0,
    daemon: str = "",
    reason: str = "",
) -> None:
    """Notes a transition."""
    values = {
        "job_id": number,
        "at_s": at_s,
        "before": None if before is None else str(before),
        "after": str(after),
        "attempt": attempt,
        "daemon": daemon,
        "reason": reason,
    }
    connection.execute(sa.insert(TRANSITIONS).values(values))


def by_key(connection: sa.Connection, key: str) -> sa.RowMapping | None:
    """Gives the row of the job that was submitted under a key, if there is one."""
    return connection.execute(sa.select(JOBS).where(JOBS.c.request_key == key)).mappings().first()


def row_of(connection: sa.Connection, number: int) -> sa.RowMapping:
    """Gives the row of a job.

    Raises:
        NoSuchJob: no job has the number.
    """
    return _the_one(connection, sa.select(JOBS).where(JOBS.c.id == number), number)


def locked(connection: sa.Connection, number: int) -> sa.RowMapping:
    """Gives the row of a job, locked until the transaction ends.

    Raises:
        NoSuchJob: no job has the number.
    """
    return _the_one(connection, sa.select(JOBS).where(JOBS.c.id == number).with_for_update(), number)


def _the_one(connection: sa.Connection, query: sa.Select[Any], number: int) -> sa.RowMapping:
    row = connection.execute(query).mappings().first()
    if row is None:
        raise NoSuchJob(f"a job must be one of `autosparse status`, but got {number}")
    return row


def to_job(row: Mapping[Any, Any]) -> Job:
    """Turns a row into a record."""
    snapshot = row["snapshot"]
    options = JobOptions.from_json(row["options"])
    return Job(
        request=JobRequest(verb=row["verb"], settings=row["settings"], options=options),
        state=State(row["state"]),
        snapshot=None if snapshot is None else Snapshot.from_json(snapshot),
        is_cancelling=bool(row["is_cancelling"]),
        **{name: row[name] for name in _PLAIN},
    )


_PLAIN = (
    *("id", "submitted_at_s", "changed_at_s", "ready_at_s", "attempt", "failures", "owner"),
    *("lease_until_s", "ran_s", "exit_code", "message", "run", "outcome", "schedule_id", "due_at_s"),
)


def to_transition(row: Mapping[Any, Any]) -> Transition:
    """Turns a row into a record."""
    before = row["before"]
    return Transition(
        before=None if before is None else State(before),
        after=State(row["after"]),
        **{name: row[name] for name in ("job_id", "at_s", "attempt", "daemon", "reason")},
    )
