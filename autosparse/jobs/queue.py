"""The queue: jobs put in, claimed, kept, given back and ended, each step one transaction.

A job that runs has an owner, a number of its attempt, and a lease. Whoever changes it says which owner
and attempt it means; if the job has meanwhile been given to somebody else, nothing is changed, and the
caller is told by `Lost`. So an end is recorded once, whatever a daemon believes that was silent long.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa

from autosparse.errors import AutosparseError, UsageError
from autosparse.jobs.reading import JobReader
from autosparse.jobs.records import Job, JobRequest, Snapshot
from autosparse.jobs.rows import (
    by_key,
    for_update,
    locked,
    mine,
    note,
    row_of,
    to_job,
)
from autosparse.jobs.schema import JOBS
from autosparse.jobs.states import NEXT, OPEN, State
from autosparse.jobs.store import Store
from autosparse.storage.serial import short_hash

LEASE_S = 30.0
"""How long an owner counts as alive without a word of it."""

_NOWHERE: Mapping[str, Collection[str]] = MappingProxyType({})
_BEGUN: dict[str, Any] = {"message": "", "is_cancelling": False, "exit_code": None, "outcome": None}

Then = Callable[[sa.Connection, Job], None]
"""What is done in the same transaction as a change of a job, with the job as it is after it."""


class Conflict(UsageError):
    """What was asked for does not fit the state that something is in."""


class Lost(AutosparseError):
    """A job is no longer its former owner's."""


