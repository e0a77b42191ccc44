"""Flags that several verbs share. Values stay text here: `autosparse.config` reads and checks them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from autosparse.data import kind_names


def _zoo(incomplete: str) -> Iterator[str]:
    from autosparse.models import names  # only when a shell asks for completions

    return (name for name in names() if name.startswith(incomplete))


def _runs(incomplete: str) -> Iterator[str]:
    from autosparse.run_folders import list_runs  # only when a shell asks for completions

    found = ["latest", *(run.name for run in list_runs(Path("results")))]
    return (name for name in found if name.startswith(incomplete))


def _text(*names: str, help: str, default: str = "", panel: str | None = None, **more: Any) -> Any:
    # The parser's own default is None for every flag, so that "not given" can be told from any value.
    said = f"{help.removesuffix('.')} (default: {default})." if default else help
    return typer.Option(
        *names, help=said, show_default=False, rich_help_panel=panel, metavar="", **more
    )


_WHAT, _WHERE, _HOW, _KEEP = "What to search", "What to time", "How to search", "What to keep"

Model = Annotated[
    str | None,
    _text(
        "--model",
        "-m",
        help="Zoo name, path/to/file.py:factory, torchvision:NAME, timm:NAME or hf:ID.",
        panel=_WHAT,
        autocompletion=_zoo,
    ),
]
Weights = Annotated[
    str | None,
    _text(
        "--weights", help="File of dense weights. Without it a baseline is trained once.", panel=_WHAT
    ),
]
Data = Annotated[
    str | None,
    _text(
        "--data",
        help=f"{', '.join(kind_names())}, as KIND or KIND:PATH, or path/to/file.py:factory.",
        default="digits",
        panel=_WHAT,
    ),
]
DataResolution = Annotated[
    str | None,
    _text(
        "--data-resolution",
        help="Pixels per side for accuracy.",
        default="the data's own, at least 32",
        panel=_WHAT,
    ),
]
Space = Annotated[
    str | None,
    _text("--space", help="Shipped search space, or a YAML file.", default="auto", panel=_WHAT),
]
Include = Annotated[
    list[str] | None,
    _text(
        "--include", help="Layers that may be pruned (glob; repeatable).", default="all", panel=_WHAT
    ),
]
Exclude = Annotated[
    list[str] | None, _text("--exclude", help="Layers that stay dense (glob; repeatable).", panel=_WHAT)
]
LatencyBudget = Annotated[
    str | None,
    _text(
        "--latency-budget",
        "-b",
        help="Time one run may take, such as 5ms or 800us. Without it the whole front is searched.",
        panel=_WHERE,
    ),
]
Judged = Annotated[
    str | None,
    _text(
        "--judged",
        help="State of the host that decides, where it has several: worst or best.",
        default="worst",
        panel=_WHERE,
    ),
]
BatchSize = Annotated[
    str | None, _text("--batch-size", help="Samples per timed run.", default="1", panel=_WHERE)
]
InputShape = Annotated[
    str | None,
    _text("--input-shape", help="Timed sample, as 3x224x224.", default="the model's own", panel=_WHERE),
]
Dtype = Annotated[
    str | None,
    _text(
        "--dtype",
        help="Arithmetic type: f32, bf16, f16, or auto: on a CPU f32 or bf16, whichever is better per "
        "configuration, on a GPU bf16.",
        default="auto",
        panel=_WHERE,
    ),
]
CompactWeights = Annotated[
    bool | None,
    typer.Option(
        "--compact-weights/--no-compact-weights",
        help="Leave out kernels that keep transformed weights: less memory, some speed lost.",
        show_default=False,
        rich_help_panel=_WHERE,
    ),
]
Threads = Annotated[
    str | None,
    _text("--threads", help="Threads of a timed run.", default="every usable core", panel=_WHERE),
]
Device = Annotated[
    str | None,
    _text("--device", help="Where to time: auto, cpu, cuda or cuda:1.", default="auto", panel=_WHERE),
]
Trials = Annotated[
    str | None,
    _text("--trials", help="Configurations to try.", default="what the space says", panel=_HOW),
]
TimeBudget = Annotated[
    str | None, _text("--time-budget", help="Time for all of it, such as 20m or 2h.", panel=_HOW)
]
Parallel = Annotated[
    str | None, _text("--parallel", help="Evaluations at a time.", default="every core", panel=_HOW)
]
Seed = Annotated[
    str | None, _text("--seed", help="Seed of everything random.", default="0", panel=_HOW)
]
TopK = Annotated[str | None, _text("--top-k", help="Configurations to train.", default="5", panel=_HOW)]
OneShot = Annotated[
    str | None,
    _text(
        "--one-shot",
        help="How to prune before any training: obs reconstructs layers, masks only masks.",
        default="obs",
        panel=_HOW,
    ),
]
Train = Annotated[
    str | None,
    _text("--train", help="How to train them: none, short or full.", default="short", panel=_HOW),
]
Recipe = Annotated[
    str | None,
    _text(
        "--recipe",
        help="Preset or YAML file of how exactly to train.",
        default="the preset of the kind",
        panel=_HOW,
    ),
]
TrainDevice = Annotated[
    str | None,
    _text(
        "--train-device", help="Where to train: auto, cpu, cuda or cuda:1.", default="auto", panel=_HOW
    ),
]
TrainWorkers = Annotated[
    str | None,
    _text(
        "--train-workers",
        help="Processes that train one configuration together, on cores or GPUs.",
        default="1",
        panel=_HOW,
    ),
]
ShareTraining = Annotated[
    bool | None,
    typer.Option(
        "--share-training/--no-share-training",
        help="Train configurations that differ little once: the densest is trained, the others are "
        "pruned from it.",
        show_default=False,
        rich_help_panel=_HOW,
    ),
]
ShareReach = Annotated[
    str | None,
    _text(
        "--share-reach",
        help="How far their mean sparsities may differ.",
        default="0.0625",
        panel=_HOW,
    ),
]
StudyName = Annotated[str | None, _text("--study-name", help="Name of the Optuna study.", panel=_KEEP)]
Storage = Annotated[
    str | None,
    _text("--storage", help="Optuna storage URL.", default="a file in the run folder", panel=_KEEP),
]
Database = Annotated[
    str | None,
    _text(
        "--database",
        help="URL or file of the tuning database.",
        default="in AUTOSPARSE_HOME",
        panel=_KEEP,
    ),
]
Address = Annotated[
    str | None,
    _text(
        "--address",
        help="Ray cluster to join: host:port or auto.",
        default="start Ray here",
        panel=_KEEP,
    ),
]
Host = Annotated[
    str | None,
    _text(
        "--host",
        help="Where to measure: here, or a node of the cluster joined by --address, as its address, "
        "node:HOSTNAME, or hardware:ID for an idle one of that hardware.",
        default="here",
        panel=_WHERE,
    ),
]
Hosts = Annotated[
    list[str] | None,
    _text(
        "--hosts",
        help="Search for several hosts of the cluster: hardware ids, or all. Each gets a run and a "
        "front of its own, and what was chosen is run on all.",
        panel=_WHERE,
    ),
]
HostWeights = Annotated[
    list[str] | None,
    _text(
        "--host-weights",
        help="What hosts count in the mean over all, as ID=2.",
        default="1 each",
        panel=_WHERE,
    ),
]
Since = Annotated[
    str | None,
    _text(
        "--since",
        help="Earlier finished run to take trainings over from and to compare with: a name, a folder, "
        "or latest, the newest one of these very settings.",
        panel=_KEEP,
        autocompletion=_runs,
    ),
]
Out = Annotated[
    str | None, _text("--out", "-o", help="Folder for runs.", default="results", panel=_KEEP)
]
ConfigFile = Annotated[
    Path | None, _text("--config", "-c", help="YAML file with any of these keys.", panel=_KEEP)
]
SaveConfig = Annotated[
    Path | None,
    _text("--save-config", help="Write the resolved configuration there and stop.", panel=_KEEP),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Runs = Annotated[
    Path,
    typer.Option(
        "--out", "-o", envvar="AUTOSPARSE_OUT", show_envvar=False, help="Folder of runs.", metavar=""
    ),
]
Run = Annotated[
    str,
    typer.Argument(
        help="Name or folder of a run; latest is the newest, or the newest finished.",
        metavar="RUN",
        autocompletion=_runs,
    ),
]
OlderRun = Annotated[
    str,
    typer.Argument(help="Name or folder of the run before.", metavar="OLDER", autocompletion=_runs),
]
NewerRun = Annotated[
    str,
    typer.Argument(
        help="Name or folder of the run after; latest is the newest finished.",
        metavar="NEWER",
        autocompletion=_runs,
    ),
]
EveryRun = Annotated[
    list[str],
    typer.Argument(help="Names or folders of runs.", metavar="RUN...", autocompletion=_runs),
]
