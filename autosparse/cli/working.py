"""What a verb that takes long needs: progress shown, and Ctrl-C that first stops and then aborts.

A stop is heeded within two seconds, in one of three ways. Work that asks whether to stop ends at the
end of its step. Whatever does not ask in time is interrupted where it is. What cannot be interrupted
either, one long call of a library, ends with the process. All that is worth keeping is on disk by then,
since any process may be killed at any moment.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Container, Iterator
from contextlib import contextmanager
from types import FrameType

from autosparse.cli.bars import progress_sink
from autosparse.cli.leaving import leave_midway
from autosparse.cli.settings import Settings
from autosparse.errors import Stopped, StoppedMidway
from autosparse.progress import STOPPED, Progress, Sink
from autosparse.storage.for_job import EVENTS, job_folder

# Time that work has to ask whether to stop before it is interrupted.
_GRACE_S = 0.5
# Time after which the process ends, whatever it does.
_LAST_S = 1.8
_ENDED = b"\0"


class StopRequest:
    """Turns the first interrupt into a request to stop, and the second into the end.

    Called without arguments it says whether the work shall stop, which is what `Progress` asks. Work
    that has been told ends by itself; other work is interrupted a moment later.
    """

    def __init__(self) -> None:
        self.requested = False

    def __call__(self) -> bool:
        """Tells whether the work shall stop."""
        if self.requested:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return self.requested

    def interrupt(self, number: int = signal.SIGINT, frame: FrameType | None = None) -> None:
        """Takes one interrupt, as a signal handler.

        Raises:
            KeyboardInterrupt: it is not the first.
        """
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        signal.setitimer(signal.ITIMER_REAL, _GRACE_S)
        print(
            "autosparse: stopping; what is done is kept (interrupt again to abort at once)",
            file=sys.stderr,
            flush=True,
        )

    def _leave_midway(self, number: int, frame: FrameType | None) -> None:
        raise StoppedMidway

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Takes Ctrl-C and polite requests to terminate while the block runs."""
        asked = dict.fromkeys((signal.SIGINT, signal.SIGTERM), self.interrupt)
        handlers = {**asked, signal.SIGALRM: self._leave_midway}
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            with _last_resort(asked):
                yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def _last_resort(signals: Container[int]) -> Iterator[None]:
    """Ends the process if the block goes on for long after one of the signals came.

    A handler runs when the main thread comes back to Python, which one long call of a library prevents;
    a number of the signal is written to a descriptor at once.
    """
    told, tell = os.pipe()
    os.set_blocking(tell, False)
    before = signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    watching = threading.Thread(target=_watch, args=(told, signals), daemon=True)
    watching.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.write(tell, _ENDED)
        watching.join()
        os.close(told)
        os.close(tell)


def _watch(told: int, signals: Container[int]) -> None:
    due_s = None
    while True:
        left_s = None if due_s is None else max(0.0, due_s - time.monotonic())
        if not select.select([told], [], [], left_s)[0]:
            leave_midway()
        for number in os.read(told, 64):
            if number == _ENDED[0]:
                return
            if number in signals and due_s is None:
                due_s = time.monotonic() + _LAST_S


def _forget_in_child() -> None:
    """Keeps the signals of a forked child to itself."""
    signal.set_wakeup_fd(-1)


os.register_at_fork(after_in_child=_forget_in_child)


def _kept() -> list[Sink]:
    """Gives what keeps the progress of a daemon's job for the daemon; nothing for a person's."""
    folder = job_folder()
    if folder is None:
        return []
    from autosparse.run_folders.event_log import EventLog  # brings numpy, and help must not

    return [EventLog(folder / EVENTS)]


@contextmanager
def working(settings: Settings) -> Iterator[Progress]:
    """Gives the progress channel of one verb: shown on stderr, stoppable from the keyboard.

    Raises:
        Stopped: a stop was requested, and the work was interrupted in the middle of a step.
    """
    stop = StopRequest()
    try:
        with stop.listening(), progress_sink(quiet=settings.quiet) as sink:
            yield Progress(sink, *_kept(), should_stop=stop)
    except StoppedMidway:
        raise Stopped(STOPPED) from None
