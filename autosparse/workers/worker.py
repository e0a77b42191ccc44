"""A child process that measures one thing at a time and may die doing so.

A kernel can hang, crash, or corrupt its process. So none runs in the process that decides: it runs in a
child, which is killed after a time limit and started anew when it is gone. The child's process group is
its own, so Ctrl-C reaches only the parent; the child ends by itself when the parent does.
"""

from __future__ import annotations

import json
import logging
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

from autosparse.closing import Closing
from autosparse.errors import AutosparseError
from autosparse.progress import Progress, ProgressEvent

log = logging.getLogger(__name__)

LAYER_RUNNER = "autosparse.tuning.layer_job:run"
"""The runner that verifies and times real kernels."""

_START_S = 60.0
# How often a caller that waits for the child is asked whether to stop.
_LOOK_S = 0.2
_LAST_WORDS = 600
# The reference is computed by a library with threads of its own, which must not spin during a timing.
_LIBRARY_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """How one job ended.

    Attributes:
        ending: ``done``; ``error``: the runner raised; ``crashed``: the process died; ``timeout``: it
            was killed.
        outcome: what the runner gave, if it is done.
        message: what went wrong otherwise.
        seconds: wall time, starting the process not included.
    """

    ending: Literal["done", "error", "crashed", "timeout"]
    outcome: Mapping[str, Any] | None = None
    message: str = ""
    seconds: float = 0.0


class Worker(Closing):
    """Sends jobs to a child process and outlives it.

    Use as a context manager, or call `close`. The process is started by the first job.

    Args:
        runner: dotted path of the function that carries out jobs, ``package.module:function``. It takes
            a job, and a `Progress` to tell of it if it has a second parameter.
        import_path: folders put in front of the child's module path.
        processors: logical processors the child may run on; None leaves it all that the parent has.
        library_threads: threads that libraries of the child may start unless told otherwise; None sets
            no limit.
        environment: variables of the child beside those of this process.
    """

    def __init__(
        self,
        runner: str = LAYER_RUNNER,
        *,
        import_path: Sequence[Path] = (),
        processors: Sequence[int] | None = None,
        library_threads: int | None = 1,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._environment = dict(environment or {})
        if library_threads is not None:
            self._environment |= dict.fromkeys(_LIBRARY_THREADS, str(library_threads))
        self._settings = {
            "runner": runner,
            "import_path": [str(folder) for folder in import_path],
            "processors": sorted(processors or ()),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None
        self._received = b""
        self._job = 0
        self.starts = 0

    def call(
        self, job: Mapping[str, Any], timeout_s: float, progress: Progress | None = None
    ) -> Answer:
        """Has one job done.

        Args:
            job: plain JSON values for the runner.
            timeout_s: time after which the child counts as hung and is killed.
            progress: told what the child tells, and asked again and again whether to stop; a stop
                kills the child at once.

        Raises:
            AutosparseError: the child cannot be started.
            Stopped: a stop was requested.
        """
        self.start()
        self._job += 1
        begun = time.monotonic()
        try:
            self._send({"id": self._job, "job": dict(job)})
            answer = self._receive(begun + timeout_s, progress or Progress())
        except BrokenPipeError:
            answer = None
        except BaseException:
            self.kill()  # the answer to this job may still come, and must not pass for the next one's
            raise
        seconds = time.monotonic() - begun
        if answer is None:
            return self._bury(seconds, timeout_s)
        assert answer["id"] == self._job
        if "error" in answer:
            log.debug("a job failed: %s", answer["traceback"])
            return Answer(ending="error", message=answer["error"], seconds=seconds)
        return Answer(ending="done", outcome=answer["outcome"], seconds=seconds)

    def start(self) -> None:
        """Starts the child unless it is alive."""
        if self._process is not None and self._process.poll() is None:
            return
        self.kill()
        self._stderr = tempfile.TemporaryFile()
        self._received = b""
        self._process = subprocess.Popen(
            # Without -P, a file torch.py in the current folder would be taken for the library.
            [sys.executable, "-P", "-m", "autosparse.workers.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env={**os.environ, **self._environment},
            start_new_session=True,
        )
        self.starts += 1
        try:
            self._send(self._settings)
            ready = self._receive(time.monotonic() + _START_S, Progress())
        except BrokenPipeError:
            ready = None
        if ready is None:
            told = self._last_words()
            self.kill()
            raise AutosparseError(
                f"the measuring process must start, but {self._settings['runner']} did not: {told}"
            )
        log.debug("measuring process %d is ready", ready["ready"])

    def kill(self) -> None:
        """Ends the child at once, with all it has started."""
        if self._process is None:
            return
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            if stream is not None:
                _close(stream)
        self._process = self._stderr = None

    def close(self) -> None:
        """Ends the child."""
        self.kill()

    def _send(self, message: Mapping[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message).encode() + b"\n")
        self._process.stdin.flush()

    def _receive(self, deadline: float, progress: Progress) -> dict[str, Any] | None:
        """Gives the next answer and passes on events; None if the child dies or the deadline passes."""
        assert self._process is not None
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while True:
                message = self._next_message()
                if message is not None and "event" not in message:
                    return message
                if message is not None:
                    progress.relay(ProgressEvent(**message["event"]))
                    continue
                progress.check()
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                if not selector.select(min(left, _LOOK_S)):
                    continue
                chunk = os.read(self._process.stdout.fileno(), 1 << 16)
                if not chunk:
                    return None
                self._received += chunk

    def _next_message(self) -> dict[str, Any] | None:
        """Takes a message that has arrived as a whole; None if there is none."""
        if b"\n" not in self._received:
            return None
        line, _, self._received = self._received.partition(b"\n")
        message: dict[str, Any] = json.loads(line)
        return message

    def _bury(self, seconds: float, timeout_s: float) -> Answer:
        assert self._process is not None
        if seconds >= timeout_s:
            self.kill()
            message = f"killed after {timeout_s:g} s"
            return Answer(ending="timeout", message=message, seconds=seconds)
        code = self._process.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        told = self._last_words()
        self.kill()
        message = f"the process ended with {how}" + (f": {told}" if told else "")
        return Answer(ending="crashed", message=message, seconds=seconds)

    def _last_words(self) -> str:
        if self._stderr is None:
            return ""
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - _LAST_WORDS))
        return self._stderr.read().decode(errors="replace").strip()


def _close(stream: IO[bytes]) -> None:
    try:
        stream.close()
    except BrokenPipeError:  # a request that the dead child never read
        pass
