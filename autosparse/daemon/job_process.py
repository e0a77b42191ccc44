"""A job's process: begun, kept on its leash, asked to stop, ended.

It is a command line of its own in a session of its own, so that whatever happens to it happens to one
job, and a Ctrl-C meant for the daemon does not reach it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from autosparse.closing import Closing
from autosparse.config import SearchConfig, variable
from autosparse.daemon.place import LOG, RESULT
from autosparse.errors import AutosparseError
from autosparse.storage.for_job import LEASH, VARIABLE
from autosparse.storage.paths import writable_folder

PROGRAM = (sys.executable, "-m", "autosparse")
GRACE_S = 15.0
"""How long a process that was asked to stop may take, before it is killed with all that it began."""

_WORD = b"."


class JobProcess(Closing):
    """The process of one attempt at a job.

    Args:
        arguments: of the command line.
        folder: of the job, made if need be.
        silent_s: how long the daemon may be silent before the process ends itself.
        program: what is run with these arguments.
        cores: processors that it may use; empty is all of this process.

    Raises:
        AutosparseError: it cannot be begun.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        folder: Path,
        *,
        silent_s: float,
        program: Sequence[str] = PROGRAM,
        cores: Sequence[int] = (),
    ) -> None:
        writable_folder(folder, "the folder of a job")
        read_end, self._leash = os.pipe()
        try:
            os.set_blocking(self._leash, False)
            self._process = self._begin([*program, *arguments], folder, read_end, silent_s)
        except OSError as error:
            os.close(self._leash)
            raise AutosparseError(f"a job's process must start, but: {error.strerror}") from None
        finally:
            os.close(read_end)
        if cores:
            with suppress(ProcessLookupError):
                os.sched_setaffinity(self._process.pid, cores)
        self.started_s = time.monotonic()
        self._stop_asked_s: float | None = None
        self.was_killed = False
        self.handle: int | None = os.pidfd_open(self._process.pid)

    def _begin(
        self, command: Sequence[str], folder: Path, read_end: int, silent_s: float
    ) -> subprocess.Popen[bytes]:
        with (folder / RESULT).open("wb") as result, (folder / LOG).open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=result,
                stderr=log,
                env=_environment(os.environ, folder, read_end, silent_s),
                pass_fds=(read_end,),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._process.pid

    @property
    def ran_s(self) -> float:
        """How long it has run."""
        return time.monotonic() - self.started_s

    def give_word(self) -> None:
        """Tells it that the daemon lives and still owns the job."""
        with suppress(BlockingIOError, BrokenPipeError):  # full: it has enough to read
            os.write(self._leash, _WORD)

    def stop(self) -> None:
        """Asks it to stop, the first time; later, once its time for that is over, kills it."""
        now_s = time.monotonic()
        if self._stop_asked_s is None:
            self._stop_asked_s = now_s
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)
        elif now_s - self._stop_asked_s > GRACE_S and not self.was_killed:
            self.kill()

    @property
    def is_stopping(self) -> bool:
        """Whether it was asked to stop."""
        return self._stop_asked_s is not None

    def kill(self) -> None:
        """Kills it and all of its session."""
        self.was_killed = True
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)

    def exit_code(self) -> int | None:
        """Gives its exit code, the negative number of a signal that ended it; None while it runs."""
        return self._process.poll()

    def close(self) -> None:
        """Kills it if it still runs, and all of its session that is left."""
        if self.handle is None:
            return
        self.kill()
        self._process.wait()
        os.close(self.handle)
        self.handle = None
        os.close(self._leash)


def _environment(
    ours: Mapping[str, str], folder: Path, read_end: int, silent_s: float
) -> dict[str, str]:
    """Gives the environment of a job: the daemon's, without what would change what the job asks for."""
    settings = {variable(key) for key in SearchConfig.model_fields}
    kept = {name: value for name, value in ours.items() if name not in settings}
    return {
        **kept,
        VARIABLE: str(folder),
        LEASH: f"{read_end}:{silent_s:g}",
        "PYTHONUNBUFFERED": "1",
    }
