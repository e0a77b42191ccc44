"""The verbs that search: search, tune, train."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from autosparse.cli import options
from autosparse.cli.output import emit, emit_json
from autosparse.cli.reading import finished_run
from autosparse.cli.working import working
from autosparse.errors import ExitCode

if TYPE_CHECKING:
    from autosparse.config import SearchConfig


def search(
    ctx: typer.Context,
    model: options.Model = None,
    latency_budget: options.LatencyBudget = None,
    weights: options.Weights = None,
    data: options.Data = None,
    data_resolution: options.DataResolution = None,
    space: options.Space = None,
    include: options.Include = None,
    exclude: options.Exclude = None,
    judged: options.Judged = None,
    batch_size: options.BatchSize = None,
    input_shape: options.InputShape = None,
    dtype: options.Dtype = None,
    compact_weights: options.CompactWeights = None,
    threads: options.Threads = None,
    device: options.Device = None,
    trials: options.Trials = None,
    time_budget: options.TimeBudget = None,
    parallel: options.Parallel = None,
    seed: options.Seed = None,
    top_k: options.TopK = None,
    one_shot: options.OneShot = None,
    train: options.Train = None,
    recipe: options.Recipe = None,
    train_device: options.TrainDevice = None,
    train_workers: options.TrainWorkers = None,
    share_training: options.ShareTraining = None,
    share_reach: options.ShareReach = None,
    study_name: options.StudyName = None,
    storage: options.Storage = None,
    database: options.Database = None,
    address: options.Address = None,
    host: options.Host = None,
    hosts: options.Hosts = None,
    host_weights: options.HostWeights = None,
    since: options.Since = None,
    out: options.Out = None,
    config_file: options.ConfigFile = None,
    save_config: options.SaveConfig = None,
    resume: Annotated[
        bool | None,
        typer.Option(
            "--resume/--fresh",
            help="Continue the unfinished run of this very configuration, or start anew. "
            "Without either, continue if there is one.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Say how much work it is and what can be reached, and stop."),
    ] = False,
    as_json: options.Json = False,
) -> int:
    """Search for the sparsest, fastest, most accurate configurations of a model on this machine."""
    config = _resolve(ctx, config_file, writing=save_config is None and not dry_run)
    if save_config is not None:
        return _save(config, save_config)
    if dry_run:
        return _forecast(ctx, config, as_json)
    from autosparse import pipeline  # brings torch, Ray and Optuna

    find = pipeline.search_hosts if config.hosts else pipeline.search
    with working(ctx.obj) as progress:
        outcome = find(config, resume=resume, progress=progress)
    _show(outcome, as_json)
    return int(outcome.exit_code)


def tune(
    ctx: typer.Context,
    model: options.Model = None,
    space: options.Space = None,
    include: options.Include = None,
    exclude: options.Exclude = None,
    batch_size: options.BatchSize = None,
    input_shape: options.InputShape = None,
    dtype: options.Dtype = None,
    compact_weights: options.CompactWeights = None,
    threads: options.Threads = None,
    device: options.Device = None,
    time_budget: options.TimeBudget = None,
    database: options.Database = None,
    address: options.Address = None,
    host: options.Host = None,
    config_file: options.ConfigFile = None,
    as_json: options.Json = False,
) -> int:
    """Measure the layers of a model, sparse and dense, into the tuning database."""
    config = _resolve(ctx, config_file, writing=False)
    from autosparse import pipeline  # brings torch

    with working(ctx.obj) as progress:
        outcome = pipeline.tune(config, time_budget_us=config.time_budget, progress=progress)
    _show(outcome, as_json)
    return ExitCode.DONE


def train(
    ctx: typer.Context,
    run: options.Run = "latest",
    pick: Annotated[
        list[str] | None,
        typer.Option(
            help="knee, fastest, most-accurate, or an id (repeatable).", show_default="knee", metavar=""
        ),
    ] = None,
    kind: Annotated[str, typer.Option(help="How long: short or full.", metavar="")] = "full",
    recipe: options.Recipe = None,
    change: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A key of the recipe, as lr=0.05 or settings.tau=0.1 (repeatable).",
            show_default=False,
            metavar="",
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Epochs, instead of the recipe's.", min=1, metavar="")
    ] = None,
    train_device: options.TrainDevice = None,
    train_workers: options.TrainWorkers = None,
    share_training: options.ShareTraining = None,
    share_reach: options.ShareReach = None,
    out: options.Runs = Path("results"),
    as_json: options.Json = False,
) -> int:
    """Train configurations of a finished search."""
    from autosparse import values

    length: Literal["short", "full"] = values.choice(("short", "full"))(kind, "--kind")
    workers = values.count(1)(train_workers or "1", "--train-workers")
    reach = values.optional(values.fraction)(share_reach, "--share-reach")
    folder = finished_run(out, run)
    from autosparse import pipeline  # brings torch and Ray

    picked = tuple(pick or ("knee",))
    with working(ctx.obj) as progress:
        outcome = pipeline.train(
            folder,
            picked,
            kind=length,
            recipe=recipe,
            change=tuple(change or ()),
            epochs=epochs,
            arrangement=pipeline.Arrangement.of(
                train_device or "auto", workers, share=bool(share_training), reach=reach
            ),
            progress=progress,
        )
    _show(outcome, as_json)
    return ExitCode.DONE


def _resolve(ctx: typer.Context, file: Path | None, *, writing: bool) -> SearchConfig:
    """Puts the configuration together and refuses what cannot work, before anything heavy loads.

    Args:
        ctx: holds the flags.
        file: a YAML file, or None.
        writing: whether a run's folder will be made.
    """
    from autosparse.config import SearchConfig, resolve, validate

    flags = {key: value for key, value in ctx.params.items() if key in SearchConfig.model_fields}
    config = resolve(flags, os.environ, file)
    validate(config, writing=writing)
    return config


def _save(config: SearchConfig, file: Path) -> int:
    from autosparse.storage.files import write_text

    write_text(file, config.to_yaml())
    emit(f"wrote {file}")
    return ExitCode.DONE


def _forecast(ctx: typer.Context, config: SearchConfig, as_json: bool) -> int:
    from autosparse import pipeline  # brings torch

    with working(ctx.obj) as progress:
        outcome = pipeline.forecast(config, progress)
    _show(outcome, as_json)
    return ExitCode.DONE


def _show(outcome: Any, as_json: bool) -> None:
    if as_json:
        emit_json(outcome.to_json())
    else:
        emit(outcome.text())
