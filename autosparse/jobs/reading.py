"""What a store of jobs holds: jobs, all that happened to them, and how many are where."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from autosparse.jobs.records import Job, Transition
from autosparse.jobs.rows import row_of, to_job, to_transition
from autosparse.jobs.schema import JOBS, TRANSITIONS
from autosparse.jobs.states import State
from autosparse.jobs.store import Store


class JobReader:
    """Looks at the jobs of a store; changes nothing.

    Args:
        store: where they are kept.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

    def get(self, job_id: int) -> Job:
        """Gives a job.

        Raises:
            NoSuchJob: no job has the number.
        """
        with self.store.reading() as connection:
            return to_job(row_of(connection, job_id))

    def many(self, numbers: Collection[int]) -> dict[int, Job]:
        """Gives those of some jobs that exist, by their numbers."""
        if not numbers:
            return {}
        query = sa.select(JOBS).where(JOBS.c.id.in_(sorted(numbers)))
        with self.store.reading() as connection:
            return {row["id"]: to_job(row) for row in connection.execute(query).mappings()}

    def jobs(
        self,
        *,
        states: Collection[State] = (),
        schedule_id: int | None = None,
        before_id: int | None = None,
        limit: int = 50,
    ) -> list[Job]:
        """Gives jobs, newest first.

        Args:
            states: only those in one of them; empty is all.
            schedule_id: only those that a schedule made.
            before_id: only those with lower numbers, to go on with a list.
            limit: how many at most.
        """
        query = sa.select(JOBS).order_by(JOBS.c.id.desc()).limit(limit)
        if states:
            query = query.where(JOBS.c.state.in_([str(state) for state in states]))
        if schedule_id is not None:
            query = query.where(JOBS.c.schedule_id == schedule_id)
        if before_id is not None:
            query = query.where(JOBS.c.id < before_id)
        with self.store.reading() as connection:
            return [to_job(row) for row in connection.execute(query).mappings()]

    def transitions(self, job_id: int) -> list[Transition]:
        """Gives all that happened to a job, oldest first.

        Raises:
            NoSuchJob: no job has the number.
        """
        query = sa.select(TRANSITIONS).where(TRANSITIONS.c.job_id == job_id).order_by(TRANSITIONS.c.id)
        with self.store.reading() as connection:
            row_of(connection, job_id)
            return [to_transition(row) for row in connection.execute(query).mappings()]

    def transitions_since(self, number: int, limit: int = 1000) -> list[tuple[int, Transition]]:
        """Gives what happened to any job after a transition, oldest first, with numbers."""
        query = sa.select(TRANSITIONS).where(TRANSITIONS.c.id > number)
        query = query.order_by(TRANSITIONS.c.id).limit(limit)
        with self.store.reading() as connection:
            rows = connection.execute(query).mappings()
            return [(int(row["id"]), to_transition(row)) for row in rows]

    def last_transition(self) -> int:
        """Gives the number of the newest transition; 0 if there is none."""
        with self.store.reading() as connection:
            return int(connection.execute(sa.select(sa.func.max(TRANSITIONS.c.id))).scalar() or 0)

    def depths(self) -> dict[State, int]:
        """Gives how many jobs are in each state."""
        query = sa.select(JOBS.c.state, sa.func.count()).group_by(JOBS.c.state)
        with self.store.reading() as connection:
            found = {State(state): int(count) for state, count in connection.execute(query)}
        return {state: found.get(state, 0) for state in State}

    def running_of(self, daemon: str) -> int:
        """Gives how many jobs run at a daemon."""
        own = (JOBS.c.state == str(State.RUNNING), JOBS.c.owner == daemon)
        with self.store.reading() as connection:
            query = sa.select(sa.func.count()).select_from(JOBS).where(*own)
            return int(connection.execute(query).scalar_one())

    def longest_wait_s(self) -> float:
        """Gives how long the oldest of the jobs has waited that may begin; 0 if there is none."""
        ready, changed = JOBS.c.ready_at_s, JOBS.c.changed_at_s
        since = sa.func.min(sa.case((ready > changed, ready), else_=changed))
        with self.store.reading() as connection:
            now_s = self.store.now_s(connection)
            waits = (JOBS.c.state == str(State.WAITING), ready <= now_s)
            found = connection.execute(sa.select(since).where(*waits)).scalar()
            return 0.0 if found is None else max(0.0, now_s - float(found))
