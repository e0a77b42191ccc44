"""What of the tuning database would be measured again, found out beside the daemon now and then.

To find it out, every row is read and the host described, which takes seconds of a processor and loads
kernels. So a process of its own does it, which sees the host as jobs do, and then keeps to the
processors that are the daemon's.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

from autosparse.database.staleness import Freshness
from autosparse.errors import AutosparseError
from autosparse.hardware.cores import affinity

log = logging.getLogger(__name__)

KEPT_S = 600.0
_LONGEST_S = 300.0
_ASK = """
import json, os, sys
told = json.load(sys.stdin)
os.nice(10)
os.sched_setaffinity(0, told["cores"])
from autosparse import hardware
hardware.hardware_id()
os.sched_setaffinity(0, told["own"])
from autosparse.database.staleness import freshness
from autosparse.errors import AutosparseError
try:
    print(json.dumps([each.to_json() for each in freshness(told["database"])]))
except AutosparseError as error:
    sys.exit(str(error))
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What the last look at the database found.

    Attributes:
        at_s: when it was, seconds since the epoch.
        devices: what the rows of each device are of.
        problem: why nothing is known; empty if something is.
    """

    at_s: float
    devices: tuple[Freshness, ...] = ()
    problem: str = ""

    @property
    def stale(self) -> int:
        """Rows of all devices that would be measured again."""
        return sum(device.stale for device in self.devices)


class StaleRows:
    """What is known of the rows of a tuning database; never waited for.

    Args:
        database: its URL.
        cores: processors that jobs may use; None finds them: those that this process was given and
            has not kept for itself.
        kept_s: how long what was found counts as known.
    """

    def __init__(
        self, database: str, cores: tuple[int, ...] | None = None, *, kept_s: float = KEPT_S
    ) -> None:
        self._database = database
        self._cores = cores
        self._kept_s = kept_s
        self._looked: Looked | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()

    def known(self) -> Looked | None:
        """Gives what the last look found; None before the first has ended."""
        return self._looked

    def look(self, *, again: bool = False) -> None:
        """Has the database looked at, if that was not done lately.

        Args:
            again: even if it was.
        """
        with self._lock:
            if self.is_looking:
                return
            age_s = float("inf") if self._looked is None else time.time() - self._looked.at_s
            if again or not 0 <= age_s < self._kept_s:
                self._thread = threading.Thread(target=self._look, name="stale rows", daemon=True)
                self._thread.start()

    @property
    def is_looking(self) -> bool:
        """Whether a look is under way."""
        return self._thread is not None and self._thread.is_alive()

    def wait(self) -> None:
        """Waits for a look that is under way."""
        if self._thread is not None:
            self._thread.join()

    def _look(self) -> None:
        try:
            self._looked = Looked(at_s=time.time(), devices=_asked(self._database, self._cores))
        except (AutosparseError, OSError, ValueError, subprocess.SubprocessError) as error:
            log.warning("what is stale is not known: %s", error)
            self._looked = Looked(at_s=time.time(), problem=str(error))


def _asked(database: str, cores: tuple[int, ...] | None) -> tuple[Freshness, ...]:
    own = sorted(os.sched_getaffinity(0))
    of_jobs = sorted(set(affinity()) - set(own)) or own if cores is None else sorted(cores)
    told = {"database": database, "cores": of_jobs, "own": own}
    made = subprocess.run(
        [sys.executable, "-c", _ASK],
        input=json.dumps(told),
        capture_output=True,
        text=True,
        timeout=_LONGEST_S,
        check=False,
    )
    if made.returncode:
        raise AutosparseError(made.stderr.strip()[-500:] or f"exit code {made.returncode}")
    return tuple(Freshness.from_json(each) for each in json.loads(made.stdout))
