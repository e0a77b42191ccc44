"""The verbs around what is deployed: export, check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from autosparse.cli import options
from autosparse.cli.output import emit, emit_json
from autosparse.cli.reading import finished_run
from autosparse.cli.working import working
from autosparse.errors import ExitCode


def export(
    ctx: typer.Context,
    run: options.Run = "latest",
    pick: Annotated[
        str | None,
        typer.Option(
            "--id",
            help="An id, knee, fastest or most-accurate. (default: the one the verdict chose)",
            show_default=False,
            metavar="",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The file. (default: model and id, here)",
            show_default=False,
            metavar="",
        ),
    ] = None,
    to: Annotated[
        str,
        typer.Option(help="artifact, onnx, or torch: a state dict (.safetensors, .pt).", metavar=""),
    ] = "artifact",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    out: Annotated[
        Path,
        typer.Option(
            "--out", envvar="AUTOSPARSE_OUT", show_envvar=False, help="Folder of runs.", metavar=""
        ),
    ] = Path("results"),
    as_json: options.Json = False,
) -> int:
    """Write a configuration of a run into one file that runs without torch."""
    from autosparse.values import choice

    kind: Literal["artifact", "onnx", "torch"] = choice(("artifact", "onnx", "torch"))(to, "--to")
    folder = finished_run(out, run)
    from autosparse import pipeline  # brings torch

    with working(ctx.obj) as progress:
        outcome = pipeline.export(
            folder, pick, to=kind, target=output, overwrite=force, progress=progress
        )
    if as_json:
        emit_json(outcome.to_json())
    else:
        emit(outcome.text())
    return ExitCode.DONE


def check(
    ctx: typer.Context,
    artifact: Annotated[
        Path, typer.Argument(help="File that `autosparse export` wrote.", metavar="ARTIFACT")
    ],
    latency_budget: Annotated[
        str, typer.Option("--latency-budget", "-b", help="Time one run may take, as 5ms.", metavar="")
    ],
    threads: Annotated[
        str | None,
        typer.Option(
            "--threads",
            help="Worker threads. (default: as many as it was measured with)",
            show_default=False,
            metavar="",
        ),
    ] = None,
    judged: Annotated[
        str,
        typer.Option(
            help="State of the host that decides, where it has several: worst or best.", metavar=""
        ),
    ] = "worst",
    as_json: options.Json = False,
) -> int:
    """Say whether a deployed artifact meets its latency budget here: 0 if it does, else 3."""
    from autosparse import values
    from autosparse.config import JUDGED

    budget_us = values.duration("5ms")(latency_budget, "--latency-budget")
    count = None if threads is None else values.count(1)(threads, "--threads")
    state = values.choice(JUDGED)(judged, "--judged")
    from autosparse import pipeline

    with working(ctx.obj) as progress:
        outcome = pipeline.check(artifact, budget_us, threads=count, judged=state, progress=progress)
    if as_json:
        emit_json(outcome.to_json())
    else:
        emit(outcome.text())
    return outcome.exit_code
