"""Transitions in the order in which they can be seen, none left out.

Two daemons that write to one server at once may commit a later number first. So a number that is
missing is waited for before what comes after it counts as settled; numbers of transactions that were
taken back are never seen, and are given up after a while.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from autosparse.jobs.queue import Queue
from autosparse.jobs.records import Transition

_GIVEN_UP_S = 30.0
_MOST = 1000


class Changes:
    """What happened to jobs since some transition.

    Args:
        queue: of the jobs.
        after: number of the transition after which it begins.
        monotonic: gives seconds.
    """

    def __init__(
        self, queue: Queue, after: int, *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._queue = queue
        self._monotonic = monotonic
        self._seen: set[int] = set()
        self._missing_since_s: dict[int, float] = {}
        self.settled = after
        """All up to this number have been given, or never will be seen."""

    def new(self) -> list[tuple[int, Transition]]:
        """Gives what can be seen for the first time, a limited number at once, with numbers.

        Raises:
            DatabaseError: the database is away; nothing is lost.
        """
        rows = self._queue.transitions_since(self.settled, _MOST + len(self._seen))
        fresh = [row for row in rows if row[0] not in self._seen]
        self._seen.update(number for number, _ in fresh)
        self._settle(max((number for number, _ in rows), default=self.settled))
        return fresh

    def _settle(self, highest: int) -> None:
        now_s = self._monotonic()
        while self.settled < highest:
            number = self.settled + 1
            if number not in self._seen:
                since_s = self._missing_since_s.setdefault(number, now_s)
                if now_s - since_s < _GIVEN_UP_S:
                    return
            self._missing_since_s.pop(number, None)
            self._seen.discard(number)
            self.settled = number
