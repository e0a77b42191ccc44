"""A host's jobs on behalf of a process elsewhere: begun, heard of, and stopped, by plain calls.

The process that asks cannot be called back. So it begins a job, hears again and again what has been
told since, and may stop the job at any time. Rows are handed over one by one: whatever was measured
before a stop is kept.
"""

from __future__ import annotations

import itertools
import tempfile
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from autosparse.database.table import TuningDatabase
from autosparse.devices.device import find
from autosparse.errors import Stopped, UsageError
from autosparse.hosts.here import LocalHost
from autosparse.progress import Progress, ProgressEvent
from autosparse.records import HardwareProfile, Measurement
from autosparse.storage.sending import Inbox, NamedFile, renamed
from autosparse.tuning.request import TuneRequest

What = Literal["profile", "catalogue", "count", "measure", "time_whole"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How a job ended.

    Attributes:
        ending: ``done``; ``stopped`` on request; ``failed``.
        value: what it gave, if it is done.
        words: what Python says of the exception otherwise, ``DatabaseError: the text``.
    """

    ending: Literal["done", "stopped", "failed"]
    value: Any = None
    words: str = ""


@dataclass(slots=True)
class _Job:
    """One job and what was told of it since somebody last heard."""

    told: list[ProgressEvent | Measurement] = field(default_factory=list)
    ended: Ended | None = None
    shall_stop: bool = False
    threads: threading.Condition = field(default_factory=threading.Condition)

    def tell(self, what: ProgressEvent | Measurement) -> None:
        with self.threads:
            self.told.append(what)
            self.threads.notify_all()

    def end(self, ended: Ended) -> None:
        with self.threads:
            self.ended = ended
            self.threads.notify_all()


class _Handing(TuningDatabase):
    """A tuning database that also hands every new row over."""

    def __init__(self, url: str, tell: Callable[[Measurement], None]) -> None:
        super().__init__(url)
        self._tell = tell

    def put(self, measurement: Measurement, *, replace: bool = False) -> bool:
        """Adds a row, commits it, and hands it over."""
        self._tell(measurement)
        return super().put(measurement, replace=replace)


class Desk:
    """Takes jobs for the machine that it is on."""

    def __init__(self) -> None:
        self._host = LocalHost()
        self._jobs: dict[int, _Job] = {}
        self._numbers = itertools.count()
        self._folder = tempfile.TemporaryDirectory(prefix="autosparse-desk-")

    def begin(self, what: What, asked: Mapping[str, Any]) -> int:
        """Begins a job, and gives the number by which it is heard of.

        Args:
            what: the method of a host.
            asked: its arguments, as `_work` reads them.
        """
        number = next(self._numbers)
        job = self._jobs[number] = _Job()
        threading.Thread(target=self._carry_out, args=(job, what, asked), daemon=True).start()
        return number

    def hear(
        self, number: int, wait_s: float
    ) -> tuple[list[ProgressEvent | Measurement], Ended | None]:
        """Gives what was told since the last call, and how the job ended if it has.

        Args:
            number: of the job; it is forgotten once its end was heard.
            wait_s: how long to wait for something to be told.
        """
        job = self._jobs[number]
        with job.threads:
            job.threads.wait_for(lambda: job.told or job.ended, wait_s)
            told, job.told = job.told, []
            if job.ended is not None:
                del self._jobs[number]
            return told, job.ended

    def stop(self, number: int) -> None:
        """Asks a job to stop, which ends its measuring process at once."""
        if job := self._jobs.get(number):
            job.shall_stop = True

    def find(self, file: NamedFile) -> str | None:
        """Gives where a file of the asking machine is on this one; None if it has to be sent."""
        return Inbox().find(file)

    def receive(self, file: NamedFile, piece: bytes, offset: int) -> None:
        """Takes a piece of a file that this machine lacks."""
        Inbox().take(file, piece, offset)

    def _carry_out(self, job: _Job, what: What, asked: Mapping[str, Any]) -> None:
        # The border of the machine: whatever goes wrong is told.
        try:
            value = self._work(job, what, asked)
        except Stopped as error:
            job.end(Ended(ending="stopped", words=str(error)))
        except Exception as error:
            job.end(Ended(ending="failed", words=f"{type(error).__name__}: {error}"))
        else:
            job.end(Ended(ending="done", value=value))

    def _work(self, job: _Job, what: What, asked: Mapping[str, Any]) -> Any:
        progress = Progress(job.tell, should_stop=lambda: job.shall_stop)
        if what == "profile":
            return self._host.profile(keep=asked["keep"], progress=progress).to_json()
        if what == "catalogue":
            return [offer.to_json() for offer in self._host.catalogue()]
        if what == "count":
            request = TuneRequest.from_json(asked["request"])
            device = find(asked["device"], HardwareProfile.from_json(asked["profile"]))
            with TuningDatabase(self._database(asked["rows"])) as known:
                return self._host.count(request, device, known)
        if what == "measure":
            request = TuneRequest.from_json(asked["request"])
            device = find(asked["device"], self._host.profile(progress=progress))
            with _Handing(self._database(asked["rows"]), job.tell) as database:
                return self._host.measure(request, device, database, progress=progress)
        if what == "time_whole":
            values = dict(renamed(asked["request"], asked["files"]))
            if "database" in values:
                values["database"] = self._database(asked["rows"])
            return self._host.time_whole(
                asked["runner"], values, step=asked["step"], limit_s=asked["limit_s"], progress=progress
            )
        raise UsageError(f"a host profiles, measures and times, but got {what!r}")

    def _database(self, rows: Iterable[Measurement]) -> str:
        """Gives the file of a database with the caller's rows alone, who gets all others."""
        file = str(Path(tempfile.mkdtemp(dir=self._folder.name)) / "tuning.db")
        with TuningDatabase(file) as database:
            database.put_all(rows, replace=True)
        return file
