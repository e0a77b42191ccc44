"""A job watched to its end, whatever becomes of the connection and of the daemon."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, Protocol

from autosparse.client.daemon import Daemon
from autosparse.client.events import Event
from autosparse.client.problems import Unreachable
from autosparse.client.records import HowFar, RemoteJob

PATIENCE_S = 600.0
"""How long nothing may answer before a job is no longer watched."""
# Waits between two attempts to hear of the job again, the first and the longest.
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 10.0


class Watcher(Protocol):
    """Who is told what becomes of a job."""

    def job(self, job: RemoteJob) -> None:
        """Takes the job as it is now."""

    def how_far(self, progress: HowFar) -> None:
        """Takes how far it is."""

    def line(self, text: str) -> None:
        """Takes a line that it said."""

    def gap(self, why: str) -> None:
        """Takes why nothing is heard of it for now; empty when something is again."""


class _Heard:
    """What was heard so far: how many events, the id of the last, and since when nothing answers."""

    def __init__(self, watcher: Watcher) -> None:
        self.watcher = watcher
        self.events = 0
        self.last_id = ""
        self.lost_at_s: float | None = None

    def answers(self) -> None:
        """Notes that the daemon answers."""
        if self.lost_at_s is not None:
            self.lost_at_s = None
            self.watcher.gap("")

    def lost(self, why: str, now_s: float) -> float:
        """Notes that it does not; gives for how long it has not by now."""
        if self.lost_at_s is None:
            self.lost_at_s = now_s
            self.watcher.gap(why)
        return now_s - self.lost_at_s


def follow(
    daemon: Daemon,
    number: int,
    watcher: Watcher,
    *,
    patience_s: float = PATIENCE_S,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> RemoteJob:
    """Watches a job until it has ended, and gives it as it is then.

    Raises:
        Unreachable: nothing answered for `patience_s`; the job is as it was.
        AutosparseError: the daemon refuses.
    """
    heard = _Heard(watcher)
    wait_s = _FIRST_WAIT_S
    while True:
        events = heard.events
        try:
            ended = _listen(daemon, number, heard) or _look(daemon, number, heard)
            if ended is not None:
                watcher.job(ended)
                return ended
        except Unreachable as error:
            if heard.lost(str(error), clock()) > patience_s:
                raise
        sleep(wait_s)
        wait_s = _FIRST_WAIT_S if heard.events > events else min(_LONGEST_WAIT_S, wait_s * 1.5)


def _look(daemon: Daemon, number: int, heard: _Heard) -> RemoteJob | None:
    """Asks for the job, where its events ended without its end; gives it if it has ended."""
    job = daemon.job(number)
    heard.answers()
    return job if job.has_ended else None


def _listen(daemon: Daemon, number: int, heard: _Heard) -> RemoteJob | None:
    """Takes events until the connection ends; gives the job if one says that it has ended."""
    with daemon.events(number, heard.last_id) as events:
        heard.answers()
        for event in events:
            heard.events += 1
            heard.last_id = event.id or heard.last_id
            ended = _take(daemon, event, heard.watcher)
            if ended is not None:
                return ended
    return None


def _take(daemon: Daemon, event: Event, watcher: Watcher) -> RemoteJob | None:
    if event.kind == "log":
        watcher.line(event.data)
    elif event.kind == "progress":
        watcher.how_far(daemon.read_progress(_parsed(event.data)))
    elif event.kind in ("state", "end"):
        job = daemon.read_job(_parsed(event.data))
        if event.kind == "end":
            return job
        watcher.job(job)
    return None


def _parsed(data: str) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None  # is refused as what it should have been
