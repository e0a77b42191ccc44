"""Jobs claimed, watched, renewed and ended: the part of a daemon that works.

Everything that is known of a job lies in the database, its folder, or its run's folder; what a
supervisor holds beside that is processes, which end when it ends. So it may be killed at any moment.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import selectors
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from autosparse.closing import Closing
from autosparse.daemon import backoff
from autosparse.daemon.alerts import meaning
from autosparse.daemon.earlier import earlier_job, earlier_run
from autosparse.daemon.job_process import PROGRAM, JobProcess
from autosparse.daemon.left import Spent
from autosparse.daemon.place import (
    Follower,
    ended,
    folder_of,
    is_locked,
    last_words,
    size_of,
)
from autosparse.daemon.results import telling_result
from autosparse.errors import AutosparseError, DatabaseError, ExitCode
from autosparse.jobs import daemons
from autosparse.jobs.alerts import Alerts
from autosparse.jobs.queue import Lost, Queue
from autosparse.jobs.records import Daemon, Job, Snapshot
from autosparse.jobs.states import State, state_of
from autosparse.jobs.verbs import VERBS, Place, verb_named
from autosparse.run_folders.listing import find_of_job
from autosparse.run_folders.state import FINISHED, read_state
from autosparse.searching.cluster import HARDWARE
from autosparse.storage.for_job import EVENTS

log = logging.getLogger(__name__)

_TICK_S = 1.0
# Of the lease: how often it is renewed, and how long a job's process may hear nothing before it ends.
_RENEWED = 1 / 6
_SILENT = 2 / 3
# Clocks of two machines, and the second that a run's name is cut to.
_MARGIN = timedelta(minutes=5)


@dataclass(slots=True)
class _Running:
    """A job of this daemon's and its process."""

    job: Job
    process: JobProcess
    follower: Follower
    folder: Path
    is_cancelling: bool = False
    is_late: bool = False
    run: str = field(default="")


