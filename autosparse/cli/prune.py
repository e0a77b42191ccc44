"""The verb that prunes without a search."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from autosparse.cli import options
from autosparse.cli.output import emit, emit_json
from autosparse.cli.working import working
from autosparse.errors import ExitCode

_WHAT, _HOW, _TRAINING = "What to prune", "How", "Where something is trained"


def _flag(*names: str, help: str, panel: str, **more: Any) -> Any:
    return typer.Option(*names, help=help, rich_help_panel=panel, metavar="", **more)


def prune(
    ctx: typer.Context,
    model: options.Model = None,
    output: Annotated[
        Path | None,
        _flag(
            "--output", "-o", help="File: .safetensors, .pt or .pth.", panel=_WHAT, show_default=False
        ),
    ] = None,
    weights: options.Weights = None,
    data: options.Data = None,
    data_resolution: options.DataResolution = None,
    pattern: Annotated[
        str | None,
        _flag(
            "--pattern",
            "-p",
            help="Such as 1x16, tw64, tvw64, 2:4, block16, filter, unstructured.",
            panel=_HOW,
            show_default=False,
        ),
    ] = None,
    sparsity: Annotated[
        str | None,
        _flag("--sparsity", "-s", help="Fraction that goes, as 0.75.", panel=_HOW, show_default=False),
    ] = None,
    plan: Annotated[
        Path | None,
        _flag("--plan", help="YAML file with both per layer, instead.", panel=_HOW, show_default=False),
    ] = None,
    include: options.Include = None,
    exclude: options.Exclude = None,
    method: Annotated[
        str,
        _flag(
            "--method",
            help="magnitude, obs (reconstructs), or one that trains: subp, onexn, srste, tw, tvw, gmp.",
            panel=_HOW,
        ),
    ] = "obs",
    criterion: Annotated[
        str, _flag("--criterion", help="Of magnitude: l1, l2 or bpar.", panel=_HOW)
    ] = "l1",
    rearrange: Annotated[
        str,
        _flag(
            "--rearrange",
            help="Make similar filters neighbours first: none, l1 (sorted) or kept (masks keep most).",
            panel=_HOW,
        ),
    ] = "none",
    samples: Annotated[
        int, _flag("--samples", help="Training images that obs looks at.", panel=_HOW, min=1)
    ] = 512,
    recipe: Annotated[
        str | None,
        _flag(
            "--recipe",
            help="Preset (short, full, paper, paper-imagenet) or YAML file. (default: full)",
            panel=_TRAINING,
            show_default=False,
        ),
    ] = None,
    change: Annotated[
        list[str] | None,
        _flag(
            "--set",
            help="A key of the recipe, as epochs=20 or settings.tau=0.1 (repeatable).",
            panel=_TRAINING,
            show_default=False,
        ),
    ] = None,
    train_device: options.TrainDevice = None,
    dtype: Annotated[
        str, _flag("--dtype", help="Type that accuracies are of: f32 or bf16.", panel=_HOW)
    ] = "f32",
    seed: Annotated[int, _flag("--seed", help="Seed of everything random.", panel=_HOW)] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing file.")] = False,
    as_json: options.Json = False,
) -> int:
    """Prune a model by one pattern and method, and write its weights; no search."""
    from autosparse import values
    from autosparse.errors import ConfigError

    if model is None or output is None:
        missing = "--model resnet18" if model is None else "-o weights.safetensors"
        raise ConfigError(f"a model and a file must be named, but one was not; write {missing}")
    wanted: dict[str, Any] = {
        "model": values.model(model, "--model"),
        "output": str(output),
        "weights": None if weights is None else str(values.input_path(weights, "--weights")),
        "data": values.data_set(data or "digits", "--data"),
        "data_resolution": values.optional(values.count(8))(data_resolution, "--data-resolution"),
        "pattern": pattern,
        "plan": None if plan is None else str(plan),
        "sparsity": values.optional(values.fraction)(sparsity, "--sparsity"),
        "include": tuple(include or ()),
        "exclude": tuple(exclude or ()),
        "dtype": values.choice(("f32", "bf16"))(dtype, "--dtype"),
        "change": tuple(change or ()),
    }
    from autosparse import pipeline  # brings torch

    request = pipeline.PruneRequest(
        **wanted,
        method=method,
        criterion=criterion,  # type: ignore[arg-type]
        rearrange=rearrange,  # type: ignore[arg-type]
        samples=samples,
        recipe=recipe,
        train_device=train_device or "auto",
        seed=seed,
        overwrite=force,
    )
    with working(ctx.obj) as progress:
        outcome = pipeline.prune(request, progress=progress)
    if as_json:
        emit_json(outcome.to_json())
    else:
        emit(outcome.text())
    return ExitCode.DONE
