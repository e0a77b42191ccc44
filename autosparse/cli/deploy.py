"""The verb that deploys: export."""

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
