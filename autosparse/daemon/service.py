"""What a daemon does when it is asked, whoever asks: one face for the API, the page and tests."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from autosparse.daemon.place import folder_of
from autosparse.jobs.queue import Queue
from autosparse.jobs.records import Job, JobOptions, JobRequest
from autosparse.jobs.verbs import Place, verb_named
from autosparse.schedules.schedule import Schedule
from autosparse.schedules.store import Schedules


def _nothing() -> None:
    """Wakes nobody: the supervisor, if there is one, looks by itself every second."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """A daemon's queue and schedules, and where its jobs work.

    Attributes:
        queue: of jobs.
        schedules: in the same store.
        place: where jobs work.
        daemon_id: the daemon that answers.
        wake: has a supervisor of this process look at the queue at once.
    """

    queue: Queue
    schedules: Schedules
    place: Place
    daemon_id: str = ""
    wake: Callable[[], object] = field(default=_nothing)

    def submit(
        self, verb: str, settings: Mapping[str, Any], options: JobOptions, *, key: str = ""
    ) -> tuple[Job, bool]:
        """Checks what is asked as the command line would, and puts it into the queue.

        Args:
            verb: of `jobs.verbs.VERBS`.
            settings: its flags by their keys.
            options: how the job is treated.
            key: see `Queue.submit`.

        Returns:
            The job, and whether it is new.

        Raises:
            AutosparseError: it cannot be meant, or cannot work here; nothing was stored.
        """
        found = self.queue.submit(self._request(verb, settings, options), key=key)
        self.wake()
        return found

    def cancel(self, job_id: int) -> Job:
        """Cancels a job; see `Queue.cancel`."""
        job = self.queue.cancel(job_id)
        self.wake()
        return job

    def resume(self, job_id: int) -> Job:
        """Resumes a job; see `Queue.resume`."""
        job = self.queue.resume(job_id)
        self.wake()
        return job

    def add_schedule(
        self,
        verb: str,
        settings: Mapping[str, Any],
        options: JobOptions,
        *,
        name: str,
        cron: str,
        timezone: str,
        catch_up: Literal["once", "skip"] = "once",
        jitter_s: float = 0.0,
    ) -> Schedule:
        """Checks and stores a schedule; see `Schedules.add`.

        Raises:
            AutosparseError: something cannot be meant, or cannot work here; nothing was stored.
        """
        return self.schedules.add(
            self._request(verb, settings, options),
            name=name,
            cron=cron,
            timezone=timezone,
            catch_up=catch_up,
            jitter_s=jitter_s,
        )

    def folder(self, job_id: int) -> Path:
        """Gives the folder of a job."""
        return folder_of(self.place.results, job_id)

    def _request(self, verb: str, settings: Mapping[str, Any], options: JobOptions) -> JobRequest:
        settled = verb_named(verb).settle(settings, self.place)
        return JobRequest(verb=verb, settings=settled, options=options)
