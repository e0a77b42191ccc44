"""What a verb that takes long needs: progress shown, and Ctrl-C that first stops and then aborts."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from autosparse.cli.bars import progress_sink
from autosparse.cli.settings import Settings
from autosparse.progress import Progress


class StopRequest:
    """Turns the first interrupt into a request to stop, and the second into the end.

    Called without arguments it says whether the work shall stop, which is what `Progress` asks.
    """

    def __init__(self) -> None:
        self.requested = False

    def __call__(self) -> bool:
        """Tells whether the work shall stop."""
        return self.requested

    def interrupt(self, number: int = signal.SIGINT, frame: FrameType | None = None) -> None:
        """Takes one interrupt, as a signal handler.

        Raises:
            KeyboardInterrupt: it is not the first.
        """
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        print(
            "autosparse: stopping after the current step; interrupt again to abort at once",
            file=sys.stderr,
            flush=True,
        )

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Takes Ctrl-C and polite requests to terminate while the block runs."""
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in before:
            signal.signal(number, self.interrupt)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


@contextmanager
def working(settings: Settings) -> Iterator[Progress]:
    """Gives the progress channel of one verb: shown on stderr, stoppable from the keyboard."""
    stop = StopRequest()
    with stop.listening(), progress_sink(quiet=settings.quiet) as sink:
        yield Progress(sink, should_stop=stop)