class Supervisor(Closing):
    """Works on the jobs of a queue, so many at a time.

    Args:
        queue: where the jobs are.
        daemon: who works on them.
        place: where they work.
        slots: how many run at a time.
        program: what their command lines are run by.
        job_cores: processors that they may use; empty is all of this process.
        elsewhere: gives the hardware that can be measured on through the cluster.
        retry_s: how long a job waits after its process died for the first time.
        tick_s: how often is looked for what other processes have written.
    """

    def __init__(
        self,
        queue: Queue,
        daemon: Daemon,
        place: Place,
        *,
        slots: int = 2,
        program: Sequence[str] = PROGRAM,
        job_cores: Sequence[int] = (),
        elsewhere: Callable[[], Collection[str]] = tuple,
        retry_s: float = backoff.FIRST_S,
        tick_s: float = _TICK_S,
    ) -> None:
        self.queue = queue
        self.daemon = daemon
        self.place = place
        self.slots = slots
        self._program = tuple(program)
        self._job_cores = tuple(job_cores)
        self._elsewhere = elsewhere
        self._retry_s = retry_s
        self._tick_s = tick_s
        self._alerts = Alerts(queue.store)
        self._running: dict[int, _Running] = {}
        self._renewed_s = 0.0
        self._beside: list[Callable[[], object]] = []
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._woken, False)
        os.set_blocking(self._wake, False)
        self._selector.register(self._woken, selectors.EVENT_READ)

    def beside(self, work: Callable[[], object]) -> None:
        """Has something done once in every round, such as turning due times into jobs."""
        self._beside.append(work)

    def run(self, stop: threading.Event) -> None:
        """Works until it is told to stop; then stops its jobs, which go on when a daemon takes them."""
        daemons.give_word(self.queue.store, self.daemon)
        while not stop.is_set():
            try:
                self.round()
            except DatabaseError as error:  # it may come back; leases say whose the jobs are meanwhile
                log.error("%s", error)
                self._give_word_while_silent()
            self._sleep()
        self._drain()
        daemons.leave(self.queue.store, self.daemon)

    def wake(self) -> None:
        """Begins the next round at once; may be called from any thread."""
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake, b".")

    @property
    def running(self) -> tuple[int, ...]:
        """Numbers of the jobs that run here."""
        return tuple(self._running)

    def round(self) -> None:
        """Does once all that is to be done."""
        self._renew()
        for work in self._beside:
            work()
        self._watch()
        here, elsewhere = [self.daemon.hardware_id], self._elsewhere()
        reached = {verb.name: elsewhere for verb in VERBS.values() if verb.takes_host and elsewhere}
        if not self.queue.has_work(here, reached):  # so that nothing is written while nothing is
            return
        self.queue.admit(self.daemon.id)
        while len(self._running) < self.slots:
            job = self.queue.claim(self.daemon.id, here, reached)
            if job is None:
                break
            self._begin(job)

    def close(self) -> None:
        """Ends all processes at once. Closing twice is fine."""
        for each in list(self._running.values()):
            self._forget(each)
        if self._woken >= 0:
            self._selector.close()
            os.close(self._woken)
            os.close(self._wake)
            self._woken = self._wake = -1

    def _sleep(self) -> None:
        self._selector.select(self._tick_s)
        with contextlib.suppress(BlockingIOError):
            os.read(self._woken, 4096)

    def _take_from_the_gone(self) -> None:
        gone = daemons.gone(self.queue.store)
        for number in self.queue.take_from(gone, self.daemon.id):
            log.warning("job %d is in line again: its daemon is gone", number)
        daemons.forget(self.queue.store, gone)

    # -------------------------------------------------------------------------------------- beginning

    def _begin(self, job: Job) -> None:
        """Begins a job's process; or records its end, if an earlier attempt came that far."""
        folder = folder_of(self.place.results, job.id)
        if is_locked(folder):
            # Of an attempt whose daemon is gone: it has heard so, and is about to end.
            self._put_back(job, "its former process is ending", wait_s=2.0)
            return
        try:
            verb = verb_named(job.request.verb)
            # A search over several hosts has a run for each, and skips by itself those it has finished.
            has_one_run = verb.makes_run and not job.request.settings.get("hosts")
            if has_one_run and (finished := self._finished_run(job)):
                self._end(job, *finished)
                return
            folder.mkdir(parents=True, exist_ok=True)
            arguments = verb.command(self._placed(job), folder, self.place)
            process = JobProcess(
                arguments,
                folder,
                silent_s=self.queue.lease_s * _SILENT,
                program=self._program,
                cores=self._job_cores,
            )
        except OSError as error:
            self._put_back(job, f"its folder must be writable, but: {error}", is_failure=True)
            return
        except AutosparseError as error:
            self._end(job, State.FAILED, error.exit_code, str(error), "")
            return
        except Exception as error:  # what one job holds must not end the work on all others
            log.exception("job %d cannot begin", job.id)
            told = f"internal error: {type(error).__name__}: {error}"
            self._end(job, State.FAILED, ExitCode.INTERNAL, told, "")
            return
        follower = Follower(
            folder / EVENTS,
            size_of(folder / EVENTS),
            names_run=verb.makes_run,
            earlier=functools.partial(self._earlier, job),
        )
        self._running[job.id] = _Running(job=job, process=process, follower=follower, folder=folder)
        self._selector.register(process.handle or -1, selectors.EVENT_READ)
        log.info("job %d, attempt %d, is process %d", job.id, job.attempt, process.pid)

    def _placed(self, job: Job) -> Mapping[str, Any]:
        """Gives a job's settings, with the node to measure on where that is not this host."""
        wanted, settings = job.request.options.hardware_id, job.request.settings
        if wanted in ("", self.daemon.hardware_id) or "host" in settings:
            return settings
        return {**settings, "host": f"{HARDWARE}{wanted}"}

    def _earlier(self, job: Job, run: str) -> Spent | None:
        """Gives where the time of an earlier job like this one went, which makes a run or does not."""
        if run:
            return earlier_run(self.place.results, run, job.request.verb)
        return earlier_job(self.place.results, self.queue, job)

    def _finished_run(self, job: Job) -> tuple[State, int | None, str, str] | None:
        """Gives how the job's run ended, if an earlier attempt finished it and could not say so."""
        if job.attempt == 1:
            return None
        asked = datetime.fromtimestamp(job.submitted_at_s, UTC) - _MARGIN
        path = find_of_job(self.place.results, str(job.id), f"{asked:%Y%m%dT%H%M%SZ}")
        if path is None:
            return None
        state = read_state(path)
        if state.status not in FINISHED:
            return None
        return state_of(state.exit_code or 0), state.exit_code, state.message, path.name

    # --------------------------------------------------------------------------------------- watching

    def _watch(self) -> None:
        """Ends the jobs whose process has ended, and asks those to stop that took too long."""
        for each in list(self._running.values()):
            code = each.process.exit_code()
            if code is not None:
                each.follower.follow()
                self._forget(each)
                self._settle(each, code)
                continue
            limit_s = each.job.request.options.time_limit_s
            if limit_s is not None and each.job.ran_s + each.process.ran_s > limit_s:
                each.is_late = True
            if each.is_late or each.is_cancelling or each.process.is_stopping:
                each.process.stop()

    def _renew(self) -> None:
        """Gives word of this daemon and its jobs, and hears which of them shall be cancelled."""
        now_s = time.monotonic()
        if now_s - self._renewed_s < self.queue.lease_s * _RENEWED:
            return
        kept: dict[int, tuple[int, Snapshot | None]] = {
            number: (each.job.attempt, each.follower.follow()) for number, each in self._running.items()
        }
        daemons.give_word(self.queue.store, self.daemon)
        self._take_from_the_gone()
        asked = self.queue.renew(self.daemon.id, kept)
        for number, each in list(self._running.items()):
            if number not in asked:  # it was silent for too long, and somebody else has it
                log.warning("job %d is no longer ours; its process is ended", number)
                self._forget(each)
                continue
            each.process.give_word()
            each.is_cancelling = asked[number]
            if each.follower.run != each.run:
                each.run = each.follower.run
                self.queue.name_run(each.job, each.run)
        self._renewed_s = now_s

    def look_at_once(self) -> None:
        """Has leases renewed in the next round, and with it requests to cancel heard."""
        self._renewed_s = 0.0
        self.wake()

    def _give_word_while_silent(self) -> None:
        """Keeps jobs going while the database is away, as long as their leases last."""
        if time.monotonic() - self._renewed_s < self.queue.lease_s * _SILENT:
            for each in self._running.values():
                each.process.give_word()

    def _forget(self, each: _Running) -> None:
        """Ends what is left of a job's process, and no longer watches it."""
        if each.process.handle is not None:
            self._selector.unregister(each.process.handle)
        each.process.close()
        self._running.pop(each.job.id, None)

    # ----------------------------------------------------------------------------------------- ending

    def _settle(self, each: _Running, code: int) -> None:
        """Records how a job ended whose process has ended."""
        job, ran_s = each.job, each.process.ran_s
        said = last_words(each.folder)
        state = State.STOPPED if code < 0 and each.process.is_stopping else state_of(code)
        if code < 0 and not each.process.is_stopping:
            self._retry(each, -code)
            return
        if state == State.STOPPED and each.is_cancelling:
            state, said = State.CANCELLED, "cancelled on request"
        elif state == State.STOPPED and each.is_late:
            limit_s = job.request.options.time_limit_s
            said = f"stopped after its time limit of {limit_s:g} s; resume it to go on"
        self._end(job, state, code if code >= 0 else None, said, each.follower.run, ran_s)

    def _retry(self, each: _Running, number: int) -> None:
        """Puts a job in line again whose process was killed, unless that happened too often."""
        job = each.job
        why = f"its process was ended by signal {number}"
        if job.failures >= job.request.options.retries:
            why = f"{why} once more than its {job.request.options.retries} retries allow"
            self._end(job, State.FAILED, None, why, each.follower.run, each.process.ran_s)
            return
        wait_s = backoff.wait_s(job.failures + 1, self._retry_s)
        self._put_back(job, why, wait_s=wait_s, is_failure=True, ran_s=each.process.ran_s)

    def _put_back(
        self, job: Job, why: str, *, wait_s: float = 0.0, is_failure: bool = False, ran_s: float = 0.0
    ) -> None:
        log.warning("job %d is in line again, in %.0f s: %s", job.id, wait_s, why)
        with self._or_lost():
            self.queue.put_back(job, reason=why, wait_s=wait_s, is_failure=is_failure, ran_s=ran_s)

    def _end(
        self,
        job: Job,
        state: State,
        exit_code: int | None,
        message: str,
        run: str,
        ran_s: float = 0.0,
    ) -> None:
        result = telling_result(job, state, run, self.place)
        with self._or_lost():
            found = self.queue.end(
                job,
                state,
                exit_code=exit_code,
                message=message,
                run=run,
                ran_s=ran_s,
                reason=message,
                then=self._alerts.noting(lambda ended: meaning(ended, result)),
            )
            log.info("%s", ended(found))

    @contextlib.contextmanager
    def _or_lost(self) -> Iterator[None]:
        try:
            yield
        except Lost as error:
            log.warning("%s", error)

    def _drain(self) -> None:
        """Stops all jobs and puts them in line again, for the next daemon."""
        while self._running:
            for each in list(self._running.values()):
                code = each.process.exit_code()
                if code is None:
                    each.process.stop()
                    each.process.give_word()
                    continue
                each.follower.follow()
                self._forget(each)
                if code in (ExitCode.STOPPED, ExitCode.INTERRUPTED) or code < 0:
                    self._put_back(each.job, "its daemon stopped", ran_s=each.process.ran_s)
                else:
                    self._settle(each, code)
            self._selector.select(0.2)
