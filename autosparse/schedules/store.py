"""Schedules as a database keeps them, and due times turned into jobs, each once."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import sqlalchemy as sa

from autosparse.errors import UsageError
from autosparse.jobs.queue import Conflict, Queue
from autosparse.jobs.records import JobOptions, JobRequest
from autosparse.jobs.rows import for_update
from autosparse.jobs.schema import JOBS, OCCURRENCES, SCHEDULES
from autosparse.jobs.states import OPEN
from autosparse.schedules.schedule import Decision, Due, Outcome, Schedule, begin, decide
from autosparse.schedules.times import check_cron
from autosparse.storage.serial import Record

log = logging.getLogger(__name__)

_PLAIN = ("id", "name", "cron", "timezone", "catch_up", "jitter_s", "next_at_s", "created_at_s")


class NoSuchSchedule(UsageError):
    """No schedule has the number or the name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Occurrence(Record):
    """What became of one due time.

    Attributes:
        schedule_id: whose it was.
        due_at_s: when it was.
        outcome: see `schedule.Due`.
        job_id: the job that was made; None for none.
        at_s: when it was decided.
    """

    schedule_id: int
    due_at_s: float
    outcome: Outcome
    job_id: int | None
    at_s: float


class Schedules:
    """The schedules in the store of a queue.

    Args:
        queue: where the jobs go.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._store = queue.store

    def add(
        self,
        request: JobRequest,
        *,
        name: str,
        cron: str,
        timezone: str,
        catch_up: Literal["once", "skip"] = "once",
        jitter_s: float = 0.0,
    ) -> Schedule:
        """Stores a schedule, which is due from now on.

        Args:
            request: the job that is made each time, checked.
            name: that no other schedule has.
            cron: see `Schedule`.
            timezone: see `Schedule`.
            catch_up: see `Schedule`.
            jitter_s: see `Schedule`.

        Raises:
            Conflict: another schedule has the name.
            UsageError: a value breaks its rule.
        """
        with self._store.writing() as connection:
            now_s = self._store.now_s(connection)
            taken = _live().where(SCHEDULES.c.name == name)
            if connection.execute(taken).first() is not None:
                raise Conflict(f"a schedule's name must be its own, but there is one named {name!r}")
            made = Schedule(
                id=0,
                name=name,
                cron=check_cron(cron),
                timezone=timezone,
                request=request,
                catch_up=catch_up,
                jitter_s=jitter_s,
                created_at_s=now_s,
            )
            start = begin(made, now_s)
            values = {
                **{key: getattr(made, key) for key in _PLAIN if key not in ("id", "next_at_s")},
                "verb": request.verb,
                "settings": dict(request.settings),
                "options": request.options.to_json(),
                "is_enabled": True,
                "is_removed": False,
                "last_due_s": start.last_due_s,
                "next_at_s": start.next_at_s,
            }
            key = connection.execute(sa.insert(SCHEDULES).values(values)).inserted_primary_key
            assert key is not None  # of a row that was just inserted
            return dataclasses.replace(made, id=int(key[0]), next_at_s=start.next_at_s)

    def all(self) -> list[Schedule]:
        """Gives all schedules, the oldest first."""
        with self._store.reading() as connection:
            rows = connection.execute(_live().order_by(SCHEDULES.c.id)).mappings()
            return [_schedule(row) for row in rows]

    def get(self, wanted: int | str) -> Schedule:
        """Gives a schedule by its number or name.

        Raises:
            NoSuchSchedule: there is none.
        """
        with self._store.reading() as connection:
            return _schedule(_found(connection, wanted, lock=False))

    def pause(self, wanted: int | str) -> Schedule:
        """Lets a schedule be due no more, until it is resumed.

        Raises:
            NoSuchSchedule: there is none.
        """
        return self._set_enabled(wanted, False)

    def resume(self, wanted: int | str) -> Schedule:
        """Lets a schedule be due again, from now on.

        Raises:
            NoSuchSchedule: there is none.
        """
        return self._set_enabled(wanted, True)

    def _set_enabled(self, wanted: int | str, is_enabled: bool) -> Schedule:
        with self._store.writing() as connection:
            row = _found(connection, wanted)
            if bool(row["is_enabled"]) == is_enabled:
                return _schedule(row)
            changed = dataclasses.replace(_schedule(row), is_enabled=is_enabled)
            start = begin(changed, self._store.now_s(connection), row["last_due_s"])
            self._go_on(connection, row["id"], start, is_enabled=is_enabled)
            return dataclasses.replace(changed, next_at_s=start.next_at_s)

    def remove(self, wanted: int | str) -> Schedule:
        """Removes a schedule; jobs that it made stay.

        Raises:
            NoSuchSchedule: there is none.
        """
        with self._store.writing() as connection:
            row = _found(connection, wanted)
            gone = {"is_removed": True, "is_enabled": False, "next_at_s": None}
            connection.execute(sa.update(SCHEDULES).where(SCHEDULES.c.id == row["id"]).values(gone))
            return _schedule({**row, **gone})

    def occurrences(self, schedule_id: int, limit: int = 50) -> list[Occurrence]:
        """Gives what became of a schedule's due times, the latest first."""
        query = sa.select(OCCURRENCES).where(OCCURRENCES.c.schedule_id == schedule_id)
        query = query.order_by(OCCURRENCES.c.due_at_s.desc()).limit(limit)
        names = [field.name for field in dataclasses.fields(Occurrence)]
        with self._store.reading() as connection:
            rows = connection.execute(query).mappings()
            return [Occurrence(**{name: row[name] for name in names}) for row in rows]

    # -------------------------------------------------------------------------------------- due times

    def make_due_jobs(self) -> list[int]:
        """Makes a job of every due time that calls for one; gives their numbers.

        Whichever daemon comes first decides about a due time, in one transaction with the job that it
        makes; so it is decided once, whenever a daemon dies and however many there are.
        """
        with self._store.reading() as connection:
            now_s = self._store.now_s(connection)
            if connection.execute(_due(now_s).limit(1)).first() is None:
                return []
        made: list[int] = []
        with self._store.writing() as connection:
            now_s = self._store.now_s(connection)
            for row in connection.execute(for_update(_due(now_s))).mappings().all():
                try:
                    made += self._decide(connection, row, now_s)
                except UsageError as error:  # a time zone that this host does not know, for one
                    log.error("schedule %s is not due while this holds: %s", row["name"], error)
        return made

    def look_again(self) -> None:
        """Finds out anew when schedules are due next, as rules of time zones change with updates."""
        with self._store.writing() as connection:
            now_s = self._store.now_s(connection)
            enabled = _live().where(SCHEDULES.c.is_enabled.is_(True), SCHEDULES.c.next_at_s > now_s)
            for row in connection.execute(for_update(enabled)).mappings().all():
                try:
                    start = begin(_schedule(row), now_s, row["last_due_s"])
                except UsageError as error:
                    log.error("schedule %s is not due while this holds: %s", row["name"], error)
                else:
                    self._go_on(connection, row["id"], start)

    def _decide(self, connection: sa.Connection, row: Mapping[Any, Any], now_s: float) -> list[int]:
        schedule = _schedule(row)
        decision = decide(schedule, now_s, row["last_due_s"], _is_running(connection, schedule.id))
        made: list[int] = []
        for due in decision.due:
            job_id = self._made(connection, schedule, due) if due.outcome == "fired" else None
            values = {
                "schedule_id": schedule.id,
                "due_at_s": due.due_at_s,
                "outcome": due.outcome,
                "job_id": job_id,
                "at_s": now_s,
            }
            connection.execute(sa.insert(OCCURRENCES).values(values))
            made += [] if job_id is None else [job_id]
        self._go_on(connection, schedule.id, decision)
        return made

    def _made(self, connection: sa.Connection, schedule: Schedule, due: Due) -> int:
        options = dataclasses.replace(schedule.request.options, not_before_s=due.not_before_s)
        request = dataclasses.replace(schedule.request, options=options)
        return self._queue.insert(connection, request, schedule_id=schedule.id, due_at_s=due.due_at_s)

    def _go_on(
        self, connection: sa.Connection, schedule_id: int, decision: Decision, **changes: Any
    ) -> None:
        values = {"last_due_s": decision.last_due_s, "next_at_s": decision.next_at_s, **changes}
        connection.execute(sa.update(SCHEDULES).where(SCHEDULES.c.id == schedule_id).values(values))


