"""What a daemon does when it is asked, whoever asks: one face for the API, the page and tests."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from autosparse.daemon import watches
from autosparse.daemon.place import folder_of
from autosparse.daemon.watches import Watch
from autosparse.errors import RunError, got
from autosparse.jobs.alerts import Alert, Alerts
from autosparse.jobs.queue import Queue
from autosparse.jobs.records import Job, JobOptions, JobRequest
from autosparse.jobs.verbs import Place, verb_named
from autosparse.run_folders.listing import find_run
from autosparse.run_folders.shelf import LATEST
from autosparse.schedules.schedule import Schedule
from autosparse.schedules.store import Schedules
from autosparse.storage.serial import short_hash

_LONGEST_NAME = 60


def _nothing() -> None:
    """Wakes nobody: the supervisor, if there is one, looks by itself every second."""


class NoSuchRun(RunError):
    """No run of the daemon's has the name."""


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
            key: see `Queue.submit`. It stands for what was asked as it was asked: what that means may
                have changed since, such as which run is the latest, and the job is the same.

        Returns:
            The job, and whether it is new.

        Raises:
            AutosparseError: it cannot be meant, or cannot work here; nothing was stored.
        """
        asked = short_hash([verb, settings, options.to_json()], 32)
        if key and (known := self.queue.submitted(key, asked)):
            return known, False
        request = self._request(verb, settings, options)
        found = self.queue.submit(request, key=key, key_hash=asked)
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
        name: str | None = None,
        cron: str,
        timezone: str,
        catch_up: Literal["once", "skip"] = "once",
        jitter_s: float = 0.0,
    ) -> Schedule:
        """Checks and stores a schedule; see `Schedules.add`.

        A search that comes back takes over from the newest run of its settings, unless told otherwise.

        Args:
            verb: as of `submit`.
            settings: as of `submit`.
            options: as of `submit`.
            name: that no other schedule has; None makes one of what the jobs do.
            cron: see `Schedule`.
            timezone: see `Schedule`.
            catch_up: see `Schedule`.
            jitter_s: see `Schedule`.

        Raises:
            AutosparseError: something cannot be meant, or cannot work here; nothing was stored.
        """
        if verb == "search":
            settings = {"since": LATEST, **settings}
        request = self._request(verb, settings, options)
        return self.schedules.add(
            request,
            name=self._free_name(request) if name is None else name,
            cron=cron,
            timezone=timezone,
            catch_up=catch_up,
            jitter_s=jitter_s,
        )

    def add_watch(
        self,
        artifact: str,
        latency_budget: str,
        options: JobOptions,
        *,
        name: str | None = None,
        cron: str = watches.CRON,
        timezone: str = "UTC",
        jitter_s: float = watches.JITTER_S,
        threads: int | None = None,
        judged: str | None = None,
    ) -> Watch:
        """Checks and stores a watch: a schedule that checks an artifact again and again.

        Args:
            artifact: a file that jobs may read.
            latency_budget: with its unit, as ``5ms``.
            options: how its jobs are treated.
            name: that no other schedule has; None makes one of the artifact's.
            cron: see `Schedule`; hourly by default.
            timezone: see `Schedule`.
            jitter_s: see `Schedule`.
            threads: worker threads; None is as many as the artifact was measured with.
            judged: the state of the host that counts, ``worst`` or ``best``; None is the worst.

        Raises:
            AutosparseError: something cannot be meant, or cannot work here; nothing was stored.
        """
        settings = {
            "artifact": artifact,
            "latency_budget": latency_budget,
            "threads": threads,
            "judged": judged,
        }
        made = self.add_schedule(
            watches.VERB,
            settings,
            options,
            name=name,
            cron=cron,
            timezone=timezone,
            catch_up="skip",  # how it was at a time that has passed nobody can measure
            jitter_s=jitter_s,
        )
        return watches.watches_of(self.queue.store, [made])[0]

    def watches(self) -> list[Watch]:
        """Gives all watches, the oldest first, and how they stand."""
        return watches.watches_of(self.queue.store, self.schedules.all())

    def alerts(self, *, before_id: int | None = None, limit: int = 50) -> list[Alert]:
        """Gives alerts, newest first; see `Alerts.latest`."""
        return Alerts(self.queue.store).latest(before_id=before_id, limit=limit)

    def _free_name(self, request: JobRequest) -> str:
        """Gives a name that no schedule has: of the verb and what it works on."""
        named = (request.settings.get(key) for key in ("model", "run", "artifact"))
        subject = str(next((each for each in named if each), ""))
        words = re.findall(r"[A-Za-z0-9_.-]+", f"{request.verb} {subject.rpartition('/')[2]}")
        base = "-".join(words)[:_LONGEST_NAME]
        taken = {schedule.name for schedule in self.schedules.all()}
        numbered = (f"{base}-{number}" for number in itertools.count(2))
        return next(name for name in itertools.chain([base], numbered) if name not in taken)

    def folder(self, job_id: int) -> Path:
        """Gives the folder of a job."""
        return folder_of(self.place.results, job_id)

    def run(self, name: str) -> Path:
        """Gives the folder of a run by its name, or of the ``latest``.

        Raises:
            NoSuchRun: the daemon has none of that name.
        """
        results = self.place.results.resolve()
        try:
            found = find_run(results, name)
        except RunError as error:
            raise NoSuchRun(str(error)) from None
        if found.parent != results:
            raise NoSuchRun(
                f"run must be one of the daemon's, but got {got(name)}; see `autosparse runs list`"
            )
        return found

    def _request(self, verb: str, settings: Mapping[str, Any], options: JobOptions) -> JobRequest:
        settled = verb_named(verb).settle(settings, self.place)
        return JobRequest(verb=verb, settings=settled, options=options)
