"""A compiled model into an artifact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from autosparse import hardware
from autosparse.deploy import LayerReport, Manifest, Provenance
from autosparse.deploy.artifact import write_artifact
from autosparse.deploy.manifest import Port, structure_of
from autosparse.deploy.recorded import RecordedProgram
from autosparse.engine.border import Border
from autosparse.graph import Port as GraphPort
from autosparse.kernels import spec
from autosparse.plans.plan import Plan
from autosparse.records import Accuracy, WholeLatency
from autosparse.version import __version__


@dataclass(frozen=True, slots=True, kw_only=True)
class Saveable:
    """What a compiled model keeps in order to be saved.

    Attributes:
        program: the program with its kept weights.
        operators: name of every operator.
        sources: for every output of the model the index of the program's output that it is.
        layer_operators: for every layer the index of its operator.
    """

    program: RecordedProgram
    operators: tuple[str, ...]
    sources: tuple[int, ...]
    layer_operators: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What is known of a model to save beside the program.

    Attributes:
        model: its name, may be empty.
        plan: what was asked of it, None without.
        accuracy: of these weights, None where nobody evaluated them.
        latency: as measured, None where nobody did.
        latency_hardware_id: where; empty for this host.
        run: the run it comes from; empty without.
    """

    model: str = ""
    plan: Plan | None = None
    accuracy: Accuracy | None = None
    latency: WholeLatency | None = None
    latency_hardware_id: str = ""
    run: str = ""


def save(
    path: Path,
    saveable: Saveable,
    border: Border,
    layers: tuple[LayerReport, ...],
    dtype: str,
    facts: Facts,
    *,
    overwrite: bool,
) -> Manifest:
    """Writes the artifact of a compiled model; gives its manifest.

    Raises:
        UsageError: the result's structure cannot be saved, or the file exists.
        RunError: the file cannot be written.
    """
    measured_here = "" if facts.latency is None else hardware.hardware_id()
    manifest = Manifest(
        model=facts.model,
        dtype=dtype,
        inputs=_ports(border.inputs),
        outputs=_ports(border.outputs),
        sources=saveable.sources,
        result=structure_of(border.rebuild(range(len(border.outputs)))),
        operators=saveable.operators,
        layers=layers,
        layer_operators=saveable.layer_operators,
        plan=None if facts.plan is None else facts.plan.to_json(),
        accuracy=facts.accuracy,
        latency=facts.latency,
        latency_hardware_id=facts.latency_hardware_id or measured_here,
        provenance=_provenance(layers, facts.run),
    )
    return write_artifact(path, saveable.program, manifest, overwrite=overwrite)


def _ports(ports: Sequence[GraphPort]) -> tuple[Port, ...]:
    return tuple(Port(name=port.tensor, shape=tuple(port.dims), dtype=port.dtype) for port in ports)


def _provenance(layers: tuple[LayerReport, ...], run: str) -> Provenance:
    host = hardware.describe()
    known = {kernel.name: kernel for kernel in spec.all_kernels()}
    used = sorted({layer.kernel for layer in layers} & known.keys())
    return Provenance(
        autosparse=__version__,
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        hardware_id=host.hardware_id,
        cpu=host.cpu.model,
        torch=torch.__version__,
        run=run,
        kernels={name: spec.source_hash(known[name]) for name in used},
    )
