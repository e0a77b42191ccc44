"""The verb that hands a job to a daemon: submit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import typer

from autosparse.cli import asking, remote
from autosparse.cli.output import emit, emit_json, notice
from autosparse.cli.remote import PANEL, open_daemon
from autosparse.errors import ExitCode

app = typer.Typer(
    cls=asking.VerbGroup,
    help="Hand a job to the daemon: a verb with its flags, which runs there. Files are the daemon's.",
    no_args_is_help=True,
    subcommand_metavar="VERB [FLAGS]...",
    epilog="Flags may stand before the verb or after it; autosparse submit search --help lists them, "
    "--wait and --priority among them.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Begun:
    """When a job begins, and whether this command stays until it has ended."""

    not_before: Annotated[
        str | None,
        typer.Option(
            "--not-before",
            help="Date and time before which it does not begin, as 2026-01-31T03:00.",
            show_default=False,
            rich_help_panel="How the job is treated",
            metavar="",
        ),
    ] = None
    wait: Annotated[
        bool,
        typer.Option(
            "--wait",
            help="Follow it, print its result and end as it does: 0 done, 3 infeasible, 6 stopped, 130 "
            "cancelled, else as it failed. Ctrl-C leaves it running.",
            rich_help_panel=PANEL,
        ),
    ] = False


def _submit(asked: asking.Asked) -> int:
    begun, called = asked.of(_Begun), asked.of(asking.Called)
    body: dict[str, Any] = {
        "verb": asked.verb,
        "settings": asked.settings,
        **asked.of(asking.Treated).body(),
    }
    if begun.not_before is not None:
        body["not_before"] = remote.as_utc(begun.not_before, "--not-before")
    with open_daemon(called.server) as daemon:
        try:
            job = daemon.submit(body)
        except KeyboardInterrupt:
            notice("the job may have been stored all the same; see: autosparse status")
            raise
        if begun.wait:
            from autosparse.cli.waiting import wait

            notice(f"job {job.id} is {job.state} at {daemon.url}")
            return wait(daemon, job.id, asked.context.obj, as_json=called.as_json)
    if called.as_json:
        emit_json(job.raw)
    else:
        emit(
            f"job {job.id} is {job.state}\nfollow it: autosparse logs {job.id} -f\n"
            f"see how it ends: autosparse status {job.id}"
        )
    return ExitCode.DONE


for _verb in asking.VERBS:
    app.command(_verb)(
        asking.command_of(
            _verb,
            [asking.Treated, _Begun, asking.Called],
            _submit,
            f"Hand {_verb} to the daemon, with the flags of `autosparse {_verb}`.",
        )
    )