class Queue(JobReader):
    """The jobs of a store, and all that changes them.

    Args:
        store: where they are kept.
        lease_s: how long an owner counts as alive without a word of it.
    """

    def __init__(self, store: Store, *, lease_s: float = LEASE_S) -> None:
        super().__init__(store)
        self.lease_s = lease_s

    # ------------------------------------------------------------------------------------- asking

    def submit(self, request: JobRequest, *, key: str = "", key_hash: str = "") -> tuple[Job, bool]:
        """Stores a job.

        Args:
            request: what is asked, checked.
            key: of the submitter's own, so that asking again because an answer was lost makes no second
                job; empty is none.
            key_hash: of what the key stands for; empty is the request's own.

        Returns:
            The job, and whether it is new.

        Raises:
            Conflict: the key belongs to another request.
            DatabaseError: it cannot be stored.
        """
        asked = key_hash or short_hash(request.to_json(), 32)
        with self.store.writing() as connection:
            if key and (found := _keyed(connection, key, asked)):
                return found, False
            try:
                with connection.begin_nested():
                    number = self.insert(connection, request, key=key, request_hash=asked)
            except sa.exc.IntegrityError:  # the same key at the same instant, by another connection
                pass
            else:
                return to_job(row_of(connection, number)), True
        return self.submit(request, key=key, key_hash=key_hash)

    def submitted(self, key: str, key_hash: str) -> Job | None:
        """Gives the job that was submitted under a key; None if there is none.

        Raises:
            Conflict: the key stands for something else.
        """
        with self.store.reading() as connection:
            return _keyed(connection, key, key_hash)

    def insert(
        self,
        connection: sa.Connection,
        request: JobRequest,
        *,
        key: str = "",
        request_hash: str = "",
        schedule_id: int | None = None,
        due_at_s: float | None = None,
    ) -> int:
        """Stores a job within a transaction of the caller's; gives its number."""
        now_s = self.store.now_s(connection)
        options = request.options
        values = {
            "verb": request.verb,
            "settings": dict(request.settings),
            "options": options.to_json(),
            "priority": options.priority,
            "hardware_id": options.hardware_id,
            "state": State.SUBMITTED,
            "submitted_at_s": now_s,
            "changed_at_s": now_s,
            "ready_at_s": options.not_before_s or 0.0,
            "attempt": 0,
            "failures": 0,
            "owner": "",
            "ran_s": 0.0,
            **_BEGUN,
            "run": "",
            "schedule_id": schedule_id,
            "due_at_s": due_at_s,
            "request_key": key or None,
            "request_hash": request_hash,
        }
        number = connection.execute(sa.insert(JOBS).values(values)).inserted_primary_key
        assert number is not None  # of a row that was just inserted
        note(connection, int(number[0]), now_s, None, State.SUBMITTED)
        return int(number[0])

    def cancel(self, job_id: int) -> Job:
        """Ends a job that waits, and asks the owner of one that runs to end it.

        Raises:
            NoSuchJob: no job has the number.
            Conflict: it has ended.
        """
        with self.store.writing() as connection:
            row = locked(connection, job_id)
            state = State(row["state"])
            if state not in OPEN:
                raise Conflict(
                    f"a job must not have ended to be cancelled, but job {job_id} is {state}"
                )
            if state == State.RUNNING:
                connection.execute(
                    sa.update(JOBS).where(JOBS.c.id == job_id).values(is_cancelling=True)
                )
            else:
                self._move(connection, row, State.CANCELLED, reason="on request")
            return to_job(row_of(connection, job_id))

    def resume(self, job_id: int) -> Job:
        """Puts a job in line again that was stopped, cancelled or failed; it goes on from its run.

        Raises:
            NoSuchJob: no job has the number.
            Conflict: it has not ended, or is done.
        """
        with self.store.writing() as connection:
            row = locked(connection, job_id)
            state = State(row["state"])
            if state in OPEN or State.WAITING not in NEXT[state]:
                raise Conflict(
                    f"a job must be stopped, failed or cancelled to be resumed, but job {job_id} is "
                    f"{state}"
                )
            again: dict[str, Any] = {**_BEGUN, "failures": 0, "ready_at_s": 0.0, "ran_s": 0.0}
            self._move(connection, row, State.WAITING, reason="resumed on request", **again)
            return to_job(row_of(connection, job_id))

    # ------------------------------------------------------------------------------------- working

    def admit(self, daemon: str) -> list[int]:
        """Puts all jobs in line that were submitted; gives their numbers."""
        query = for_update(sa.select(JOBS).where(JOBS.c.state == str(State.SUBMITTED)))
        with self.store.writing() as connection:
            rows = connection.execute(query.order_by(JOBS.c.id)).mappings().all()
            for row in rows:
                self._move(connection, row, State.WAITING, daemon=daemon)
            return [int(row["id"]) for row in rows]

    def has_work(
        self, hardware_ids: Collection[str], elsewhere: Mapping[str, Collection[str]] = _NOWHERE
    ) -> bool:
        """Tells whether a job was submitted, or may begin as `claim` has it; only looks."""
        with self.store.reading() as connection:
            waits = sa.and_(*self._in_line(connection, hardware_ids, elsewhere))
            submitted = JOBS.c.state == str(State.SUBMITTED)
            query = sa.select(JOBS.c.id).where(sa.or_(submitted, waits)).limit(1)
            return connection.execute(query).first() is not None

    def _in_line(
        self,
        connection: sa.Connection,
        hardware_ids: Collection[str],
        elsewhere: Mapping[str, Collection[str]],
    ) -> tuple[sa.ColumnElement[bool], ...]:
        reached = (
            sa.and_(JOBS.c.verb == verb, JOBS.c.hardware_id.in_(list(ids)))
            for verb, ids in elsewhere.items()
        )
        return (
            JOBS.c.state == str(State.WAITING),
            JOBS.c.ready_at_s <= self.store.now_s(connection),
            sa.or_(JOBS.c.hardware_id.in_(["", *hardware_ids]), *reached),
        )

    def claim(
        self,
        daemon: str,
        hardware_ids: Collection[str],
        elsewhere: Mapping[str, Collection[str]] = _NOWHERE,
    ) -> Job | None:
        """Takes the first job in line that may begin; None if there is none.

        Args:
            daemon: who takes it.
            hardware_ids: what the daemon's own host is.
            elsewhere: verb to the hardware that jobs of it can be measured on beside that.
        """
        with self.store.writing() as connection:
            now_s = self.store.now_s(connection)
            query = sa.select(JOBS).where(*self._in_line(connection, hardware_ids, elsewhere))
            query = query.order_by(JOBS.c.priority.desc(), JOBS.c.id).limit(1)
            row = connection.execute(for_update(query)).mappings().first()
            if row is None:
                return None
            self._move(
                connection,
                row,
                State.RUNNING,
                daemon=daemon,
                owner=daemon,
                attempt=row["attempt"] + 1,
                lease_until_s=now_s + self.lease_s,
                snapshot=None,
                **_BEGUN,
            )
            return to_job(row_of(connection, row["id"]))

    def renew(self, daemon: str, kept: Mapping[int, tuple[int, Snapshot | None]]) -> dict[int, bool]:
        """Renews the leases of jobs, and says of each whether its cancellation was asked for.

        Args:
            daemon: their owner.
            kept: number of a job to its attempt and how far it is.

        Returns:
            Number to whether it shall be cancelled, of those that are still the owner's.
        """
        if not kept:
            return {}
        found: dict[int, bool] = {}
        with self.store.writing() as connection:
            now_s = self.store.now_s(connection)
            for number, (attempt, snapshot) in sorted(kept.items()):
                changes: dict[str, Any] = {"lease_until_s": now_s + self.lease_s}
                if snapshot is not None:
                    changes["snapshot"] = snapshot.to_json()
                own = mine(number, daemon, attempt)
                changed = connection.execute(
                    sa.update(JOBS).where(*own).values(changes).returning(JOBS.c.is_cancelling)
                )
                asked = changed.scalar()
                if asked is not None:
                    found[number] = bool(asked)
        return found

    def name_run(self, job: Job, run: str) -> None:
        """Notes the run that a job works on."""
        with self.store.writing() as connection:
            own = mine(job.id, job.owner, job.attempt)
            connection.execute(sa.update(JOBS).where(*own).values(run=run))

    def end(
        self,
        job: Job,
        state: State,
        *,
        exit_code: int | None = None,
        message: str = "",
        run: str = "",
        ran_s: float = 0.0,
        reason: str = "",
        then: Then | None = None,
    ) -> Job:
        """Records how a job ended.

        Args:
            job: as its owner claimed it.
            state: what it becomes.
            exit_code: of its process.
            message: what it said last.
            run: name of its run's folder.
            ran_s: time that this attempt took.
            reason: for the transition.
            then: is done with it: both happen, or none of the two.

        Raises:
            Lost: it is no longer its owner's.
        """
        changes: dict[str, Any] = {"exit_code": exit_code, "message": message, "lease_until_s": None}
        if run:
            changes["run"] = run
        return self._leave(job, state, reason, ran_s, changes, then=then)

    def put_back(
        self, job: Job, *, reason: str, wait_s: float = 0.0, is_failure: bool, ran_s: float = 0.0
    ) -> Job:
        """Puts a job that runs in line again.

        Args:
            job: as its owner claimed it.
            reason: why.
            wait_s: how long it shall wait at least.
            is_failure: whether this counts as one of its retries.
            ran_s: time that this attempt took.

        Raises:
            Lost: it is no longer its owner's.
        """
        changes = {
            "failures": job.failures + is_failure,
            "message": reason,
            "lease_until_s": None,
        }
        return self._leave(job, State.WAITING, reason, ran_s, changes, wait_s)

    def _leave(
        self,
        job: Job,
        state: State,
        reason: str,
        ran_s: float,
        changes: dict[str, Any],
        wait_s: float | None = None,
        then: Then | None = None,
    ) -> Job:
        with self.store.writing() as connection:
            row = locked(connection, job.id)
            if (row["state"], row["owner"], row["attempt"]) != (State.RUNNING, job.owner, job.attempt):
                raise Lost(
                    f"job {job.id} is no longer {job.owner}'s: its attempt {job.attempt} is over"
                )
            if wait_s is not None:
                changes["ready_at_s"] = self.store.now_s(connection) + wait_s
            changes |= {"ran_s": row["ran_s"] + ran_s, "is_cancelling": False}
            self._move(connection, row, state, reason=reason, daemon=job.owner, **changes)
            if then is not None:
                then(connection, to_job(row_of(connection, job.id)))
            return to_job(row_of(connection, job.id))

    def take_from(self, gone: Iterable[str], daemon: str) -> list[int]:
        """Puts the jobs in line again whose owner is gone, or was silent for longer than its lease.

        Args:
            gone: owners that are known to be gone.
            daemon: who says so.

        Returns:
            Their numbers.
        """
        with self.store.writing() as connection:
            now_s = self.store.now_s(connection)
            query = sa.select(JOBS).where(
                JOBS.c.state == str(State.RUNNING),
                sa.or_(JOBS.c.owner.in_(list(gone)), JOBS.c.lease_until_s < now_s),
            )
            rows = connection.execute(for_update(query)).mappings().all()
            for row in rows:
                why = "its daemon is gone" if row["lease_until_s"] >= now_s else "its daemon is silent"
                to = State.CANCELLED if row["is_cancelling"] else State.WAITING
                changes = {"lease_until_s": None, "is_cancelling": False, "message": why}
                self._move(connection, row, to, reason=why, daemon=daemon, **changes)
            return [int(row["id"]) for row in rows]

    def _move(
        self,
        connection: sa.Connection,
        row: Mapping[Any, Any],
        after: State,
        *,
        reason: str = "",
        daemon: str = "",
        **changes: Any,
    ) -> None:
        """Changes the state of a row that this transaction has locked, and notes it."""
        before = State(row["state"])
        assert after in NEXT[before], f"{before} -> {after}"
        now_s = self.store.now_s(connection)
        changes |= {"state": str(after), "changed_at_s": now_s}
        connection.execute(sa.update(JOBS).where(JOBS.c.id == row["id"]).values(changes))
        attempt = changes.get("attempt", row["attempt"])
        note(connection, row["id"], now_s, before, after, attempt, daemon, reason)


def _keyed(connection: sa.Connection, key: str, key_hash: str) -> Job | None:
    """Gives the job of an idempotency key.

    Raises:
        Conflict: the key stands for something else.
    """
    found = by_key(connection, key)
    if found is not None and found["request_hash"] != key_hash:
        raise Conflict(
            f"an idempotency key must stand for one request, but {key!r} is that of job "
            f"{found['id']}, which asks for something else; take another key"
        )
    return None if found is None else to_job(found)
