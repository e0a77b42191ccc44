"""`autosparse export`: a configuration of a finished search as one file, for this engine or another."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import get_args

import torch
from torch import nn

from autosparse import engine, hardware, models
from autosparse.config import SearchConfig
from autosparse.deploy.artifact import check_target
from autosparse.deploy.endings import ENDINGS, Kind, check_ending
from autosparse.deploy.onnx_file import check_onnx_is_here, write_onnx
from autosparse.deploy.state_dict import write_state_dict
from autosparse.engine.saving import Facts
from autosparse.errors import RunError, UsageError
from autosparse.kernels import spec
from autosparse.pipeline.results.outcomes import ExportOutcome
from autosparse.pipeline.subject.requests import known_dense_weights
from autosparse.pipeline.subject.survey import survey
from autosparse.pipeline.verbs.train import picked
from autosparse.plans.plan import Plan
from autosparse.plans.pruning import sparsify
from autosparse.progress import Progress
from autosparse.records import Accuracy, LayerChoice, WholeLatency
from autosparse.report import document as form
from autosparse.run_folders import slug


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Deployment:
    """One configuration of a run, ready to be written.

    Attributes:
        run: folder of the run.
        document: its pareto.json.
        config: the configuration.
        settings: what the search was asked for.
        plan: the configuration's plan.
        module: the model with the configuration's weights, zeros in place.
        sample: a random input of the shape that was measured.
    """

    run: Path
    document: form.Document
    config: form.Config
    settings: SearchConfig
    plan: Plan
    module: nn.Module
    sample: torch.Tensor


def export(
    run: Path,
    pick: str | None = None,
    *,
    to: Kind = "artifact",
    target: Path | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ExportOutcome:
    """Writes a configuration of a run into one file.

    Args:
        run: folder of a finished search.
        pick: id of a configuration, ``knee``, ``fastest`` or ``most-accurate``; None takes the one that
            the run's verdict chose, and the knee where it chose none.
        to: ``artifact`` for `autosparse.load`, ``onnx``, or ``torch`` for a state dict.
        target: the file; None names it after model and configuration, in the current folder.
        overwrite: replaces an existing file.
        progress: told of what is done.

    Raises:
        RunError: the run is unfinished or lacks weights, or the file cannot be written.
        UsageError: an id that the run does not have, a file that exists or whose ending is of another
            kind, or a model that cannot be exported in this way.
        MissingDependency: the library that the kind of file needs is not installed.
    """
    if to not in get_args(Kind):
        raise UsageError(f"--to must be one of {', '.join(get_args(Kind))}, but got {to!r}")
    if to == "onnx":
        check_onnx_is_here()
    document = form.load(run)
    config = document.config(_picked(document, pick))
    path = target or Path(f"{slug(document.model)}-{config.id}{ENDINGS[to][0]}")
    check_target(path, overwrite)
    check_ending(path, to)
    progress = (progress or Progress()).of(f"export {run.name}")
    deployment = _prepare(run, document, config, progress)
    progress.log(f"exporting {config.id} of {run.name}")
    write: Mapping[Kind, Callable[[], tuple[str, ...]]] = {
        "artifact": lambda: _artifact(deployment, path, overwrite),
        "onnx": lambda: (write_onnx(path, deployment.module, deployment.sample), *_wide(deployment)),
        "torch": lambda: _state_dict(deployment, path),
    }
    notes = write[to]()
    return ExportOutcome(
        path=str(path),
        to=to,
        id=config.id,
        model=document.model,
        bytes=path.stat().st_size,
        accuracy=config.accuracy,
        accuracy_kind=config.accuracy_kind,
        accuracy_split=config.accuracy_split,
        dtype=config.dtype,
        latency_ms=config.measured_latency_ms,
        threads=document.threads,
        notes=notes,
    )


def _picked(document: form.Document, pick: str | None) -> str:
    if pick is None and document.verdict.id is not None:
        return document.verdict.id
    return picked(document, [pick or "knee"])[0]


def _prepare(
    run: Path, document: form.Document, config: form.Config, progress: Progress
) -> _Deployment:
    settings = SearchConfig.from_yaml(run / "config.yaml")
    plan = Plan.load(run / config.plan)
    weights = _weights(run, config, settings, progress)
    module = models.resolve(settings.model, weights=weights, seed=settings.seed).module
    if config.weights is None:
        sparsify(module, plan)
    generator = torch.Generator().manual_seed(settings.seed)
    sample = torch.randn(document.batch_size, *document.input_shape, generator=generator)
    return _Deployment(
        run=run,
        document=document,
        config=config,
        settings=settings,
        plan=plan,
        module=module.eval(),
        sample=sample,
    )


def _weights(run: Path, config: form.Config, settings: SearchConfig, progress: Progress) -> Path:
    """Gives the weights that were measured: trained ones, or the dense ones that the plan prunes."""
    if config.weights is not None:
        found = run / config.weights
    elif settings.weights is not None:
        found = settings.weights
    else:
        found = known_dense_weights(survey(settings, progress))
    if not os.path.isfile(found):
        raise RunError(
            f"a configuration to export must have its weights, but {found} is missing; "
            f"train it again: autosparse train {run.name} --pick {config.id}"
        )
    return found


# ------------------------------------------------------------------------------- kinds of file


def _artifact(deployment: _Deployment, path: Path, overwrite: bool) -> tuple[str, ...]:
    document, config = deployment.document, deployment.config
    is_home = hardware.is_here(document.hardware_id)
    threads = min(document.threads, len(hardware.affinity()))
    compiled = engine.compile(
        deployment.module,
        (deployment.sample,),
        dtype=config.dtype,
        threads=threads,
        plan=_as_measured(deployment.plan, config) if is_home else _unbound(deployment.plan),
        database=deployment.settings.database,
        exportable=True,
        compact_weights=deployment.settings.compact_weights,
    )
    facts = Facts(
        model=document.model,
        plan=deployment.plan,
        accuracy=_accuracy(config),
        latency=_latency(document, config),
        latency_hardware_id=document.hardware_id,
        run=deployment.run.name,
    )
    with compiled:
        compiled.save_as(path, facts, overwrite=overwrite)
    if is_home:
        return ()
    return (
        f"the run is of another host ({document.hardware_id}): kernels were chosen for this one, "
        "the latency in the file is that of the other",
    )


def _as_measured(plan: Plan, config: form.Config) -> Plan:
    """Names for every layer the kernel that ran when the configuration was measured."""
    known = {kernel.name for kernel in spec.all_kernels()}
    ran = {layer.name: layer.kernel for layer in config.layers if layer.kernel in known}
    base = LayerChoice(dtype=plan.dtype)
    choices = {
        name: dataclasses.replace(plan.layers.get(name, base), kernel=kernel)
        for name, kernel in ran.items()
    }
    return dataclasses.replace(plan, layers={**plan.layers, **choices})


def _unbound(plan: Plan) -> Plan:
    """Leaves the kernels open: another host's may not run here."""
    free = {name: dataclasses.replace(choice, kernel=None) for name, choice in plan.layers.items()}
    return dataclasses.replace(plan, layers=free)


def _accuracy(config: form.Config) -> Accuracy:
    return Accuracy(
        value=config.accuracy,
        kind=config.accuracy_kind,
        split=config.accuracy_split,
        samples=config.accuracy_samples,
        dtype=config.accuracy_dtype,
        through=config.accuracy_through,
    )


def _latency(document: form.Document, config: form.Config) -> WholeLatency | None:
    if config.measured_latency_ms is None or config.latency_ci_ms is None:
        return None
    return WholeLatency(
        median_ms=config.measured_latency_ms,
        ci_low_ms=config.latency_ci_ms[0],
        ci_high_ms=config.latency_ci_ms[1],
        repeats=config.latency_repeats,
        threads=document.threads,
        batch_size=document.batch_size,
        dtype=config.dtype,
    )


def _state_dict(deployment: _Deployment, path: Path) -> tuple[str, ...]:
    write_state_dict(path, deployment.module, deployment.plan)
    return _wide(deployment)


def _wide(deployment: _Deployment) -> tuple[str, ...]:
    if deployment.config.dtype == "f32":
        return ()
    return (f"weights are float32; the configuration was measured in {deployment.config.dtype}",)
