"""The verbs around a daemon's watches: watch add, list, remove; and alerts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from autosparse.cli import options, remote
from autosparse.cli.output import emit, emit_json, emit_table, one_line
from autosparse.cli.remote import open_daemon, own_timezone, shown_time
from autosparse.errors import ExitCode, UsageError, got

if TYPE_CHECKING:
    from autosparse.client.records import RemoteWatch

app = typer.Typer(
    help="Have the daemon see whether deployed artifacts still meet their budgets.",
    no_args_is_help=True,
)


def _flag(*names: str, help: str) -> Any:
    return typer.Option(*names, help=help, show_default=False, metavar="")


@app.command()
def add(
    artifact: Annotated[
        str, typer.Argument(help="The file, on the daemon's machine: ROOT/rest/of/path.")
    ],
    latency_budget: Annotated[
        str, _flag("--latency-budget", "-b", help="What its latency shall be at most, such as 5ms.")
    ],
    name: Annotated[str | None, _flag("--name", help="By which it is known.")] = None,
    cron: Annotated[
        str | None, _flag("--cron", help="When it is checked (default: once an hour).")
    ] = None,
    timezone: Annotated[
        str | None, _flag("--timezone", help="Whose clock is meant (default: this machine's).")
    ] = None,
    jitter: Annotated[
        str | None, _flag("--jitter", help="By how much a check is put off at most (default: 10m).")
    ] = None,
    threads: Annotated[
        int | None, _flag("--threads", help="Worker threads (default: as it was measured with).")
    ] = None,
    judged: options.Judged = None,
    server: remote.Server = None,
    as_json: options.Json = False,
) -> int:
    """Watch an artifact; what becomes of its budget is an alert, and goes to webhooks."""
    given = {
        "name": name,
        "cron": cron,
        "timezone": timezone or own_timezone(),
        "jitter": jitter,
        "threads": threads,
        "judged": judged,
    }
    asked = {key: value for key, value in given.items() if value is not None}
    with open_daemon(server) as daemon:
        made = daemon.add_watch({"artifact": artifact, "latency_budget": latency_budget, **asked})
    if as_json:
        emit_json(made.raw)
    else:
        emit(one_line(f"watch {_number(made)} ({_name(made)}): {made.artifact}, {made.budget_ms:g} ms"))
        emit(f"first check: {_next(made)}")
    return ExitCode.DONE


@app.command("list")
def list_(server: remote.Server = None, as_json: options.Json = False) -> int:
    """List watches, and how they stand."""
    with open_daemon(server) as daemon:
        found = daemon.watches()
    if as_json:
        emit_json([watch.raw for watch in found])
    elif not found:
        emit("no watches")
    else:
        emit_table(
            ("id", "name", "artifact", "budget", "verdict", "since", "measured", "next"),
            (
                (
                    _number(each),
                    one_line(_name(each)),
                    one_line(each.artifact),
                    f"{each.budget_ms:g} ms",
                    one_line(each.problem or each.verdict),
                    shown_time(each.since),
                    _measured(each),
                    _next(each),
                )
                for each in found
            ),
            whole=("id",),
        )
    return ExitCode.DONE


@app.command()
def remove(
    watch: Annotated[str, typer.Argument(help="Number or name of the watch.", metavar="WATCH")],
    server: remote.Server = None,
    as_json: options.Json = False,
) -> int:
    """Remove a watch; its checks and alerts stay."""
    with open_daemon(server) as daemon:
        known = daemon.watches()
        found = next((each for each in known if watch in (str(_number(each)), _name(each))), None)
        if found is None:
            raise UsageError(f"a watch must be one of `autosparse watch list`, but got {got(watch)}")
        daemon.remove_watch(_number(found))
    if as_json:
        emit_json(found.raw)
    else:
        emit(one_line(f"watch {_number(found)} ({_name(found)}) is removed"))
    return ExitCode.DONE


def alerts(
    count: Annotated[
        int, typer.Option("--count", "-n", help="How many.", min=1, max=200, metavar="")
    ] = 20,
    server: remote.Server = None,
    as_json: options.Json = False,
) -> int:
    """Show what happened that somebody ought to hear of: fronts that moved, budgets missed."""
    with open_daemon(server) as daemon:
        found = daemon.alerts(count)
    if as_json:
        emit_json([alert.raw for alert in found])
    elif not found:
        emit("no alerts")
    else:
        emit_table(
            ("at", "kind", "job", "what"),
            ((shown_time(a.at), one_line(a.kind), a.job_id, one_line(a.title)) for a in found),
        )
    return ExitCode.DONE


def _number(watch: RemoteWatch) -> int:
    return int(watch.schedule["id"])


def _name(watch: RemoteWatch) -> str:
    return str(watch.schedule["name"])


def _next(watch: RemoteWatch) -> str:
    if not watch.schedule.get("enabled", True):
        return "paused"
    return shown_time(watch.schedule.get("next_at"), str(watch.schedule["timezone"]))


def _measured(watch: RemoteWatch) -> str:
    median_ms = (watch.checked or {}).get("median_ms")
    return "-" if median_ms is None else f"{median_ms:.3f} ms"
