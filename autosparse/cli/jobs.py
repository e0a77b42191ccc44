"""The verbs around a daemon's jobs: status, logs, cancel, resume."""

from __future__ import annotations

import codecs
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from autosparse.cli import options, remote
from autosparse.cli.output import emit, emit_facts, emit_json, emit_table, notice, one_line, printable
from autosparse.cli.remote import number, open_daemon, shown_time
from autosparse.errors import AutosparseError, ExitCode
from autosparse.units import format_duration

if TYPE_CHECKING:
    from autosparse.client.daemon import Daemon
    from autosparse.client.records import RemoteJob

_RECENT = 20
_MOST_OPEN = 1000
_FOLLOW_EVERY_S = 1.0
_LONGEST_CELL = 40
_LONGEST_LINE = 2**16


def status(
    job: remote.MaybeNumber = None,
    recent: Annotated[
        int,
        typer.Option(
            "--recent", "-n", help="Jobs to list beside the open ones.", min=0, max=10_000, metavar=""
        ),
    ] = _RECENT,
    server: remote.Server = None,
    as_json: options.Json = False,
) -> int:
    """Show the daemon's open and recent jobs, or all that is known of one."""
    wanted = None if job is None else number(job)
    with open_daemon(server) as daemon:
        if wanted is not None:
            _show_one(daemon, wanted, as_json)
        else:
            _show_all(daemon, recent, as_json)
    return ExitCode.DONE


def _show_all(daemon: Daemon, recent: int, as_json: bool) -> None:
    from autosparse.client.records import OPEN

    still_open = daemon.jobs(OPEN, limit=_MOST_OPEN)
    latest = daemon.jobs(limit=recent) if recent else []
    every = {job.id: job for job in (*still_open, *latest)}
    found = [every[each] for each in sorted(every, reverse=True)]
    if as_json:
        emit_json([job.raw for job in found])
        return
    if not found:
        emit("no jobs")
        return
    emit_table(
        ("job", "state", "verb", "of", "how far", "since", "label"),
        (
            (
                job.id,
                "cancelling" if job.cancelling and not job.has_ended else job.state,
                job.verb,
                _cell(_subject(job)),
                _cell(_how_far(job)),
                shown_time(job.changed_at),
                _cell(job.label),
            )
            for job in found
        ),
        whole=("job", "state"),
    )
    if len(still_open) == _MOST_OPEN:
        notice(f"of the open jobs only the latest {_MOST_OPEN} are listed")


def _cell(text: str) -> str:
    shown = one_line(text)
    return shown if len(shown) <= _LONGEST_CELL else f"{shown[: _LONGEST_CELL - 3]}..."


def _subject(job: RemoteJob) -> str:
    from autosparse import factories

    model = job.settings.get("model")
    if model:
        return factories.shown(str(model))
    return str(job.settings.get("run") or job.settings.get("artifact") or job.run)


def _how_far(job: RemoteJob) -> str:
    if job.state == "running" and (far := job.how_far) is not None:
        count = "" if far.total is None else f" {far.done:g}/{far.total:g}"
        left = "" if far.left_s is None else f", {format_duration(max(far.left_s, 1.0) * 1e6)} left"
        return f"{far.step or far.stage}{count}{left}"
    if job.ready_at and (remote.epoch_s(job.ready_at) or 0.0) > time.time():
        return f"from {shown_time(job.ready_at)}"
    return job.message if job.state != "done" else ""


def _show_one(daemon: Daemon, wanted: int, as_json: bool) -> None:
    job, changes = daemon.job(wanted), daemon.changes(wanted)
    if as_json:
        emit_json({**job.raw, "transitions": [change.raw for change in changes]})
        return
    ended = "" if job.exit_code is None else f", exit code {job.exit_code}"
    facts = [
        ("job", job.id),
        ("verb", job.verb),
        ("settings", remote.shown_settings(job.settings)),
        ("state", f"{job.state}{ended}{', is being cancelled' if job.cancelling else ''}"),
        ("how far", _how_far(job) if not job.has_ended else ""),
        ("message", job.message),
        ("run", job.run),
        ("label", job.label),
        ("priority", job.priority),
        ("attempts", f"{job.attempt}, {job.failures} of them died by no fault of their own"),
        ("ran", format_duration(job.ran_s * 1e6) if job.ran_s else ""),
        ("daemon", job.owner),
    ]
    emit_facts((name, one_line(str(value))) for name, value in facts if value not in ("", None))
    emit("")
    emit_table(
        ("at", "state", "attempt", "reason"),
        (
            (shown_time(each.at), each.after, each.attempt or "", one_line(each.reason))
            for each in changes
        ),
        whole=("state",),
    )


# ---------------------------------------------------------------------------------------------- logs


