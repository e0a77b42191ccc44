"""What runs a command line in a process forked from one that has loaded all it needs."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

from autosparse import cli
from autosparse.engine import contest
from autosparse.measuring.stopwatch import WHOLE
from autosparse.pipeline.measured import ledger, session
from autosparse.pipeline.subject import requests

# Whole models are measured for real, but no test looks at how narrow an interval is.
BRIEF = dataclasses.replace(WHOLE, target_ci=0.1, warmup_us=10_000.0, time_cap_us=300_000.0)
BRIEF_CONTEST = dataclasses.replace(contest._POLICY, time_cap_us=100_000.0)


def shorten(put: Callable[[object, str, object], None]) -> None:
    """Puts brief policies in the place of those that whole models are measured by."""
    put(requests, "WHOLE", BRIEF)
    put(contest, "_POLICY", BRIEF_CONTEST)


def run_apart(folder: Path, home: Path, words: list[str], *, one_process: bool = False) -> None:
    """Runs a command line in a folder, with a home; what it says is added to the home's file `said`.

    With `one_process`, measuring sessions have no process of their own.
    """
    os.chdir(folder)
    os.environ["AUTOSPARSE_HOME"] = str(home)
    shorten(setattr)
    if one_process:
        ledger.run_apart = lambda asked, told, host: session.run_session(asked, told)
    with (home / "said").open("a") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
    cli.leave(cli.run(words))
