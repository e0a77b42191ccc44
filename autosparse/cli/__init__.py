"""The command line: one short function per verb. The only part of autosparse that prints.

    encoding   names beyond ASCII under any locale
    boundary   errors and interrupts become one message and an exit code
    settings   what the global flags say
    working    progress and the request to stop, for verbs that take long
    leaving    the end of a process that was told to stop
    bars       progress on a terminal, or as plain lines where there is none
    output     results on stdout, as text or JSON
    options    flags that several verbs share
    reading    values that verbs read by themselves
    leash      what ties a process to the daemon that began it
    app        the verbs in their groups; each group is one file

Nothing heavy is imported before a verb runs: `autosparse --help` has to answer at once.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

from autosparse.cli import encoding
from autosparse.errors import ExitCode, MissingDependency, missing_library

__all__ = ["leave", "main", "run"]


def run(arguments: Sequence[str]) -> int:
    """Runs one command line; gives its exit code.

    Raises:
        MissingDependency: the parser of command lines is not installed.
    """
    try:
        from autosparse.cli import boundary
    except ModuleNotFoundError as error:
        raise missing(error) from error
    return boundary.run(arguments)


def missing(error: ModuleNotFoundError) -> MissingDependency:
    """Words the absence of a library; an absent part of autosparse itself is raised as it is."""
    if (error.name or "").partition(".")[0] == "autosparse":
        raise error
    return missing_library(error, "the command line")


def main() -> None:
    """Runs the command line of this process and ends it with the verb's exit code."""
    encoding.settle()
    try:
        code = run(sys.argv[1:])
    except MissingDependency as error:
        print(f"autosparse: {error}", file=sys.stderr)
        code = error.exit_code
    leave(code)


def leave(code: int) -> NoReturn:
    """Ends this process with a verb's exit code."""
    if code in (ExitCode.STOPPED, ExitCode.INTERRUPTED):
        from autosparse.cli.leaving import leave_stopped  # the parser is installed, so all else is

        leave_stopped(code)
    sys.exit(code)
