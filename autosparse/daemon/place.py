"""The folder of a job, and what its processes leave there.

RESULTS/jobs/<number>/
  config.yaml     what the verb was told
  events.jsonl    how far it is, one event a line
  stderr.log      what it said beside its result
  result.json     its result
  lock            held by its process
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from autosparse.daemon.left import Clock, Left, Spent
from autosparse.errors import RunError
from autosparse.jobs.records import Job, Snapshot
from autosparse.storage.files import read_json
from autosparse.storage.for_job import LOCK
from autosparse.storage.locks import holder

JOBS = "jobs"
LOG = "stderr.log"
RESULT = "result.json"
_PREFIX = "autosparse: "
_LONGEST_LINE = 100_000
_LAST_WORDS_BYTES = 20_000


def folder_of(results: Path, job_id: int) -> Path:
    """Gives the folder of a job."""
    return results / JOBS / str(job_id)


class Events:
    """Reads the events of a job as they are written.

    Args:
        path: the file, which need not exist yet.
        offset: where to begin, in bytes.
    """

    def __init__(self, path: Path, offset: int = 0) -> None:
        self.path = path
        self.offset = offset

    def new(self) -> Iterator[dict[str, Any]]:
        """Gives the events that were written since the last call."""
        try:
            with self.path.open("rb") as stream:
                size = os.fstat(stream.fileno()).st_size
                if size < self.offset:  # a later attempt cut off a torn line
                    self.offset = size
                stream.seek(self.offset)
                lines = stream.read().split(b"\n")
        except OSError:
            return
        for line in lines[:-1]:  # what follows the last end of a line is not whole yet
            self.offset += len(line) + 1
            if line.strip() and len(line) <= _LONGEST_LINE:
                try:
                    event = json.loads(line)
                except ValueError:
                    continue
                if isinstance(event, dict):
                    yield event


def _nothing(run: str) -> Spent | None:
    """Knows of no earlier job."""
    return None


class Follower:
    """Follows a job's events and keeps how far it is.

    Args:
        path: of the events.
        offset: where those of this attempt begin, in bytes.
        names_run: whether events name a run that the job makes.
        earlier: gives where the time of an earlier job like this one went, for the name of this one's
            run; asked once.
    """

    def __init__(
        self,
        path: Path,
        offset: int = 0,
        *,
        names_run: bool = True,
        earlier: Callable[[str], Spent | None] = _nothing,
    ) -> None:
        self._events = Events(path, offset)
        self._names_run = names_run
        self._earlier = earlier
        self._clock = Clock()
        self._asked: list[Spent | None] = []
        self._message = ""
        self.run = ""
        self.snapshot: Snapshot | None = None

    def follow(self) -> Snapshot | None:
        """Reads what is new, and gives how far the job is; None while it has said nothing."""
        is_new = False
        for event in self._events.new():
            self._take(event)
            is_new = True
        if is_new and self.snapshot is not None:
            left = self._left()
            self.snapshot = replace(
                self.snapshot, left_s=left.job_s, left_as=left.rests_on, step_left_s=left.step_s
            )
        return self.snapshot

    def _left(self) -> Left:
        if not self._asked and (self.run or not self._names_run):
            self._asked.append(self._earlier(self.run))
        return self._clock.left(self._asked[0] if self._asked else None)

    def _take(self, event: dict[str, Any]) -> None:
        try:
            self._clock.take(event)
            _, _, run = str(event.get("job", "")).partition(" ")
            self.run = run if run and self._names_run else self.run
            self._message = str(event.get("message", "")) or self._message
            before = self.snapshot
            step = str(event.get("step", ""))
            self.snapshot = Snapshot(
                at_s=float(event["at_s"]),
                stage=str(event.get("stage", "")) or (before.stage if before else ""),
                step=step or (before.step if before else ""),
                done=float(event["done"]) if step else (before.done if before else 0.0),
                total=_number(event.get("total")) if step else (before.total if before else None),
                message=self._message[:500],
            )
        except (KeyError, TypeError, ValueError):
            return  # an event of another version; the next one will do


def later(noted: Snapshot | None, said: Snapshot | None) -> Snapshot | None:
    """Gives the later of what a job's daemon noted and what its events say.

    What is left is known to its daemon alone, and has passed since by as much as time has.
    """
    if noted is None or said is None or said.at_s < noted.at_s:
        return noted or said
    passed_s = said.at_s - noted.at_s
    left_s = None if noted.left_s is None else max(0.0, noted.left_s - passed_s)
    return replace(said, left_s=left_s, left_as=noted.left_as)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def size_of(path: Path) -> int:
    """Gives the bytes of a file; 0 if there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def last_words(folder: Path) -> str:
    """Gives the last line that a job's process said of itself; empty if it said nothing."""
    path = folder / LOG
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, size_of(path) - _LAST_WORDS_BYTES))
            text = stream.read().decode(errors="replace")
    except OSError:
        return ""
    said = [line for line in text.splitlines() if line.startswith(_PREFIX)]
    return said[-1].removeprefix(_PREFIX) if said else ""


def result_of(folder: Path) -> Any:
    """Gives what a job's process gave as its result; None if it gave none that is whole."""
    try:
        return read_json(folder / RESULT)
    except RunError:
        return None


def is_locked(folder: Path) -> bool:
    """Tells whether a process of a job still lives."""
    return holder(folder / LOCK) is not None


def ended(job: Job) -> str:
    """Gives how a job ended in a few words, for logs."""
    code = "" if job.exit_code is None else f", exit code {job.exit_code}"
    return f"job {job.id} is {job.state}{code}"
