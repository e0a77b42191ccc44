"""The verbs around a daemon's schedules: schedule add, list, show, pause, resume, remove, next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autosparse.cli import asking, options, remote
from autosparse.cli.output import emit, emit_facts, emit_json, emit_table, one_line
from autosparse.cli.remote import open_daemon, own_timezone, shown_time
from autosparse.errors import ExitCode
from autosparse.units import format_duration

if TYPE_CHECKING:
    from autosparse.client.records import RemoteSchedule

app = typer.Typer(help="Have the daemon repeat a job at set times.", no_args_is_help=True)

_WHEN = "When"
Named = Annotated[str, typer.Argument(help="Number or name of the schedule.", metavar="SCHEDULE")]


def _flag(*names: str, help: str) -> Any:
    return typer.Option(*names, help=help, show_default=False, rich_help_panel=_WHEN, metavar="")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Repeated:
    """When a job is repeated; see `autosparse.schedules.schedule.Schedule`."""

    name: Annotated[
        str | None, _flag("--name", help="By which it is known (default: of verb and model).")
    ] = None
    timezone: Annotated[
        str | None,
        _flag("--timezone", help="Whose clock is meant, as Europe/Berlin (default: this machine's)."),
    ] = None
    catch_up: Annotated[
        str | None,
        _flag(
            "--catch-up",
            help="What becomes of times when no daemon ran: once, one job for all of them, or skip "
            "(default: once).",
        ),
    ] = None
    jitter: Annotated[
        str | None, _flag("--jitter", help="By how much a start is put off at most, such as 10m.")
    ] = None

    def body(self) -> dict[str, Any]:
        """Gives what was given, by the API's names."""
        given = {"name": self.name, "catch_up": self.catch_up, "jitter": self.jitter}
        return {key: value for key, value in given.items() if value is not None}


class _AddGroup(asking.VerbGroup):
    """Verbs after the times at which they are repeated."""

    says_when = "a cron expression, such as '0 3 * * sun',"


_adding = typer.Typer(
    cls=_AddGroup,
    help="Add a schedule: when, then a verb with its flags, which runs each time. Files are the "
    "daemon's.",
    no_args_is_help=True,
    subcommand_metavar="VERB [FLAGS]...",
    epilog="Flags may stand before the verb or after it; autosparse schedule add search --help lists "
    "them, --timezone and --name among them.",
)
app.add_typer(_adding, name="add")


@_adding.callback()
def _when(
    cron: Annotated[
        str,
        typer.Argument(
            help="Minute, hour, day of the month, month and day of the week, as '0 3 * * sun' for "
            "Sundays at 03:00; or @hourly, @daily, @weekly, @monthly.",
            metavar="CRON",
        ),
    ],
) -> None:
    """Takes what stands before the verb."""


def _add(asked: asking.Asked) -> int:
    repeated, called = asked.of(_Repeated), asked.of(asking.Called)
    assert asked.context.parent is not None  # the group, which has read the times
    timezone = repeated.timezone or own_timezone()
    body = {
        "cron": asked.context.parent.params["cron"],
        "timezone": timezone,
        "verb": asked.verb,
        "settings": asked.settings,
        **repeated.body(),
        **asked.of(asking.Treated).body(),
    }
    with open_daemon(called.server) as daemon:
        made = daemon.add_schedule(body)
    if called.as_json:
        emit_json(made.raw)
        return ExitCode.DONE
    whose = "" if repeated.timezone else ", the time zone of this machine"
    emit(one_line(f"schedule {made.id} ({made.name}): {_told(made)} in {made.timezone}{whose}"))
    emit(f"next: {shown_time(made.next_at, made.timezone)}")
    return ExitCode.DONE


def _told(schedule: RemoteSchedule) -> str:
    return schedule.description or schedule.cron


for _verb in asking.VERBS:
    _adding.command(_verb)(
        asking.command_of(
            _verb,
            [_Repeated, asking.Treated, asking.Called],
            _add,
            f"Repeat {_verb}, with the flags of `autosparse {_verb}`.",
        )
    )


