"""The verbs around run folders: report, runs list, runs show, runs compare, runs rm."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from autosparse import factories
from autosparse.cli import options
from autosparse.cli.output import emit, emit_facts, emit_json, emit_table
from autosparse.cli.reading import finished_run
from autosparse.errors import ExitCode, UsageError

app = typer.Typer(help="List, show, compare and remove runs.", no_args_is_help=True)
Out = options.Runs
RESULTS = Path("results")


def report(run: options.Run = "latest", out: Out = RESULTS, as_json: options.Json = False) -> int:
    """Build a run's report.html anew from the files of the run."""
    from autosparse.report import build

    page = build(finished_run(out, run))
    if as_json:
        emit_json({"report": str(page)})
    else:
        emit(str(page))
    return ExitCode.DONE


@app.command("list")
def list_(out: Out = RESULTS, as_json: options.Json = False) -> int:
    """List runs, newest first."""
    from autosparse.run_folders import list_runs

    found = list_runs(out)
    if as_json:
        emit_json([run.to_json() for run in found])
    elif not found:
        emit(f"no runs in {out}")
    else:
        emit_table(
            ("run", "model", "budget", "state", "verdict"),
            (
                (run.name, factories.shown(run.model), _budget(run.budget_ms), run.state, run.verdict)
                for run in found
            ),
        )
    return ExitCode.DONE


def _budget(budget_ms: float | None) -> str:
    return "none" if budget_ms is None else f"{budget_ms:g} ms"


@app.command()
def show(run: options.Run = "latest", out: Out = RESULTS, as_json: options.Json = False) -> int:
    """Show one run: how far it is, its verdict and its configurations."""
    from autosparse.run_folders import find_run
    from autosparse.run_folders import show as everything

    folder = find_run(out, run)
    known = everything(folder)
    if as_json:
        emit_json(known)
        return ExitCode.DONE
    budget = _budget(known["budget_ms"])
    state = f"{known['state']}, last stage: {known['stage']}"
    emit_facts(
        [("run", known["path"]), ("model", known["model"]), ("budget", budget), ("state", state)]
    )
    if known["pareto"] is not None:
        from autosparse.report import summary
        from autosparse.report.document import load

        emit("\n" + summary(load(folder)))
    elif known["verdict"]:
        emit(known["verdict"])
    return ExitCode.DONE


@app.command()
def compare(
    older: options.OlderRun,
    newer: options.NewerRun = "latest",
    out: Out = RESULTS,
    as_json: options.Json = False,
) -> int:
    """Compare the fronts of two runs: what moved beyond its intervals, and by how much."""
    from autosparse.report.document import load
    from autosparse.report.fronts import compare_fronts

    before, after = finished_run(out, older), finished_run(out, newer)
    move = compare_fronts(load(before), load(after), (before.name, after.name))
    if as_json:
        emit_json(move.to_json())
    else:
        emit(move.text())
    return ExitCode.DONE


@app.command()
def rm(
    runs: options.EveryRun,
    out: Out = RESULTS,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> int:
    """Remove runs and everything in their folders."""
    from autosparse.run_folders import find_run, remove_run

    folders = [find_run(out, run) for run in runs]  # all are found before one is removed
    if not yes and not _agreed([folder.name for folder in folders]):
        emit("nothing removed")
        return ExitCode.DONE
    for folder in folders:
        remove_run(folder)
        emit(f"removed {folder}")
    return ExitCode.DONE


def _agreed(names: list[str]) -> bool:
    if not sys.stdin.isatty():
        raise UsageError("removing runs must be confirmed, but nobody is there to ask; add --yes")
    return typer.confirm(f"remove {', '.join(names)}?", err=True)
