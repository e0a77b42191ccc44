"""Work that is done again and again beside a daemon's own, in a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from autosparse.closing import Closing
from autosparse.errors import AutosparseError

log = logging.getLogger(__name__)

_LONGEST_S = 15.0


class Beside(Closing):
    """Does something now and then, until it is closed. What fails is tried again the next time.

    Args:
        name: of the thread.
        work: what is done.
        every_s: how long it rests in between.
        patience_s: how long closing waits for what is under way.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[], object],
        every_s: float,
        *,
        patience_s: float = _LONGEST_S,
    ) -> None:
        self._work = work
        self._every_s = every_s
        self._patience_s = patience_s
        self._stop = threading.Event()
        # A daemon thread: what hangs for good must not keep the process.
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends it. Closing twice is fine."""
        self._stop.set()
        if self._thread is not threading.current_thread():
            self._thread.join(self._patience_s)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                self._work()
            except AutosparseError as error:
                log.error("%s: %s", self._thread.name, error)
            except Exception:  # the border of the thread
                log.exception("%s failed", self._thread.name)
            self._stop.wait(self._every_s)
