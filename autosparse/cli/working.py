"""What a verb that takes long needs: progress shown, and Ctrl-C that first stops and then aborts.

A stop is heeded in one of two ways. Work that asks whether to stop ends at the end of its step.
Whatever does not ask in time is interrupted where it is: all that is worth keeping is on disk by then,
since any process may be killed at any moment.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from autosparse.cli.bars import progress_sink
from autosparse.cli.settings import Settings
from autosparse.errors import Stopped, StoppedMidway
from autosparse.progress import STOPPED, Progress

# Time that work has to ask whether to stop before it is interrupted.
_GRACE_S = 0.5


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
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def working(settings: Settings) -> Iterator[Progress]:
    """Gives the progress channel of one verb: shown on stderr, stoppable from the keyboard.

    Raises:
        Stopped: a stop was requested, and the work was interrupted in the middle of a step.
    """
    stop = StopRequest()
    try:
        with stop.listening(), progress_sink(quiet=settings.quiet) as sink:
            yield Progress(sink, should_stop=stop)
    except StoppedMidway:
        raise Stopped(STOPPED) from None