@app.command("list")
def list_(server: remote.Server = None, as_json: options.Json = False) -> int:
    """List schedules, and when they are due next."""
    with open_daemon(server) as daemon:
        found = daemon.schedules()
    if as_json:
        emit_json([schedule.raw for schedule in found])
    elif not found:
        emit("no schedules")
    else:
        emit_table(
            ("id", "name", "when", "time zone", "verb", "next"),
            (
                (
                    each.id,
                    one_line(each.name),
                    one_line(each.cron),
                    one_line(each.timezone),
                    one_line(each.verb),
                    shown_time(each.next_at, each.timezone) if each.enabled else "paused",
                )
                for each in found
            ),
            whole=("id",),
        )
    return ExitCode.DONE


@app.command()
def show(schedule: Named, server: remote.Server = None, as_json: options.Json = False) -> int:
    """Show one schedule."""
    with open_daemon(server) as daemon:
        found = daemon.schedule(schedule)
    _show(found, as_json)
    return ExitCode.DONE


def _show(found: RemoteSchedule, as_json: bool) -> None:
    if as_json:
        emit_json(found.raw)
        return
    facts = [
        ("schedule", found.id),
        ("name", found.name),
        ("when", f"{found.cron} ({_told(found)})"),
        ("time zone", found.timezone),
        ("next", shown_time(found.next_at, found.timezone) if found.enabled else "paused"),
        ("catch up", found.catch_up),
        ("jitter", format_duration(found.jitter_s * 1e6) if found.jitter_s else "none"),
        ("verb", found.verb),
        ("settings", remote.shown_settings(found.settings)),
        ("made", shown_time(found.created_at)),
    ]
    emit_facts((name, one_line(str(value))) for name, value in facts)


@app.command()
def pause(schedule: Named, server: remote.Server = None, as_json: options.Json = False) -> int:
    """Let a schedule make no jobs until it is resumed; what falls due meanwhile is left out."""
    with open_daemon(server) as daemon:
        found = daemon.pause(daemon.schedule(schedule).id)
    _changed(found, "is paused", as_json)
    return ExitCode.DONE


@app.command()
def resume(schedule: Named, server: remote.Server = None, as_json: options.Json = False) -> int:
    """Let a schedule make jobs again, from now on."""
    with open_daemon(server) as daemon:
        found = daemon.go_on(daemon.schedule(schedule).id)
    _changed(found, f"is due next {shown_time(found.next_at, found.timezone)}", as_json)
    return ExitCode.DONE


def _changed(found: RemoteSchedule, what: str, as_json: bool) -> None:
    if as_json:
        emit_json(found.raw)
    else:
        emit(one_line(f"schedule {found.id} ({found.name}) {what}"))


@app.command()
def remove(schedule: Named, server: remote.Server = None, as_json: options.Json = False) -> int:
    """Remove a schedule; the jobs that it made stay."""
    with open_daemon(server) as daemon:
        found = daemon.schedule(schedule)
        daemon.remove_schedule(found.id)
    _changed(found, "is removed", as_json)
    return ExitCode.DONE


@app.command("next")
def next_(
    schedule: Named,
    count: Annotated[
        int, typer.Option("--count", "-n", help="How many times.", min=1, max=50, metavar="")
    ] = 5,
    server: remote.Server = None,
    as_json: options.Json = False,
) -> int:
    """Show when a schedule is due next, on the clock of its time zone."""
    with open_daemon(server) as daemon:
        found = daemon.schedule(schedule)
        times = daemon.next_times(found.id, count)
    if as_json:
        emit_json({"id": found.id, "name": found.name, "timezone": found.timezone, "times": times})
    elif not times:
        emit(
            one_line(
                f"schedule {found.id} ({found.name}) is paused; autosparse schedule resume {found.id}"
            )
        )
    else:
        emit("\n".join(shown_time(each, found.timezone) for each in times))
    return ExitCode.DONE
