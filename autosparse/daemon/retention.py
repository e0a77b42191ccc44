"""What is forgotten after a while: jobs that ended long ago, their folders, and the runs they made.

Runs that people made stay, whatever their age, and so does whatever somebody still goes by: the last
runs of a schedule, files that a watch or a waiting job names, and what a process works on.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autosparse.daemon.place import folder_of, is_locked
from autosparse.errors import RunError
from autosparse.jobs import forgetting
from autosparse.jobs.forgetting import InUse, Leftover
from autosparse.jobs.store import Store
from autosparse.run_folders.listing import remove_run
from autosparse.run_folders.state import STATE_FILE, read_state
from autosparse.storage.locks import Held
from autosparse.storage.serial import Record

log = logging.getLogger(__name__)

EVERY_S = 3600.0
_HALF_GONE = ".gone-*"  # a run that is being removed


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept(Record):
    """What was forgotten, or would be.

    Attributes:
        jobs: how many jobs.
        runs: how many runs that they had made.
        alerts: how many alerts.
        deliveries: how many deliveries of them.
        occurrences: of how many due times.
        left: jobs of which something is still on disk, as a process works on it or it cannot be
            deleted; it is tried again.
    """

    jobs: int = 0
    runs: int = 0
    alerts: int = 0
    deliveries: int = 0
    occurrences: int = 0
    left: int = 0


class Retention:
    """Forgets what is older than some time.

    Args:
        store: of jobs.
        results: folder of runs and jobs.
        keep_s: how long a job is kept after its end.
    """

    def __init__(self, store: Store, results: Path, keep_s: float) -> None:
        self._store = store
        self._results = results
        self._keep_s = keep_s

    def sweep(self, *, dry_run: bool = False) -> Swept:
        """Forgets what is old enough; whatever an earlier sweep did not finish is finished too.

        Args:
            dry_run: only tell what would be forgotten.

        Raises:
            DatabaseError: the database cannot be read or written.
        """
        with self._store.reading() as connection:
            before_s = self._store.now_s(connection) - self._keep_s
        found = [each for page in self._pages(before_s, dry_run) for each in page]
        if dry_run:
            alerts, deliveries, occurrences = forgetting.count_old(self._store, before_s)
            runs, left = sum(self._made_by(each) is not None for each in found), 0
        else:
            runs, left = self._clear()
            self._finish_removals()
            alerts, deliveries = self._forget_alerts(before_s)
            occurrences = self._forget_occurrences(before_s)
        return Swept(
            jobs=len(found),
            runs=runs,
            alerts=alerts,
            deliveries=deliveries,
            occurrences=occurrences,
            left=left,
        )

    def work(self) -> None:
        """Sweeps, and says what was forgotten if anything was."""
        swept = self.sweep()
        if any(swept.to_json().values()):
            said = ", ".join(f"{count} {what}" for what, count in swept.to_json().items() if count)
            log.info("forgotten as older than %.0f days: %s", self._keep_s / 86400, said)

    # ----------------------------------------------------------------------------------------- rows

    def _pages(self, before_s: float, dry_run: bool) -> Iterator[tuple[Leftover, ...]]:
        after_id: int | None = 0
        while after_id is not None:
            page = forgetting.forget_jobs(
                self._store, before_s, self._is_spared, after_id=after_id, dry_run=dry_run
            )
            yield page.found
            after_id = page.last_id

    def _forget_alerts(self, before_s: float) -> tuple[int, int]:
        alerts = deliveries = 0
        while True:
            more, of_them = forgetting.forget_alerts(self._store, before_s)
            if not more:
                return alerts, deliveries
            alerts, deliveries = alerts + more, deliveries + of_them

    def _forget_occurrences(self, before_s: float) -> int:
        total = 0
        while more := forgetting.forget_occurrences(self._store, before_s):
            total += more
        return total

    def _is_spared(self, leftover: Leftover, in_use: InUse) -> bool:
        return (
            leftover.job_id in in_use.jobs
            or is_locked(folder_of(self._results, leftover.job_id))
            or any(self._names(settings, leftover) for settings in in_use.settings)
        )

    def _names(self, settings: Mapping[str, Any], leftover: Leftover) -> bool:
        """Tells whether settings name a job's run, by its beginning too, or a file of the two."""
        folders = [folder_of(self._results, leftover.job_id)]
        if leftover.run:
            folders.append(self._results / leftover.run)
        inside = tuple(f"{os.path.realpath(folder)}{os.sep}" for folder in folders)
        return any(
            leftover.run.startswith(word) or f"{_real_file(word)}{os.sep}".startswith(inside)
            for word in _words(settings)
            if word
        )

    # ---------------------------------------------------------------------------------------- disk

    def _clear(self) -> tuple[int, int]:
        """Deletes what jobs left on disk; gives how many runs, and of how many jobs not all."""
        runs = left = 0
        in_use = forgetting.in_use(self._store)
        for each in forgetting.leftovers(self._store):
            if self._is_spared(each, in_use):
                left += 1
                continue
            try:
                runs += self._remove_run(each)
                self._remove_folder(each)
            except (RunError, OSError) as error:
                log.warning("what job %d left is not yet deleted: %s", each.job_id, error)
                left += 1
            else:
                forgetting.cleared(self._store, each)
        return runs, left

    def _made_by(self, leftover: Leftover) -> Path | None:
        """Gives the run that a job made, if it is there and was made by it."""
        path = self._results / leftover.run
        if not leftover.run or not os.path.isfile(path / STATE_FILE):
            return None
        try:
            return path if read_state(path).job == str(leftover.job_id) else None
        except RunError:  # damaged: nobody can say whose it is
            return None

    def _remove_run(self, leftover: Leftover) -> bool:
        path = self._made_by(leftover)
        if path is None:
            return False
        remove_run(path)
        return True

    def _remove_folder(self, leftover: Leftover) -> None:
        folder = folder_of(self._results, leftover.job_id)
        if is_locked(folder):
            raise Held(f"a process works on {folder}")
        if os.path.isdir(folder):
            shutil.rmtree(folder)

    def _finish_removals(self) -> None:
        """Deletes what is left of runs whose removal was begun long ago, by whoever died meanwhile."""
        for path in self._results.glob(_HALF_GONE):
            try:
                if time.time() - path.stat().st_mtime > EVERY_S:
                    shutil.rmtree(path)
            except OSError as error:
                log.warning("%s is not yet deleted: %s", path, error)


def _words(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _words(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _words(item)


def _real_file(word: str) -> str:
    """Gives the file that a setting names, links followed; before a colon may stand its kind."""
    _, _, rest = word.partition(":")
    named = next((part for part in (word, rest) if os.path.isabs(part)), "")
    try:
        return os.path.realpath(named) if named else ""
    except ValueError:  # a name that no file has
        return ""
