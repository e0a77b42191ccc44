"""The one channel through which long work reports progress and can be stopped.

A stage is handed a `Progress`. It opens steps, advances them, and asks now and then whether to stop.
Every event says of which job and stage it is, from the first one on. Who listens, a bar
on a terminal, a log file or a web page, is a *sink*: a callable that takes events.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
        job: what the work is for: the verb and, as soon as there is one, its run.
        stage: the stage of the job that is under way.
    """

    kind: Literal["start", "advance", "end", "log"]
    step: str = ""
    done: float = 0.0
    total: float | None = None
    message: str = ""
    at_s: float = 0.0
    job: str = ""
    stage: str = ""


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


@dataclass(slots=True)
class _Place:
    """Where a job is by now; all that report on the job share it."""

    job: str
    stage: str


class Progress:
    """Fans events out to sinks and carries the request to stop.

    Args:
        sinks: called with every event, in order.
        should_stop: asked between units of work; True ends the work with `Stopped`.
        job: what the work is for.
        stage: the stage that it begins with.
    """

    def __init__(
        self,
        *sinks: Sink,
        should_stop: Callable[[], bool] = lambda: False,
        job: str = "",
        stage: str = "",
    ) -> None:
        self._sinks = sinks
        self._should_stop = should_stop
        self._place = _Place(job, stage)

    def of(self, job: str, *sinks: Sink) -> Progress:
        """Gives the progress of a job that begins, which tells some more sinks and stops with this one.

        A job within another, as a comparison that a search makes, is a part of that one.
        """
        place = self._place
        begun = Progress(*self._sinks, *sinks, should_stop=self._should_stop, job=job, stage="start")
        if place.job:
            begun._place = place
        return begun

    def name(self, job: str) -> None:
        """Says what the job is called from now on."""
        self._place.job = job

    @contextmanager
    def at(self, stage: str) -> Iterator[None]:
        """Says that the job is at a stage while the block runs."""
        before, self._place.stage = self._place.stage, stage
        try:
            yield
        finally:
            self._place.stage = before

    def emit(
        self,
        kind: Literal["start", "advance", "end", "log"],
        step: str,
        done: float,
        total: float | None,
        message: str,
    ) -> None:
        """Sends one event to every sink."""
        self.relay(ProgressEvent(kind=kind, step=step, done=done, total=total, message=message))

    def relay(self, event: ProgressEvent) -> None:
        """Sends on what another process tells of this job, at this one's time.

        The job is this one; the stage too, unless the event names one.
        """
        place = self._place
        told = replace(event, at_s=time.time(), job=place.job, stage=event.stage or place.stage)
        for sink in self._sinks:
            sink(told)

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
