"""The one channel through which long work reports progress and can be stopped.

A stage is handed a `Progress`. It opens steps, advances them, and asks now and then whether to stop.
Who listens — a bar on a terminal, a log file, a web page — is a *sink*: a callable that takes events.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

from autosparse.errors import Stopped

STOPPED = "stopped on request; run the same command again to continue"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgressEvent:
    """One thing that happened.

    Attributes:
        kind: ``start`` and ``end`` bracket a step, ``advance`` moves it, ``log`` is a line of text.
        step: name of the step; empty for a log line outside any step.
        done: units finished so far.
        total: units in all, or None while unknown.
        message: text for a person.
        at_s: seconds since the epoch.
    """

    kind: Literal["start", "advance", "end", "log"]
    step: str = ""
    done: float = 0.0
    total: float | None = None
    message: str = ""
    at_s: float = 0.0


Sink = Callable[[ProgressEvent], None]


def silent(event: ProgressEvent) -> None:
    """The sink that listens to nothing."""


class Step:
    """One counted piece of work, made by `Progress.step`."""

    def __init__(self, progress: Progress, name: str, total: float | None) -> None:
        self._progress = progress
        self.name = name
        self.total = total
        self.done = 0.0

    def advance(self, amount: float = 1.0, message: str = "") -> None:
        """Moves the step on, then stops the work if a stop was asked for.

        Raises:
            Stopped: a stop was requested; what is done so far is already saved by the caller.
        """
        self.done += amount
        self._progress.emit("advance", self.name, self.done, self.total, message)
        self._progress.check()

    def show(self, done: float) -> None:
        """Shows how far the unit under way has come, then stops the work if a stop was asked for.

        Raises:
            Stopped: a stop was requested; the unit under way is lost.
        """
        self._progress.emit("advance", self.name, done, self.total, "")
        self._progress.check()

    def check(self) -> None:
        """Stops the work if a stop was asked for.

        Raises:
            Stopped: a stop was requested.
        """
        self._progress.check()

    def resize(self, total: float) -> None:
        """Corrects the number of units in all."""
        self.total = total
        self._progress.emit("advance", self.name, self.done, self.total, "")


class Progress:
    """Fans events out to sinks and carries the request to stop.

    Args:
        sinks: called with every event, in order.
        should_stop: asked between units of work; True ends the work with `Stopped`.
    """

    def __init__(self, *sinks: Sink, should_stop: Callable[[], bool] = lambda: False) -> None:
        self._sinks = sinks
        self._should_stop = should_stop

    def also(self, sink: Sink) -> Progress:
        """Gives a progress that tells one more sink, and stops when this one does."""
        return Progress(*self._sinks, sink, should_stop=self._should_stop)

    def emit(
        self,
        kind: Literal["start", "advance", "end", "log"],
        step: str,
        done: float,
        total: float | None,
        message: str,
    ) -> None:
        """Sends one event to every sink."""
        event = ProgressEvent(
            kind=kind, step=step, done=done, total=total, message=message, at_s=time.time()
        )
        for sink in self._sinks:
            sink(event)

    def log(self, message: str) -> None:
        """Sends one line of text."""
        self.emit("log", "", 0.0, None, message)

    def stop_requested(self) -> bool:
        """Whether somebody asked the work to end; whoever is told so ends it within a second."""
        return self._should_stop()

    def check(self) -> None:
        """Ends the work if a stop was asked for.

        Raises:
            Stopped: a stop was requested.
        """
        if self._should_stop():
            raise Stopped(STOPPED)

    @contextmanager
    def step(self, name: str, total: float | None = None) -> Iterator[Step]:
        """Opens a step of `total` units; the step ends when the block does."""
        step = Step(self, name, total)
        self.emit("start", name, 0.0, total, "")
        try:
            yield step
        finally:
            self.emit("end", name, step.done, step.total, "")
