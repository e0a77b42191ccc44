"""Progress on stderr: bars on a terminal, a plain line now and then where there is none."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from autosparse.cli.output import one_line
from autosparse.progress import ProgressEvent, Sink, silent
from autosparse.units import format_duration

LINE_EVERY_S = 10.0
WORTH_TELLING_S = 2.0


@contextmanager
def progress_sink(*, quiet: bool) -> Iterator[Sink]:
    """Gives the sink that suits stderr, and puts the terminal in order afterwards."""
    if quiet:
        yield silent
        return
    if not sys.stderr.isatty():
        yield PlainLines()
        return
    console = Console(stderr=True)
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        _Count(),
        TimeElapsedColumn(),
        _TimeLeft(),
        TextColumn("[dim]{task.fields[message]}"),
        console=console,
        transient=True,
        refresh_per_second=2,  # drawing must not take time from what is being measured
    ) as shown:
        yield Bars(shown, console)


class _Count(ProgressColumn):
    """``3/12``, or nothing while the total is unknown."""

    def render(self, task: Task) -> Text:
        return Text("" if task.total is None else f"{task.completed:g}/{task.total:g}")


class _TimeLeft(ProgressColumn):
    """``1.5 min left``, from the mean speed so far."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        left = time_left_s(task.completed, task.total, task.elapsed or 0.0)
        return Text("" if left is None else f"{_rounded(left)} left", style="cyan")


def time_left_s(done: float, total: float | None, elapsed_s: float) -> float | None:
    """Gives the seconds a step still takes at its mean speed; None before that is known."""
    if total is None or done <= 0 or elapsed_s <= 0:
        return None
    return max(0.0, total - done) * elapsed_s / done


def _rounded(seconds: float) -> str:
    return format_duration(max(1, round(seconds)) * 1e6)


class Bars:
    """One bar per open step; a step that took a while leaves one line behind."""

    def __init__(self, shown: Progress, console: Console) -> None:
        self._shown = shown
        self._console = console
        self._open: dict[str, tuple[TaskID, float]] = {}

    def __call__(self, event: ProgressEvent) -> None:
        """Shows one event."""
        if event.kind == "log":
            self._console.print(one_line(event.message), markup=False, highlight=False)
        elif event.kind == "start":
            self._end(event)  # a name used twice: the later one counts
            task = self._shown.add_task(event.step, total=event.total, message="")
            self._open[event.step] = (task, event.at_s)
        elif event.kind == "advance" and event.step in self._open:
            task = self._open[event.step][0]
            if event.done < self._shown.tasks[self._shown.task_ids.index(task)].completed:
                self._shown.reset(task)  # a step that begins anew has a new speed
            self._shown.update(
                task,
                completed=event.done,
                total=event.total,
                message=event.message,
            )
        elif event.kind == "end":
            self._end(event)

    def _end(self, event: ProgressEvent) -> None:
        task, started_s = self._open.pop(event.step, (None, 0.0))
        if task is None:
            return
        self._shown.remove_task(task)
        if event.at_s - started_s >= WORTH_TELLING_S:
            self._console.print(end_line(event, started_s), markup=False, highlight=False)


class PlainLines:
    """Lines for a log: the start and the end of a step, and every ten seconds how far it is."""

    def __init__(self) -> None:
        self._started_s: dict[str, float] = {}
        self._told_s: dict[str, float] = {}
        # When the step began, or began anew, and how far it was when last heard of.
        self._begun_s: dict[str, float] = {}
        self._done: dict[str, float] = {}

    def __call__(self, event: ProgressEvent) -> None:
        """Prints one event, if it is time to."""
        if event.kind == "log":
            _tell(event.message)
        elif event.kind == "start":
            self._started_s[event.step] = self._told_s[event.step] = event.at_s
            self._begun_s[event.step], self._done[event.step] = event.at_s, 0.0
        elif event.kind == "advance":
            self._advance(event)
        else:
            started_s = self._started_s.pop(event.step, event.at_s)
            if event.at_s - started_s >= WORTH_TELLING_S:
                _tell(end_line(event, started_s))

    def _advance(self, event: ProgressEvent) -> None:
        if event.done < self._done.get(event.step, 0.0):
            self._begun_s[event.step] = event.at_s
        self._done[event.step] = event.done
        if event.at_s - self._told_s.get(event.step, event.at_s) < LINE_EVERY_S:
            return
        self._told_s[event.step] = event.at_s
        count = f"{event.done:g}" if event.total is None else f"{event.done:g}/{event.total:g}"
        left = time_left_s(event.done, event.total, event.at_s - self._begun_s[event.step])
        rest = "" if left is None else f", about {_rounded(left)} left"
        _tell(f"{event.step}: {count}{rest}{f' ({event.message})' if event.message else ''}")


def end_line(event: ProgressEvent, started_s: float) -> str:
    """Words the end of a step: how much of it was done, and how long that took."""
    took = format_duration((event.at_s - started_s) * 1e6)
    if event.total is None or event.done >= event.total:
        return f"{event.step}: done in {took}"
    return f"{event.step}: ended at {event.done:g}/{event.total:g} after {took}"


def _tell(line: str) -> None:
    print(one_line(line), file=sys.stderr, flush=True)
