"""The command line: one short function per verb. The only part of autosparse that prints.

    boundary   errors and interrupts become one message and an exit code
    settings   what the global flags say
    working    progress and the request to stop, for verbs that take long
    bars       progress on a terminal, or as plain lines where there is none
    output     results on stdout, as text or JSON
    options    flags that several verbs share
    reading    values that verbs read by themselves
    app        the verbs in their groups; each group is one file

Nothing heavy is imported before a verb runs: `autosparse --help` has to answer at once.
"""

from __future__ import annotations

import sys

from autosparse.cli.boundary import run

__all__ = ["main", "run"]


def main() -> None:
    """Runs the command line of this process and ends it with the verb's exit code."""
    sys.exit(run(sys.argv[1:]))
