"""Shell completion: installed by one command, for the shell in use or the one named."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from autosparse.cli.output import emit
from autosparse.errors import ExitCode, UsageError
from autosparse.values import choice

app = typer.Typer(help="Complete verbs, flags and names in the shell.", no_args_is_help=True)

PROGRAM = "autosparse"
VARIABLE = "_AUTOSPARSE_COMPLETE"
SHELLS = ("bash", "zsh", "fish")
# What each sets beside it when it asks.
_ASKING = {
    "bash": ("COMP_WORDS", "COMP_CWORD"),
    "zsh": ("_TYPER_COMPLETE_ARGS",),
    "fish": ("_TYPER_COMPLETE_ARGS", "_TYPER_COMPLETE_FISH_ACTION"),
}

Shell = Annotated[
    str | None, typer.Argument(help="bash, zsh or fish; by default the shell in use.", metavar="SHELL")
]


def prepare() -> None:
    """Makes the answers to a shell's questions known to the parser.

    Raises:
        UsageError: what asks is no shell.
    """
    asked = os.environ[VARIABLE]
    action, _, shell = asked.partition("_")
    asking = _ASKING.get(shell) if action == "complete" else () if action == "source" else None
    if asking is None or shell not in SHELLS or any(name not in os.environ for name in asking):
        raise UsageError(f"{VARIABLE} must be set by a shell alone, but is {asked!r}; unset it")
    from typer.completion import completion_init  # type: ignore[attr-defined]

    completion_init()


@app.command()
def install(shell: Shell = None) -> int:
    """Install completion for a shell; it works from the next session on."""
    from typer.completion import install as install_for  # type: ignore[attr-defined]

    named = _shell(shell)
    _, path = install_for(shell=named, prog_name=PROGRAM, complete_var=VARIABLE)
    emit(f"installed {named} completion in {path}; start a new shell to use it")
    return ExitCode.DONE


@app.command()
def show(shell: Shell = None) -> int:
    """Print the completion script of a shell."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    emit(get_completion_script(prog_name=PROGRAM, complete_var=VARIABLE, shell=_shell(shell)))
    return ExitCode.DONE


def _shell(named: str | None) -> str:
    if named is not None:
        return str(choice(SHELLS)(named, "a shell"))
    import shellingham  # type: ignore[import-untyped]

    try:
        found = str(shellingham.detect_shell()[0])
    except shellingham.ShellDetectionFailure:
        found = "unknown"
    if found not in SHELLS:
        raise UsageError(
            f"a shell must be one of {', '.join(SHELLS)}, but this one is {found}; name it"
        )
    return found
