"""The API of a daemon, a method per request."""

from __future__ import annotations

import difflib
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from autosparse.client.address import Address, find_address
from autosparse.client.events import Event, read_events
from autosparse.client.exchange import TEXT, Exchange
from autosparse.client.problems import NoDaemon, NotFound, no_daemon
from autosparse.client.records import (
    Answer,
    Change,
    HowFar,
    RemoteAlert,
    RemoteJob,
    RemoteSchedule,
    RemoteWatch,
)
from autosparse.closing import Closing
from autosparse.errors import ConfigError, UsageError, got
from autosparse.storage.token import read_token, token_file

_A = TypeVar("_A", bound=Answer)
_PAGE = 200
# A daemon gives word on every stream several times as often.
_SILENT_S = 60.0


class Daemon(Closing):
    """A daemon, as its user meets it.

    Args:
        address: where it is; None is as the environment says.
        connect_s: how long it may take to reach it.
        sleep: waits between tries, seconds.

    Raises:
        ConfigError: the address or the file of the token breaks a rule.
        Unreachable: there is neither a token nor a daemon.
    """

    def __init__(
        self,
        address: Address | None = None,
        *,
        connect_s: float = 5.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        found = find_address() if address is None else address
        file = token_file()
        try:
            token = read_token(file)
        except ConfigError:
            if not file.exists():  # the first thing that is missing may be the daemon, which makes it
                with Exchange(found, "", str(file), connect_s=connect_s, sleep=sleep) as exchange:
                    exchange.reach()
            raise
        self._exchange = Exchange(found, token, str(file), connect_s=connect_s, sleep=sleep)

    @property
    def url(self) -> str:
        """Where it is."""
        return self._exchange.url

    def close(self) -> None:
        """Closes the connection."""
        self._exchange.close()

    # ---------------------------------------------------------------------------------------- jobs

    def submit(self, asked: Mapping[str, Any]) -> RemoteJob:
        """Stores a job, once, however often its answer is lost.

        Args:
            asked: verb, settings and how it is treated.

        Raises:
            AutosparseError: see `Exchange.ask`.
        """
        answer, _ = self._exchange.ask("POST", "/jobs", body=asked, key=uuid.uuid4().hex)
        return self._read(RemoteJob, answer)

    def jobs(self, states: Sequence[str] = (), *, limit: int) -> list[RemoteJob]:
        """Gives jobs, newest first.

        Args:
            states: only those in one of them; empty is all.
            limit: how many at most.
        """
        found: list[RemoteJob] = []
        while len(found) < limit:
            query: dict[str, Any] = {"limit": min(_PAGE, limit - len(found))}
            if states:
                query["state"] = list(states)
            if found:
                query["before"] = found[-1].id
            page = self._items(RemoteJob, "/jobs", query)
            found += page
            if len(page) < query["limit"] or page[-1].id >= query.get("before", page[-1].id + 1):
                break
        return found

    def job(self, number: int) -> RemoteJob:
        """Gives a job."""
        return self._read(RemoteJob, self._exchange.get(f"/jobs/{number}"))

    def changes(self, number: int) -> list[Change]:
        """Gives what happened to a job, oldest first."""
        return self._items(Change, f"/jobs/{number}/transitions")

    def result(self, number: int) -> Any:
        """Gives what the verb of a job gave as its result; None while there is none."""
        try:
            return self._exchange.get(f"/jobs/{number}/result")
        except NotFound:
            return None

    def log(self, number: int, offset: int = 0) -> tuple[bytes, int]:
        """Gives what a job said beside its result, from an offset on, and the offset to go on at."""
        content, headers = self._exchange.ask(
            "GET", f"/jobs/{number}/log", query={"offset": offset}, kind=TEXT
        )
        told = headers.get("X-Next-Offset", "")
        return content, int(told) if told.isdecimal() and len(told) < 19 else offset + len(content)

    def cancel(self, number: int) -> RemoteJob:
        """Ends a job, or asks for its end."""
        return self._read(RemoteJob, self._exchange.ask("POST", f"/jobs/{number}/cancel")[0])

    def resume(self, number: int) -> RemoteJob:
        """Puts a job in line again that ended before it was done."""
        return self._read(RemoteJob, self._exchange.ask("POST", f"/jobs/{number}/resume")[0])

    @contextmanager
    def events(self, number: int, last_id: str = "") -> Iterator[Iterator[Event]]:
        """Opens the stream of what happens to a job.

        Args:
            number: of the job.
            last_id: of the last event that was taken.
        """
        with self._exchange.stream(
            f"/jobs/{number}/events", last_id=last_id, silent_s=_SILENT_S
        ) as parts:
            yield read_events(parts)

    def read_job(self, values: Any) -> RemoteJob:
        """Reads a job that an event holds."""
        return self._read(RemoteJob, values)

    def read_progress(self, values: Any) -> HowFar:
        """Reads how far a job is, which an event holds."""
        return self._read(HowFar, values)

    # ----------------------------------------------------------------------------------- schedules

    def add_schedule(self, asked: Mapping[str, Any]) -> RemoteSchedule:
        """Makes a schedule."""
        return self._read(RemoteSchedule, self._exchange.ask("POST", "/schedules", body=asked)[0])

    def schedules(self) -> list[RemoteSchedule]:
        """Gives all schedules."""
        return self._items(RemoteSchedule, "/schedules")

    def schedule(self, named: str) -> RemoteSchedule:
        """Gives a schedule by its number or name.

        Raises:
            NotFound: there is none; names the nearest.
        """
        known = self.schedules()
        for each in known:
            if named in (str(each.id), each.name):
                return each
        names = [each.name for each in known]
        near = difflib.get_close_matches(named[:200], names, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]}?" if near else "see `autosparse schedule list`"
        raise NotFound(
            f"a schedule must be one that exists, by its number or name, but got {got(named)}; {hint}"
        )

    def pause(self, number: int) -> RemoteSchedule:
        """Lets a schedule make no more jobs."""
        return self._read(RemoteSchedule, self._exchange.ask("POST", f"/schedules/{number}/pause")[0])

    def go_on(self, number: int) -> RemoteSchedule:
        """Lets a schedule make jobs again."""
        return self._read(RemoteSchedule, self._exchange.ask("POST", f"/schedules/{number}/resume")[0])

    def remove_schedule(self, number: int) -> None:
        """Forgets a schedule; the jobs that it made stay."""
        self._exchange.ask("DELETE", f"/schedules/{number}")

    def next_times(self, number: int, count: int) -> list[str]:
        """Gives when a schedule is due next, ISO 8601."""
        answer = self._exchange.get(f"/schedules/{number}/next", {"count": count})
        times = answer.get("items") if isinstance(answer, Mapping) else None
        if not isinstance(times, list) or not all(isinstance(each, str) for each in times):
            raise no_daemon(self.url, "its answer holds no times")
        return times

    # ------------------------------------------------------------------------------------- watches

    def add_watch(self, asked: Mapping[str, Any]) -> RemoteWatch:
        """Watches an artifact."""
        return self._read(RemoteWatch, self._exchange.ask("POST", "/watches", body=asked)[0])

    def watches(self) -> list[RemoteWatch]:
        """Gives all watches."""
        return self._items(RemoteWatch, "/watches")

    def remove_watch(self, number: int) -> None:
        """Forgets a watch; its checks stay."""
        self._exchange.ask("DELETE", f"/watches/{number}")

    def alerts(self, limit: int) -> list[RemoteAlert]:
        """Gives the newest alerts."""
        return self._items(RemoteAlert, "/alerts", {"limit": limit})

    # --------------------------------------------------------------------------------------- parts

    def _read(self, kind: type[_A], values: Any) -> _A:
        try:
            return kind.of(values)
        except UsageError as error:
            raise self._not_ours(error) from None

    def _items(self, kind: type[_A], path: str, query: Mapping[str, Any] | None = None) -> list[_A]:
        answer = self._exchange.get(path, query)
        items = answer.get("items") if isinstance(answer, Mapping) else None
        if not isinstance(items, list):
            raise no_daemon(self.url, "its answer holds no list of items")
        return [self._read(kind, each) for each in items]

    def _not_ours(self, error: UsageError) -> NoDaemon:
        return no_daemon(self.url, f"its answer is another: {error}")
