"""A daemon's job followed to its end: what is shown meanwhile, its result, and how the command ends."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from autosparse.cli.bars import progress_sink
from autosparse.cli.output import emit, emit_json, notice
from autosparse.cli.remote import epoch_s, shown_time
from autosparse.cli.settings import Settings
from autosparse.errors import AutosparseError, ExitCode
from autosparse.progress import ProgressEvent, Sink
from autosparse.units import format_duration

if TYPE_CHECKING:
    from autosparse.client.daemon import Daemon
    from autosparse.client.records import HowFar, RemoteJob

# Somebody ended a cancelled job on purpose: a script that resumes what was stopped leaves it alone.
_CODES: Mapping[str, ExitCode] = MappingProxyType(
    {
        "done": ExitCode.DONE,
        "infeasible": ExitCode.INFEASIBLE,
        "stopped": ExitCode.STOPPED,
        "cancelled": ExitCode.INTERRUPTED,
    }
)
_IN_LINE = "in line"
_MOST_CODE = 255
# Of what a job says beside its result, all but its own progress, which bars show.
_REMARK = re.compile(r"autosparse: |(WARNING|ERROR|CRITICAL) autosparse")


def wait(daemon: Daemon, number: int, settings: Settings, *, as_json: bool) -> int:
    """Follows a job to its end, prints its result as the local verb would, and gives its exit code.

    Raises:
        AutosparseError: the daemon does not answer any more, or refuses.
        KeyboardInterrupt: the user leaves; the job goes on.
    """
    from autosparse.client.following import follow

    try:
        with progress_sink(quiet=settings.quiet) as sink:
            shown = Shown(sink, has_bars=sys.stderr.isatty() and not settings.quiet)
            job = follow(daemon, number, shown)
            shown.end(job)
    except KeyboardInterrupt:
        notice(
            f"job {number} goes on; follow it: autosparse logs {number} -f; "
            f"cancel it: autosparse cancel {number}"
        )
        raise
    return finish(daemon, job, as_json=as_json)


def finish(daemon: Daemon, job: RemoteJob, *, as_json: bool) -> int:
    """Prints what a job that has ended gave, says why it gave nothing, and gives its exit code."""
    result = daemon.result(job.id) if job.state in ("done", "infeasible", "failed") else None
    if result is not None:
        _print(job.verb, result, as_json)
    if job.state in ("done", "infeasible"):
        if result is None:
            notice(f"job {job.id} is {job.state}, but its result is not there any more")
        return _CODES[job.state]
    again = f"; it goes on where it was by: autosparse resume {job.id}"
    why = f": {job.message}" if job.message else ""
    notice(f"job {job.id} {'' if job.state == 'failed' else 'was '}{job.state}{why}{again}")
    return _CODES.get(job.state) or _failed(job.exit_code)


def _failed(code: int | None) -> int:
    """Gives the exit code of a job that failed: its own, if it ended by itself."""
    return code if code is not None and 0 < code <= _MOST_CODE else ExitCode.INTERNAL


def _print(verb: str, result: Any, as_json: bool) -> None:
    if as_json:
        emit_json(result)
        return
    try:
        emit(_text(verb, result))
    except (AutosparseError, AttributeError, LookupError, TypeError, ValueError) as error:
        notice(f"the result is of another version of autosparse, so here it is as it came: {error}")
        emit_json(result)


def _text(verb: str, result: Any) -> str:
    """Words a result as the local verb does."""
    if verb == "search":
        from autosparse.report.document import parse
        from autosparse.report.moves import FrontMove
        from autosparse.report.text import summary

        moved = result.get("moved")
        said = [] if moved is None else [FrontMove.from_json(moved)]
        lines = [
            summary(parse(result, "the result")),
            *(f"since {m.older}: {m.sentence}" for m in said),
        ]
        return "\n\n".join([*lines, f"report: {result['run']}/report.html"])
    if verb == "check":
        from autosparse.pipeline.results.checked import CheckOutcome

        return CheckOutcome.from_json(result).text()
    from autosparse.pipeline.results.outcomes import TrainOutcome, TuneOutcome

    outcome = TuneOutcome if verb == "tune" else TrainOutcome
    return outcome.from_json(result).text()


class Shown:
    """Shows a remote job as a local one is shown.

    The daemon says how far a job is, not when its steps begin and end: that is made of it here. Where
    there are no bars, what the job itself says is as good, and that alone is shown.

    Args:
        sink: takes the events of a local job.
        has_bars: whether it shows bars.
    """

    def __init__(self, sink: Sink, *, has_bars: bool) -> None:
        self._sink = sink
        self._has_bars = has_bars
        self._state = ""
        self._attempt = 0
        self._step = ""
        self._at_s = 0.0
        self._done = 0.0
        self._total: float | None = None

    def job(self, job: RemoteJob) -> None:
        """Shows a change of its state."""
        if (job.state, job.attempt) == (self._state, self._attempt):
            return
        self._state, self._attempt = job.state, job.attempt
        if job.has_ended:
            return
        self._close(is_whole=self._step == _IN_LINE)
        if job.state in ("submitted", "waiting"):
            self._begin(_IN_LINE, time.time())
            if job.message:
                self._log(f"job {job.id} is in line again: {job.message}")
            if job.ready_at and (epoch_s(job.ready_at) or 0.0) > time.time():
                self._log(f"job {job.id} does not begin before {shown_time(job.ready_at)}")
        elif job.state == "running":
            again = f", for the {job.attempt}. time" if job.attempt > 1 else ""
            self._log(f"job {job.id} runs{again}")

    def how_far(self, progress: HowFar) -> None:
        """Shows how far it is."""
        if not self._has_bars or not progress.step or self._state != "running":
            return
        at_s = epoch_s(progress.at) or time.time()
        if progress.step != self._step:
            self._close(at_s)
            self._begin(progress.step, at_s, progress.total)
        self._at_s, self._done, self._total = at_s, progress.done, progress.total
        left = "" if progress.left_s is None else f"{format_duration(progress.left_s * 1e6)} in all"
        message = ", ".join(text for text in (progress.message, left) if text)
        self._tell("advance", message=message)

    def line(self, text: str) -> None:
        """Shows a line that it said."""
        if text.strip() and (not self._has_bars or _REMARK.match(text)):
            self._log(text)

    def gap(self, why: str) -> None:
        """Shows that nothing is heard of it for now, or that something is again."""
        self._log(f"{why}; waiting for it" if why else "the daemon answers again")

    def end(self, job: RemoteJob) -> None:
        """Shows that it has ended."""
        self._close(epoch_s(job.changed_at), is_whole=job.state == "done")

    def _begin(self, step: str, at_s: float, total: float | None = None) -> None:
        self._step, self._at_s, self._done, self._total = step, at_s, 0.0, total
        self._tell("start")

    def _close(self, at_s: float | None = None, *, is_whole: bool = True) -> None:
        """Ends the step that is shown; one that another follows counts as done."""
        if not self._step:
            return
        if self._step == _IN_LINE:
            at_s = time.time()  # of this clock, as its beginning is
        self._at_s = max(self._at_s, at_s or 0.0)
        if is_whole:
            self._total = None
        self._tell("end")
        self._step = ""

    def _log(self, text: str) -> None:
        self._sink(ProgressEvent(kind="log", message=text, at_s=time.time()))

    def _tell(self, kind: Literal["start", "advance", "end"], message: str = "") -> None:
        self._sink(
            ProgressEvent(
                kind=kind,
                step=self._step,
                done=self._done,
                total=self._total,
                message=message,
                at_s=self._at_s,
            )
        )