def logs(
    job: remote.Number,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")
    ] = False,
    server: remote.Server = None,
    as_json: options.Json = False,
) -> int:
    """Print what a job says beside its result; --follow --json gives an object a line."""
    wanted = number(job)
    with open_daemon(server) as daemon:
        log = _Log(daemon, wanted)
        if follow:
            ended = _follow(daemon, log, _print_objects if as_json else _print)
            if as_json and ended is not None:
                emit(json.dumps({"state": ended.state, "exit_code": ended.exit_code}))
        elif as_json:
            lines = [*log.lines(), *log.rest()]
            emit_json({"id": wanted, "next_offset": log.offset, "lines": lines})
        else:
            _print([*log.lines(), *log.rest()])
    return ExitCode.DONE


class _Log:
    """A job's log, read on from where it was read to; parts may end anywhere."""

    def __init__(self, daemon: Daemon, job_id: int) -> None:
        self.job_id = job_id
        self.offset = 0
        self._daemon = daemon
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._begun = ""

    def lines(self) -> Iterator[str]:
        """Gives what is new, up to the end of the last line that has one."""
        while True:
            content, offset = self._daemon.log(self.job_id, self.offset)
            is_new, self.offset = offset > self.offset, offset
            *whole, self._begun = (self._begun + self._decoder.decode(content)).split("\n")
            yield from whole
            if len(self._begun) > _LONGEST_LINE:
                yield from self.rest()
            if not content or not is_new:
                return

    def rest(self) -> list[str]:
        """Gives a line that has no end yet."""
        rest, self._begun = self._begun, ""
        return [rest] if rest else []


def _follow(daemon: Daemon, log: _Log, say: Callable[[Iterable[str]], bool]) -> RemoteJob | None:
    """Prints what a job says until it has ended, also where its daemon is away in between.

    Args:
        daemon: that is asked.
        log: the job's.
        say: prints lines, and tells whether somebody reads on.

    Returns:
        The job as it ended; None if nobody read on before.

    Raises:
        Unreachable: nothing answered for long.
    """
    from autosparse.client.following import PATIENCE_S
    from autosparse.client.problems import Unreachable

    heard_s, is_gap = time.monotonic(), False
    while True:
        try:
            job = daemon.job(log.job_id)
            is_read = say(log.lines())
        except Unreachable as error:
            if time.monotonic() - heard_s > PATIENCE_S:
                raise
            if not is_gap:
                notice(f"{error}; waiting for it")
            is_gap = True
        else:
            heard_s, is_gap = time.monotonic(), False
            if not is_read:
                return None
            if job.has_ended:
                say(log.rest())
                return job
        time.sleep(_FOLLOW_EVERY_S)


def _print(lines: Iterable[str]) -> bool:
    """Prints lines of a log, and tells whether somebody reads on."""
    return all(emit(printable(line.rstrip("\r"), keep="\t")) for line in lines)


def _print_objects(lines: Iterable[str]) -> bool:
    """Prints lines of a log as JSON, an object each, and tells whether somebody reads on."""
    return all(emit(json.dumps({"line": line})) for line in lines)


# --------------------------------------------------------------------------------- cancel and resume


def cancel(jobs: remote.Numbers, server: remote.Server = None, as_json: options.Json = False) -> int:
    """Cancel jobs: those that wait end at once, those that run within seconds."""

    def ask(daemon: Daemon, each: int) -> RemoteJob:
        return daemon.cancel(each)

    return _each(jobs, server, as_json, ask)


def resume(jobs: remote.Numbers, server: remote.Server = None, as_json: options.Json = False) -> int:
    """Resume jobs that were stopped, cancelled or failed: they go on where they were."""

    def ask(daemon: Daemon, each: int) -> RemoteJob:
        return daemon.resume(each)

    return _each(jobs, server, as_json, ask)


def _each(
    jobs: Sequence[str],
    server: str | None,
    as_json: bool,
    ask: Callable[[Daemon, int], RemoteJob],
) -> int:
    """Asks for something about each of several jobs; one that is refused keeps no other from it.

    Raises:
        AutosparseError: the last of those that were refused.
    """
    wanted = dict.fromkeys(map(number, jobs))  # all are read before one is asked for
    done: list[RemoteJob] = []
    refused: list[AutosparseError] = []
    with open_daemon(server) as daemon:
        for each in wanted:
            try:
                done.append(ask(daemon, each))
            except AutosparseError as error:
                refused.append(error)
                continue
            if not as_json:
                job = done[-1]
                emit(f"job {job.id} is {'being cancelled' if job.cancelling else job.state}")
    if as_json:
        emit_json([job.raw for job in done])
    for earlier in refused[:-1]:
        notice(str(earlier))
    if refused:
        raise refused[-1]
    return ExitCode.DONE
