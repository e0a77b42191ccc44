"""Server-sent events: one look at the database and the files in turn, however many listen.

A look is taken twice a second while anybody listens. What it finds is kept here for all; a listener
only remembers how far it has heard. So one that is slow misses states in between but never the last
one, and one that is gone leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import ParamSpec, TypeVar

import anyio
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from autosparse.daemon.place import LOG, size_of
from autosparse.daemon.service import Service
from autosparse.errors import DatabaseError
from autosparse.jobs.records import Job, Snapshot, Transition
from autosparse.web.changes import Changes
from autosparse.web.job_files import JobFiles, Line, lines_from, tail_begin
from autosparse.web.shapes import JobShape, JobTransitionShape, ProgressShape, Shape

log = logging.getLogger(__name__)

LOOK_S = 0.5
_AWAY_S = 5.0
_KEPT_LINES = 500
_KEPT_TRANSITIONS = 2000
_TAIL_BYTES = 2**14
_AGAIN_MS = 2000
WORD_S = 15.0
"""How long a stream is silent at most, so that whoever is between does not take it for dead."""
_WORD = KEEPALIVE_COMMENT
P = ParamSpec("P")
T = TypeVar("T")


class _Kept:
    """Something that listeners wait for to change."""

    def __init__(self) -> None:
        self.listeners = 0
        self.revision = 0
        self._event = asyncio.Event()

    def tell(self) -> None:
        """Wakes all who wait."""
        self.revision += 1
        self._event.set()
        self._event = asyncio.Event()

    async def changed(self, seen: int) -> bool:
        """Waits until the revision is another one; false if that takes so long that a word is due."""
        if self.revision == seen:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._event.wait(), WORD_S)
        return self.revision != seen


class _Feed(_Kept):
    """What is known of a job that somebody listens to."""

    def __init__(self, job_id: int, files: JobFiles) -> None:
        super().__init__()
        self.job_id = job_id
        self.files = files
        self.job: Job | None = None
        self.is_gone = False
        self.progress: Snapshot | None = None
        self.lines: deque[Line] = deque(maxlen=_KEPT_LINES)
        self.log_end = 0

    @property
    def log_begin(self) -> int:
        """Where the lines that are kept begin."""
        return self.lines[0].begin if self.lines else self.log_end


class _Newest(_Kept):
    """The newest transitions of all jobs."""

    def __init__(self) -> None:
        super().__init__()
        self.changes: Changes | None = None
        self.heard: deque[tuple[int, Transition]] = deque(maxlen=_KEPT_TRANSITIONS)
        self.count = 0  # of all that were ever put into `heard`

    def since(self, position: int) -> list[tuple[int, Transition]]:
        """Gives those that were put in after so many others."""
        return list(self.heard)[max(0, len(self.heard) - (self.count - position)) :]


@dataclass(slots=True)
class _Found:
    """What one look found."""

    transitions: list[tuple[int, Transition]] = field(default_factory=list)
    jobs: dict[int, Job] = field(default_factory=dict)
    progress: dict[int, Snapshot | None] = field(default_factory=dict)
    lines: dict[int, list[Line] | None] = field(default_factory=dict)


_K = TypeVar("_K", bound=_Kept)


class Streams:
    """All streams of an application. Everything but `end` is for its event loop alone.

    Args:
        service: of the daemon.
        look_s: how often is looked.
    """

    def __init__(self, service: Service, *, look_s: float = LOOK_S) -> None:
        self._service = service
        self._look_s = look_s
        self._feeds: dict[int, _Feed] = {}
        self._newest = _Newest()
        self._looking: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._hurry = asyncio.Event()
        self._has_ended = False

    # --------------------------------------------------------------------------------- listening

    async def of_job(self, job_id: int, offset: int | None) -> AsyncGenerator[bytes]:
        """Gives what becomes of a job: its state, its progress and its log, until it has ended.

        Args:
            job_id: number of a job that exists.
            offset: where in the log to begin, in bytes; None is shortly before its end.
        """
        with self._listening(self._feed(job_id)) as feed:
            heard = await self._in_thread(self._log_begin, job_id, offset)
            state: Job | None = None
            progress: Snapshot | None = None
            yield format_sse_event(comment="what becomes of the job", retry=_AGAIN_MS)
            while not self._has_ended and not feed.is_gone:
                seen, job, newest = feed.revision, feed.job, feed.progress
                if job is not None:
                    if _told(job) != state:
                        state = _told(job)
                        yield _of_job("state", job, newest, heard)
                    if newest is not None and newest != progress:
                        progress = newest
                        yield _event("progress", ProgressShape.of(newest), heard)
                    async for line in self._lines(feed, heard):
                        heard = line.end
                        yield format_sse_event(event="log", data_str=line.text, id=str(heard))
                    if not job.is_open and feed.revision == seen:
                        yield _of_job("end", job, newest, heard)
                        return
                if not await feed.changed(seen):
                    yield _WORD

    def _log_begin(self, job_id: int, offset: int | None) -> int:
        folder = self._service.folder(job_id)
        if offset is None:
            return tail_begin(folder, _TAIL_BYTES)
        return min(offset, size_of(folder / LOG))

    async def _lines(self, feed: _Feed, begin: int) -> AsyncIterator[Line]:
        """Gives the lines of a log from an offset on: of the file, as far as they are not kept."""
        folder = self._service.folder(feed.job_id)
        while begin < feed.log_begin:
            older = await self._in_thread(lines_from, folder, begin, feed.log_begin)
            if not older:
                break
            for line in older:
                yield line
            begin = older[-1].end
        for line in list(feed.lines):
            if line.end > begin:
                yield line

    async def of_all(self, after: int | None) -> AsyncGenerator[bytes]:
        """Gives the transitions of all jobs as they happen.

        Args:
            after: number of the transition after which to begin; None is the newest.
        """
        with self._listening(self._newest) as newest:
            yield format_sse_event(comment="what becomes of all jobs", retry=_AGAIN_MS)
            while newest.changes is None and not self._has_ended:
                await newest.changed(newest.revision)
            if newest.changes is None:
                return
            heard = newest.changes.settled if after is None else after
            position = newest.count if after is None else -1
            known: set[int] = set()
            while not self._has_ended:
                seen = newest.revision
                if position < newest.count - len(newest.heard):  # more than is kept: of the database
                    position = newest.count
                    async for number, transition in self._since(heard):
                        heard = number
                        known.add(number)
                        yield _transition(number, transition)
                fresh, position = newest.since(position), newest.count
                for number, transition in fresh:
                    if number not in known:
                        # What is not settled may be followed by a lower number: it is then told again.
                        heard = min(number, newest.changes.settled)
                        yield _transition(heard, transition)
                known = {number for number in known if number > newest.changes.settled}
                if not await newest.changed(seen):
                    yield _WORD

    async def _since(self, number: int) -> AsyncIterator[tuple[int, Transition]]:
        while page := await self._in_thread(self._service.queue.transitions_since, number, 500):
            for each in page:
                yield each
            number = page[-1][0]

    def _feed(self, job_id: int) -> _Feed:
        if job_id not in self._feeds:
            files = JobFiles(self._service.folder(job_id), self._service.daemon_id)
            self._feeds[job_id] = _Feed(job_id, files)
        return self._feeds[job_id]

    @contextmanager
    def _listening(self, kept: _K) -> Iterator[_K]:
        kept.listeners += 1
        self._hurry.set()
        self._start()
        try:
            # The database may go while a listener reads: it comes back and goes on where it was.
            with suppress(DatabaseError):
                yield kept
        finally:
            kept.listeners -= 1
            if not kept.listeners and isinstance(kept, _Feed):
                self._feeds.pop(kept.job_id, None)
            elif not kept.listeners:
                self._newest = _Newest()

    async def _in_thread(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await anyio.to_thread.run_sync(lambda: work(*args, **kwargs))

    # ----------------------------------------------------------------------------------- looking

    def _start(self) -> None:
        if not self._has_ended and (self._looking is None or self._looking.done()):
            self._loop = asyncio.get_running_loop()
            self._looking = self._loop.create_task(self._look_on())

    async def _look_on(self) -> None:
        limiter = anyio.CapacityLimiter(1)  # of its own: requests that take long do not delay it
        while self._feeds or self._newest.listeners:
            self._hurry.clear()
            feeds, newest = dict(self._feeds), self._newest
            wait_s = self._look_s
            # The border of the task: whatever happens in one look, listeners wait for the next one.
            try:
                found = await anyio.to_thread.run_sync(self._look, feeds, newest, limiter=limiter)
                self._tell(feeds, newest, found)
            except DatabaseError as error:
                log.warning("streams wait: %s", error)
                wait_s = _AWAY_S
            except Exception:
                log.exception("streams wait")
                wait_s = _AWAY_S
            with suppress(TimeoutError):
                await asyncio.wait_for(self._hurry.wait(), wait_s)

    def _look(self, feeds: dict[int, _Feed], newest: _Newest) -> _Found:
        """Looks at everything once; runs in a thread."""
        found, queue = _Found(), self._service.queue
        if newest.listeners:
            if newest.changes is None:
                newest.changes = Changes(queue, queue.last_transition())
            found.transitions = newest.changes.new()
        found.jobs = queue.many(feeds)
        for number, job in found.jobs.items():
            files = feeds[number].files
            found.lines[number] = files.lines(job)
            found.progress[number] = files.progress(job)
        return found

    def _tell(self, feeds: dict[int, _Feed], newest: _Newest, found: _Found) -> None:
        """Keeps what was found, and wakes those for whom something is new."""
        if found.transitions or (newest.changes is not None and not newest.revision):
            newest.heard.extend(found.transitions)
            newest.count += len(found.transitions)
            newest.tell()
        for number, feed in feeds.items():
            job, progress = found.jobs.get(number), found.progress.get(number)
            lines = found.lines.get(number, [])
            is_new = (feed.job, feed.progress, feed.is_gone) != (job, progress, job is None)
            feed.job, feed.progress, feed.is_gone = job, progress, job is None
            if lines is None:  # listeners read the file as far as nothing is kept
                feed.lines.clear()
            feed.lines.extend(lines or [])
            feed.log_end = feed.files.log_end
            if is_new or lines is None or lines:
                feed.tell()

    # ------------------------------------------------------------------------------------ ending

    def end(self) -> None:
        """Ends all streams; may be called from any thread. Clients come back to the next daemon."""
        self._has_ended = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        for kept in (*self._feeds.values(), self._newest):
            kept.tell()
        self._hurry.set()


def _told(job: Job) -> Job:
    """Gives a job without what changes all the time."""
    return replace(job, snapshot=None, lease_until_s=None)


def _of_job(event: str, job: Job, progress: Snapshot | None, heard: int) -> bytes:
    return _event(event, JobShape.of(replace(job, snapshot=progress)), heard)


def _transition(number: int, transition: Transition) -> bytes:
    return _event("transition", JobTransitionShape.of(transition), number)


def _event(name: str, shape: Shape, number: int) -> bytes:
    return format_sse_event(event=name, data_str=shape.model_dump_json(), id=str(number))


class EventStream(StreamingResponse):
    """An answer that goes on.

    FastAPI's own kind fails where a client hangs up while something is on its way.

    Args:
        events: from `Streams`, as they are sent.
    """

    media_type = "text/event-stream"

    def __init__(self, events: AsyncGenerator[bytes]) -> None:
        super().__init__(events, headers={"X-Accel-Buffering": "no"})  # else proxies may keep it back
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends events until they end or the client is gone."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._events.aclose()