def _live() -> sa.Select[Any]:
    return sa.select(SCHEDULES).where(SCHEDULES.c.is_removed.is_(False))


def _due(now_s: float) -> sa.Select[Any]:
    is_due = (SCHEDULES.c.is_enabled.is_(True), SCHEDULES.c.next_at_s <= now_s)
    return _live().where(*is_due).order_by(SCHEDULES.c.id)


def _is_running(connection: sa.Connection, schedule_id: int) -> bool:
    still = sa.select(JOBS.c.id).where(
        JOBS.c.schedule_id == schedule_id, JOBS.c.state.in_([str(state) for state in OPEN])
    )
    return connection.execute(still.limit(1)).first() is not None


def _found(connection: sa.Connection, wanted: int | str, *, lock: bool = True) -> sa.RowMapping:
    text = str(wanted)
    is_number = text.isascii() and text.isdecimal() and len(text) < 10
    same = SCHEDULES.c.id == int(text) if is_number else SCHEDULES.c.name == text
    query = _live().where(same)
    row = connection.execute(query.with_for_update() if lock else query).mappings().first()
    if row is None:
        raise NoSuchSchedule(f"a schedule must be one of `autosparse schedule list`, but got {text!r}")
    return row


def _schedule(row: Mapping[Any, Any]) -> Schedule:
    options = JobOptions.from_json(row["options"])
    return Schedule(
        request=JobRequest(verb=row["verb"], settings=row["settings"], options=options),
        is_enabled=bool(row["is_enabled"]),
        **{name: row[name] for name in _PLAIN},
    )
