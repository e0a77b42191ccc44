"""The verb that compares engines: bench."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autosparse.cli import options
from autosparse.cli.output import emit, emit_json, emit_table
from autosparse.cli.reading import NONE, ONEXN, listed, listed_or_none, patterns
from autosparse.cli.working import working
from autosparse.errors import ConfigError, ExitCode, UsageError

if TYPE_CHECKING:
    from autosparse.compare import Asked, Comparison
    from autosparse.measuring.stopwatch import MeasurementPolicy

_FILE = "bench.json"
_TILES = "tw64k16,tw128k16"
"""Patterns of random masks on a GPU, where none are named."""

_MODEL, _OURS, _HOW = "What to run", "Our contestants", "How to measure"


def _text(*names: str, help: str, default: str = "", panel: str) -> Any:
    said = f"{help.removesuffix('.')} (default: {default})." if default else help
    return typer.Option(*names, help=said, show_default=False, rich_help_panel=panel, metavar="")


def bench(
    ctx: typer.Context,
    model: options.Model = None,
    weights: Annotated[
        str | None, _text("--weights", help="File of weights.", default="random ones", panel=_MODEL)
    ] = None,
    input_shape: Annotated[
        str | None,
        _text(
            "--shape",
            "--input-shape",
            help="One sample, as 3x224x224.",
            default="the model's own",
            panel=_MODEL,
        ),
    ] = None,
    batch_size: Annotated[
        str | None,
        _text("--batch", "--batch-size", help="Samples per run.", default="1", panel=_MODEL),
    ] = None,
    seed: Annotated[
        str | None,
        _text("--seed", help="Of weights, input and masks that are random.", default="0", panel=_MODEL),
    ] = None,
    pattern: Annotated[
        str | None,
        _text(
            "--pattern", help="Patterns of random masks, as 1x16,block16.", default=ONEXN, panel=_OURS
        ),
    ] = None,
    block_n: Annotated[
        str | None,
        _text(
            "--block-n",
            help="N of 1xN, several for the best.",
            default="8,16,32",
            panel=_OURS,
        ),
    ] = None,
    sparsity: Annotated[
        str | None,
        _text(
            "--sparsity",
            help="Fractions of blocks pruned, or none.",
            default="0.75, and none with a plan or an artifact",
            panel=_OURS,
        ),
    ] = None,
    exclude: options.Exclude = None,
    plan: Annotated[
        str | None, _text("--plan", help="Plan to follow, as a run's configs hold it.", panel=_OURS)
    ] = None,
    artifact: Annotated[
        str | None,
        _text("--artifact", help="Exported file to run; --weights names its weights.", panel=_OURS),
    ] = None,
    dense: Annotated[
        bool,
        typer.Option(
            "--dense/--no-dense", help="Run the model without zeros too.", rich_help_panel=_OURS
        ),
    ] = True,
    dtype: Annotated[
        str | None,
        _text(
            "--dtype",
            help="Arithmetic types of ours: f32, bf16, f16.",
            default="f32, on a GPU bf16",
            panel=_OURS,
        ),
    ] = None,
    compact_weights: Annotated[
        bool,
        typer.Option(
            "--compact-weights",
            help="Leave out kernels of ours that keep transformed weights.",
            rich_help_panel=_OURS,
        ),
    ] = False,
    untuned: Annotated[
        bool,
        typer.Option(
            "--untuned",
            help="Measure nothing before: ours run what the engine picks by its rules, and every "
            "pattern by itself.",
            rich_help_panel=_OURS,
        ),
    ] = False,
    against: Annotated[
        str | None,
        _text("--against", help="Other engines, or none.", default="every installed one", panel=_HOW),
    ] = None,
    calibration: Annotated[
        str | None,
        _text(
            "--calibration",
            help="Data whose samples give int8 peers their ranges, as --data of search.",
            default="random inputs",
            panel=_HOW,
        ),
    ] = None,
    peers_masked: Annotated[
        bool,
        typer.Option(
            "--peers-masked", help="Run them on the models with zeros too.", rich_help_panel=_HOW
        ),
    ] = False,
    threads: Annotated[
        str | None,
        _text(
            "--threads",
            help="Thread counts, one comparison each.",
            default="every usable core",
            panel=_HOW,
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            help="Running time of each contestant (default: 4).",
            min=0.01,
            show_default=False,
            rich_help_panel=_HOW,
            metavar="",
        ),
    ] = None,
    repeats: Annotated[
        int | None,
        typer.Option(
            help="Runs of each contestant, instead of a time.",
            min=6,
            show_default=False,
            rich_help_panel=_HOW,
            metavar="",
        ),
    ] = None,
    device: Annotated[
        str | None,
        _text("--device", help="Where everybody runs: cpu, cuda, cuda:1.", default="cpu", panel=_HOW),
    ] = None,
    database: options.Database = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="Time every layer of ours alone too, and print them.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for JSON and pictures.", metavar="")
    ] = None,
    as_json: options.Json = False,
) -> int:
    """Compare whole models on this engine and on others, all in turn."""
    from autosparse.storage.paths import writable_folder

    asked = _asked(
        model=_required(model),
        weights=weights,
        input_shape=input_shape,
        batch_size=batch_size,
        seed=seed,
        pattern=pattern,
        block_n=block_n,
        sparsity=sparsity,
        exclude=exclude,
        plan=plan,
        artifact=artifact,
        dense=dense,
        dtype=dtype,
        against=against,
        calibration=calibration,
        peers_masked=peers_masked,
        threads=threads,
        policy=_policy(seconds, repeats),
        device=device,
        database=database,
        compact_weights=compact_weights,
        untuned=untuned,
        layers_alone=layers,
    )
    from autosparse import compare  # brings torch once it is asked to compare

    compare.check(asked)
    if out is not None:
        writable_folder(out, "the folder of --out")
    with working(ctx.obj) as progress:
        found = compare.compare(asked, progress)
    if as_json:
        emit_json(found.to_json())
    else:
        _show(found, layers)
    if out is not None:
        _keep(found, out, silent=as_json)
    return ExitCode.INTERNAL if found.failed else ExitCode.DONE


# ------------------------------------------------------------------------------------------- reading


def _required(model: str | None) -> str:
    if model is None:
        raise ConfigError("a model must be named, but none was; write --model resnet18")
    return model


def _asked(
    *,
    model: str,
    weights: str | None,
    input_shape: str | None,
    batch_size: str | None,
    seed: str | None,
    pattern: str | None,
    block_n: str | None,
    sparsity: str | None,
    exclude: list[str] | None,
    plan: str | None,
    artifact: str | None,
    dense: bool,
    dtype: str | None,
    against: str | None,
    calibration: str | None,
    peers_masked: bool,
    threads: str | None,
    policy: MeasurementPolicy,
    device: str | None,
    database: str | None,
    compact_weights: bool,
    untuned: bool,
    layers_alone: bool,
) -> Asked:
    from autosparse import hardware, values
    from autosparse.compare import Asked
    from autosparse.compare.records import Subject
    from autosparse.devices import kind_and_number
    from autosparse.units import parse_fraction

    own_zeros = plan is not None or artifact is not None
    where = "cpu" if device is None else values.text(device, "--device")
    is_cpu = kind_and_number(where)[0] == "cpu"
    subject = Subject(
        model=model,
        weights=weights,
        input_shape=() if input_shape is None else values.shape(input_shape, "--shape"),
        batch_size=values.count(1)(1 if batch_size is None else batch_size, "--batch"),
        seed=values.seed(0 if seed is None else seed, "--seed"),
        calibration=calibration,
    )
    return Asked(
        subject=subject,
        sparsities=listed_or_none(
            (NONE if own_zeros else "0.75") if sparsity is None else sparsity,
            "--sparsity",
            lambda part, name: parse_fraction(part, what=name),
        ),
        patterns=patterns(pattern or (None if is_cpu else _TILES), block_n, usual="8,16,32"),
        plan=plan,
        artifact=artifact,
        dtypes=listed(
            ("f32" if is_cpu else "bf16") if dtype is None else dtype,
            "--dtype",
            values.choice(("f32", "bf16", "f16")),
        ),
        threads=listed(
            (str(hardware.usable_cores()) if is_cpu else "1") if threads is None else threads,
            "--threads",
            values.count(1),
        ),
        against=None if against is None else listed_or_none(against, "--against", values.text),
        exclude=tuple(exclude or ()),
        dense=dense,
        peers_masked=peers_masked,
        policy=policy,
        device=where,
        database=database,
        compact_weights=compact_weights,
        untuned=untuned,
        layers_alone=layers_alone,
    )


def _policy(seconds: float | None, repeats: int | None) -> MeasurementPolicy:
    import dataclasses

    from autosparse.measuring.stopwatch import WHOLE

    if seconds is not None and repeats is not None:
        raise UsageError("a comparison takes --seconds or --repeats, but got both")
    if repeats is not None:
        return dataclasses.replace(WHOLE, min_repeats=repeats, max_repeats=repeats)
    if seconds is not None:
        return dataclasses.replace(WHOLE, time_cap_us=seconds * 1e6)
    return WHOLE


# ------------------------------------------------------------------------------------------- showing


def _show(found: Comparison, layers: bool) -> None:
    from autosparse.compare import table

    for session in found.sessions:
        emit_table(table.columns(session), table.rows(session), title=table.title(found, session))
        for line in table.remarks(session):
            emit(line)
        for result in session.results if layers else ():
            if result.layers:
                emit_table(table.LAYER_COLUMNS, table.layer_rows(result), title=result.contestant.name)
    for line in table.scaling(found):
        emit(line)
    for refusal in found.absent:
        emit(table.refused(refusal))


def _keep(found: Comparison, folder: Path, *, silent: bool) -> None:
    from autosparse.compare import picture
    from autosparse.storage.files import write_json

    write_json(folder / _FILE, found.to_json())
    files, why = picture.write(found, folder)
    if not silent:
        emit(f"wrote {', '.join(str(path) for path in [folder / _FILE, *files])}")
        if why:
            emit(why)
