"""Jobs that ended long ago, and what was kept beside them, are forgotten a few at a time.

What a job left on disk is deleted after its row, which nobody may resume meanwhile. So the row leaves a
note of it behind, which stays until that is done: whoever dies in between, the next one finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from autosparse.jobs.rows import delete, for_update
from autosparse.jobs.schema import (
    ALERTS,
    DELIVERIES,
    JOBS,
    LEFTOVERS,
    OCCURRENCES,
    SCHEDULES,
)
from autosparse.jobs.states import OPEN, State
from autosparse.jobs.store import Store
from autosparse.storage.serial import Record

_OPEN = [str(state) for state in OPEN]
_WITH_RESULT = [str(State.DONE), str(State.INFEASIBLE)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover(Record):
    """What a job left on disk.

    Attributes:
        job_id: the job.
        run: name of the run that it worked on; empty if it had none.
    """

    job_id: int
    run: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InUse(Record):
    """What others still go by.

    Attributes:
        jobs: the last one of every schedule, and the last one with a result, which later ones are
            compared with.
        settings: of all jobs whose end lies ahead, and of all schedules.
    """

    jobs: frozenset[int]
    settings: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Record):
    """A part of the jobs that ended before a time.

    Attributes:
        found: those that nothing spares.
        last_id: where to go on; None at the end.
    """

    found: tuple[Leftover, ...] = ()
    last_id: int | None = None


IsSpared = Callable[[Leftover, InUse], bool]


def forget_jobs(
    store: Store,
    ended_before_s: float,
    is_spared: IsSpared,
    *,
    after_id: int = 0,
    limit: int = 50,
    dry_run: bool = False,
) -> Page:
    """Deletes some of the jobs that ended before a time, oldest first, and notes what they left.

    Args:
        store: where the jobs are.
        ended_before_s: seconds since the epoch.
        is_spared: tells whether a job must stay, by what others still go by.
        after_id: where to go on.
        limit: how many are looked at.
        dry_run: only tell.
    """
    old = (JOBS.c.state.not_in(_OPEN), JOBS.c.changed_at_s < ended_before_s, JOBS.c.id > after_id)
    query = sa.select(JOBS.c.id, JOBS.c.run).where(*old).order_by(JOBS.c.id).limit(limit)
    with store.reading() if dry_run else store.writing() as connection:
        rows = connection.execute(query if dry_run else for_update(query)).all()
        in_use = _in_use(connection)
        looked_at = [Leftover(job_id=number, run=run) for number, run in rows]
        found = tuple(each for each in looked_at if not is_spared(each, in_use))
        if found and not dry_run:
            delete(connection, [each.job_id for each in found])
            connection.execute(sa.insert(LEFTOVERS), [each.to_json() for each in found])
    return Page(found=found, last_id=looked_at[-1].job_id if len(rows) == limit else None)


def in_use(store: Store) -> InUse:
    """Gives what others still go by."""
    with store.reading() as connection:
        return _in_use(connection)


def leftovers(store: Store) -> list[Leftover]:
    """Gives what jobs that are forgotten left on disk, as far as that is not yet deleted."""
    with store.reading() as connection:
        rows = connection.execute(sa.select(LEFTOVERS).order_by(LEFTOVERS.c.job_id)).mappings()
        return [Leftover(**row) for row in rows]


def cleared(store: Store, leftover: Leftover) -> None:
    """Notes that nothing of it is left."""
    with store.writing() as connection:
        connection.execute(sa.delete(LEFTOVERS).where(LEFTOVERS.c.job_id == leftover.job_id))


def forget_alerts(store: Store, before_s: float, *, limit: int = 500) -> tuple[int, int]:
    """Deletes some alerts of before a time, oldest first, with their deliveries; gives both counts."""
    query = sa.select(ALERTS.c.id).where(ALERTS.c.at_s < before_s).order_by(ALERTS.c.id).limit(limit)
    with store.writing() as connection:
        numbers = list(connection.execute(query).scalars())
        deliveries = connection.execute(sa.delete(DELIVERIES).where(DELIVERIES.c.alert_id.in_(numbers)))
        connection.execute(sa.delete(ALERTS).where(ALERTS.c.id.in_(numbers)))
    return len(numbers), deliveries.rowcount


def forget_occurrences(store: Store, before_s: float, *, limit: int = 500) -> int:
    """Deletes some of what became of due times of before a time, oldest first; gives how many."""
    old = OCCURRENCES.c.at_s < before_s
    query = sa.select(OCCURRENCES.c.id).where(old).order_by(OCCURRENCES.c.id).limit(limit)
    with store.writing() as connection:
        numbers = list(connection.execute(query).scalars())
        connection.execute(sa.delete(OCCURRENCES).where(OCCURRENCES.c.id.in_(numbers)))
    return len(numbers)


def count_old(store: Store, before_s: float) -> tuple[int, int, int]:
    """Counts alerts of before a time, their deliveries, and what became of due times before it."""
    old = ALERTS.c.at_s < before_s
    of_old = DELIVERIES.c.alert_id.in_(sa.select(ALERTS.c.id).where(old))
    counts = ((ALERTS, old), (DELIVERIES, of_old), (OCCURRENCES, OCCURRENCES.c.at_s < before_s))
    with store.reading() as connection:
        alerts, deliveries, occurrences = (
            int(
                connection.execute(
                    sa.select(sa.func.count()).select_from(table).where(which)
                ).scalar_one()
            )
            for table, which in counts
        )
    return alerts, deliveries, occurrences


def _in_use(connection: sa.Connection) -> InUse:
    live = SCHEDULES.c.is_removed.is_(False)
    schedules = connection.execute(sa.select(SCHEDULES.c.id, SCHEDULES.c.settings).where(live)).all()
    waiting = connection.execute(sa.select(JOBS.c.settings).where(JOBS.c.state.in_(_OPEN))).scalars()
    last = {
        number
        for schedule_id, _ in schedules
        for number in (
            _last(connection, schedule_id, JOBS.c.state.not_in(_OPEN)),
            _last(connection, schedule_id, JOBS.c.state.in_(_WITH_RESULT)),
        )
        if number is not None
    }
    return InUse(jobs=frozenset(last), settings=(*(settings for _, settings in schedules), *waiting))


def _last(connection: sa.Connection, schedule_id: int, which: sa.ColumnElement[bool]) -> int | None:
    query = sa.select(JOBS.c.id).where(JOBS.c.schedule_id == schedule_id, which)
    query = query.order_by(JOBS.c.changed_at_s.desc(), JOBS.c.id.desc()).limit(1)
    return connection.execute(query).scalar()
