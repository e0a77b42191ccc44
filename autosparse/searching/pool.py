"""Where work runs: what every pool offers, and the one that runs it in this process."""

from __future__ import annotations

import math
import os
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import threadpoolctl

from autosparse.closing import Closing

WorkKind = Literal["train", "measure"]
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a piece of work ended. A failure is a value here, never an exception.

    Attributes:
        status: ``ok``; ``error``, it raised; ``died``, its process ended; ``timeout``, it was killed
            after its limit; ``cancelled``, the pool was closed first.
        value: what it returned.
        reason: one line on the failure, or empty.
        trace: the traceback of an exception, or empty.
        seconds: how long it took from start to end, as far as known.
    """

    status: Literal["ok", "error", "died", "timeout", "cancelled"]
    value: Any = None
    reason: str = ""
    trace: str = ""
    seconds: float = 0.0


@dataclass(eq=False, slots=True)
class Handle:
    """A piece of work handed to a pool.

    Attributes:
        number: counts the pool's work from 0.
        outcome: how it ended, None while it has not.
    """

    number: int
    outcome: Outcome | None = None


class AbstractPool(Protocol):
    """Runs functions somewhere. All pools behave alike but for where and how many at once."""

    cores: int

    def submit(
        self,
        function: Callable[..., Any],
        *args: Any,
        cores: int = 1,
        kind: WorkKind = "train",
        timeout_s: float | None = None,
    ) -> Handle:
        """Hands over a call.

        Args:
            function: importable or picklable.
            *args: picklable arguments.
            cores: cores it gets; its thread counts are set to it.
            kind: ``measure`` runs alone on its machine, ``train`` beside others.
            timeout_s: seconds after which it is killed, where the pool can kill.
        """

    def wait(
        self, handles: Sequence[Handle], timeout_s: float | None = None
    ) -> tuple[list[Handle], list[Handle]]:
        """Waits until at least one of the handles has its outcome, or the time is up.

        Returns:
            Those that have ended and those that have not, both in the order given.
        """

    def exclusive(self) -> AbstractContextManager[None]:
        """Waits until all work has ended, so that the block may measure on this machine."""

    def close(self) -> None:
        """Ends what still runs and leaves no process behind. Closing twice is fine."""


def run_call(function: Callable[..., Any], args: tuple[Any, ...], cores: int) -> Outcome:
    """Runs a call with its thread counts set, and turns an exception into an outcome."""
    started = time.perf_counter()
    try:
        with threads(cores):
            value = function(*args)
    except Exception as error:  # the worker's border: a failure becomes a value
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        seconds = time.perf_counter() - started
        return Outcome(status="error", reason=reason, trace=traceback.format_exc(), seconds=seconds)
    return Outcome(status="ok", value=value, seconds=time.perf_counter() - started)


@contextmanager
def threads(cores: int) -> Iterator[None]:
    """Sets the thread counts of libraries already loaded and of those to be, for a while."""
    before = {variable: os.environ.get(variable) for variable in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(cores)))
    torch = sys.modules.get("torch")  # it reads the environment only while it loads
    torch_before = torch.get_num_threads() if torch else 0
    try:
        with threadpoolctl.threadpool_limits(cores):
            if torch:
                torch.set_num_threads(cores)
            yield
    finally:
        if torch:
            torch.set_num_threads(torch_before)
        for variable, value in before.items():
            if value is None:
                os.environ.pop(variable, None)
            else:
                os.environ[variable] = value


class SerialPool(Closing):
    """Runs work in this process, one piece at a time, when somebody waits for it.

    It cannot kill: a timeout has no effect here, and a crash takes the process along.

    Args:
        cores: thread count of the work; by default what each submission says.
    """

    def __init__(self, cores: int = 1) -> None:
        self.cores = cores
        self._queue: deque[tuple[Handle, Callable[..., Any], tuple[Any, ...], int]] = deque()
        self._count = 0

    def submit(
        self,
        function: Callable[..., Any],
        *args: Any,
        cores: int = 1,
        kind: WorkKind = "train",
        timeout_s: float | None = None,
    ) -> Handle:
        """Queues a call; see `AbstractPool.submit`."""
        handle = Handle(self._count)
        self._count += 1
        self._queue.append((handle, function, args, max(cores, self.cores)))
        return handle

    def wait(
        self, handles: Sequence[Handle], timeout_s: float | None = None
    ) -> tuple[list[Handle], list[Handle]]:
        """Runs queued calls, first come first served, until one of the handles has its outcome."""
        deadline = time.monotonic() + (math.inf if timeout_s is None else timeout_s)
        while self._queue and not any(handle.outcome for handle in handles):
            handle, function, args, cores = self._queue.popleft()
            handle.outcome = run_call(function, args, cores)
            if time.monotonic() > deadline:
                break
        return split(handles)

    def exclusive(self) -> AbstractContextManager[None]:
        """Runs what is queued; see `AbstractPool.exclusive`."""
        while self._queue:
            handle, function, args, cores = self._queue.popleft()
            handle.outcome = run_call(function, args, cores)
        return nullcontext()

    def close(self) -> None:
        """Drops what was not run."""
        for handle, *_ in self._queue:
            handle.outcome = Outcome(status="cancelled", reason="the pool was closed")
        self._queue.clear()


def split(handles: Sequence[Handle]) -> tuple[list[Handle], list[Handle]]:
    """Parts handles into those with an outcome and those without."""
    return [h for h in handles if h.outcome], [h for h in handles if not h.outcome]
