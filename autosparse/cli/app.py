"""The verbs in their groups."""

from __future__ import annotations

import functools
import os
from typing import Annotated, Any

import typer

from autosparse.cli import (
    bench,
    completion,
    database,
    deploy,
    jobs,
    machine,
    prune,
    runs,
    schedules,
    search,
    serving,
    submitting,
    watches,
)
from autosparse.cli.output import emit
from autosparse.version import __version__

_EPILOG = (
    "Anywhere on the line: -v, -vv say more, -q says less, --debug shows tracebacks. "
    "Exit codes: 0 done, 1 internal error, 2 usage, 3 budget infeasible, 4 no valid configuration, "
    "6 stopped and resumable, 7 something missing, 130 interrupted."
)

app = typer.Typer(
    name="autosparse",
    help="How sparse, in which pattern, is a model fastest here, and what accuracy does it keep?",
    epilog=_EPILOG,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_SEARCHING = "Searching"
_LOOKING = "Looking"
_KEEPING = "Keeping"
_DEPLOYING = "Deploying"
_DAEMON = "Daemon"

app.command(rich_help_panel=_SEARCHING)(search.search)
app.command(rich_help_panel=_SEARCHING)(search.tune)
app.command(rich_help_panel=_SEARCHING)(search.train)
app.command(rich_help_panel=_SEARCHING)(prune.prune)
app.command(rich_help_panel=_DEPLOYING)(deploy.export)
app.command(rich_help_panel=_DEPLOYING)(deploy.check)
app.command(rich_help_panel=_LOOKING)(bench.bench)
app.command(rich_help_panel=_LOOKING)(runs.report)
app.command(rich_help_panel=_LOOKING)(machine.profile)
app.command(rich_help_panel=_LOOKING)(machine.doctor)
app.command(rich_help_panel=_LOOKING)(machine.hosts)
app.command(rich_help_panel=_LOOKING)(machine.kernels)
app.command(rich_help_panel=_LOOKING)(machine.models)
app.command(rich_help_panel=_DAEMON)(serving.serve)
app.add_typer(submitting.app, name="submit", rich_help_panel=_DAEMON)
app.command(rich_help_panel=_DAEMON)(jobs.status)
app.command(rich_help_panel=_DAEMON)(jobs.logs)
app.command(rich_help_panel=_DAEMON)(jobs.cancel)
app.command(rich_help_panel=_DAEMON)(jobs.resume)
app.add_typer(schedules.app, name="schedule", rich_help_panel=_DAEMON)
app.add_typer(watches.app, name="watch", rich_help_panel=_DAEMON)
app.command(rich_help_panel=_DAEMON)(watches.alerts)
app.add_typer(runs.app, name="runs", rich_help_panel=_KEEPING)
app.add_typer(database.app, name="db", rich_help_panel=_KEEPING)
app.add_typer(completion.app, name="completion", rich_help_panel=_KEEPING)


def _say_version(wanted: bool) -> None:
    if wanted:
        emit(f"autosparse {__version__}")
        raise typer.Exit(0)


@app.callback()
def root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version and exit.", is_eager=True, callback=_say_version
        ),
    ] = False,
) -> None:
    """Takes the flags that stand before any verb."""


def command() -> Any:
    """Gives the command line as one object with a `main`."""
    if completion.VARIABLE in os.environ:
        completion.prepare()
    return _command()


@functools.cache
def _command() -> Any:
    return typer.main.get_command(app)
