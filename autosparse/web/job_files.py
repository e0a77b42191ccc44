"""What a job's processes write, read as it grows."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from autosparse.daemon.place import LOG, Follower, later, size_of
from autosparse.jobs.records import Job, Snapshot
from autosparse.storage.files import opened
from autosparse.storage.for_job import EVENTS

MOST_BYTES = 2**18
"""How much of a log is read at once."""
_LONGEST_LINE_BYTES = 2**16


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One line of a log.

    Attributes:
        begin: where it begins, in bytes.
        end: where the next one begins.
        text: without the end of the line.
    """

    begin: int
    end: int
    text: str


def lines_from(folder: Path, begin: int, end: int) -> list[Line]:
    """Reads lines of a job's log, at least one if there is any, and a limited number at once.

    Args:
        folder: of the job.
        begin: where to begin, in bytes.
        end: where a line ends, or the log.
    """
    try:
        with opened(folder / LOG) as stream:
            stream.seek(begin)
            text = stream.read(max(0, min(MOST_BYTES, end - begin)))
    except OSError:  # it has said nothing yet
        return []
    pieces = [piece + b"\n" for piece in text.split(b"\n")]
    pieces[-1] = pieces[-1][:-1]
    if begin + len(text) < end and len(pieces) > 1:
        pieces.pop()  # not whole
    lines: list[Line] = []
    for piece in filter(None, pieces):
        said = piece.decode(errors="replace").rstrip("\r\n")
        lines.append(Line(begin=begin, end=begin + len(piece), text=said))
        begin += len(piece)
    return lines


def tail_begin(folder: Path, most_bytes: int) -> int:
    """Gives where the last lines of a job's log begin, at most so many bytes of them."""
    try:
        with opened(folder / LOG) as stream:
            begin = os.fstat(stream.fileno()).st_size - most_bytes
            if begin <= 0:
                return 0
            stream.seek(begin - 1)
            return begin - 1 + len(stream.readline(_LONGEST_LINE_BYTES))
    except OSError:
        return 0


def _last_end(folder: Path, size: int) -> int:
    """Gives where the last whole line ends; of a line that is very long, the end of what is there."""
    begin = max(0, size - _LONGEST_LINE_BYTES)
    try:
        with opened(folder / LOG) as stream:
            stream.seek(begin)
            found = stream.read(size - begin).rfind(b"\n")
    except OSError:
        return 0
    return begin + found + 1 if found >= 0 or not begin else size


class JobFiles:
    """Follows a job's progress and log.

    Args:
        folder: of the job.
        daemon_id: who reads; of jobs of other daemons, the files may lie on other machines.
    """

    def __init__(self, folder: Path, daemon_id: str) -> None:
        self._folder = folder
        self._daemon_id = daemon_id
        self._follower = Follower(folder / EVENTS)
        self._looked_at: tuple[int, bool] | None = None
        self.log_end = 0
        """As far as `lines` has come."""

    def progress(self, job: Job) -> Snapshot | None:
        """Gives how far a job is: by its events where they lie here, else by what its daemon noted."""
        noted = job.snapshot
        if noted is None or not job.is_open or job.owner != self._daemon_id:
            return noted
        # Events of an earlier attempt are older than what is noted of this one.
        return later(noted, self._follower.follow())

    def lines(self, job: Job) -> list[Line] | None:
        """Gives what was added to the log; None if that is too much to be kept, or is no addition."""
        size = size_of(self._folder / LOG)
        if self._looked_at == (size, job.is_open):
            return []
        is_first = self._looked_at is None
        self._looked_at = (size, job.is_open)
        begin = self.log_end
        # What follows the last end of a line will go on, unless the job has ended.
        self.log_end = _last_end(self._folder, size) if job.is_open else size
        if is_first or not 0 <= self.log_end - begin <= MOST_BYTES:
            return None
        return lines_from(self._folder, begin, self.log_end)
