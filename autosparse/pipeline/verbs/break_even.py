"""`autosparse profile --break-even`: from which sparsity on sparse kernels win here, shape by shape."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch

from autosparse import graph, models
from autosparse.database import TuningDatabase
from autosparse.devices import AUTO
from autosparse.devices.device import find
from autosparse.errors import UsageError
from autosparse.hardware import usable_cores
from autosparse.measuring import limits
from autosparse.pipeline.results.outcomes import BreakEvenOutcome
from autosparse.plans.break_even import BreakEven, break_even
from autosparse.progress import Progress
from autosparse.records import LayerInfo, Pattern, onexn
from autosparse.searching.space import BLOCK_NS
from autosparse.storage import paths
from autosparse.storage.files import write_json
from autosparse.tuning.bisection import bisect
from autosparse.tuning.request import TuneRequest, dense_weight_bytes

GRID = (*(step / 16 for step in range(1, 16)), 31 / 32)
"""Sparsities that are tried: every sixteenth, and one beyond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakEvenRequest:
    """What to measure.

    Attributes:
        model: whose layers, named as for a search.
        threads: worker threads; None takes every usable core.
        dtype: arithmetic type.
        patterns: sparse patterns to try.
        batch_size: samples per run.
        input_shape: one sample; None is the model's own.
        database: URL of the tuning database; None is the user's own.
        file: where the map is kept; None is a file in AUTOSPARSE_HOME.
    """

    model: str = "resnet18"
    threads: int | None = None
    dtype: str = "f32"
    patterns: tuple[Pattern, ...] = tuple(onexn(block_n) for block_n in BLOCK_NS)
    batch_size: int = 1
    input_shape: tuple[int, int, int] | None = None
    database: str | None = None
    file: Path | None = None


def measure_break_even(request: BreakEvenRequest, progress: Progress | None = None) -> BreakEvenOutcome:
    """Finds, per distinct layer shape and pattern, the least sparsity that beats the dense kernel here.

    Rows come from the tuning database; what it lacks is measured the tuner's way and stored.

    Raises:
        UsageError: something asked for cannot be meant; nothing was started.
        Stopped: a stop was asked for; every row measured so far is saved.
    """
    models.check_source(request.model)
    threads = _threads(request)
    progress = (progress or Progress()).of("profile --break-even")
    with progress.at("profile"):
        device = find(AUTO, limits.profile(progress=progress))
    layers = _layers(request)
    tuning = TuneRequest(
        layers=layers,
        patterns=request.patterns,
        sparsities=GRID,
        threads=threads,
        dtype=request.dtype,
        model_weight_bytes=dense_weight_bytes(layers, request.dtype),
    )
    with TuningDatabase(request.database) as database:
        with progress.at("tune"):
            found = bisect(tuning, device, database, progress=progress)
    file = request.file or _file(device.id, request.model, threads, request.dtype)
    outcome = BreakEvenOutcome(
        model=request.model,
        hardware_id=device.id,
        cpu=device.name,
        threads=threads,
        dtype=request.dtype,
        batch_size=request.batch_size,
        timed=found.timed,
        reused=found.reused,
        layers=_names(layers),
        cells=_in_order(break_even(found.rows), layers),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        file=str(file),
    )
    write_json(file, outcome.to_json())
    return outcome


def _threads(request: BreakEvenRequest) -> int:
    usable = usable_cores()
    if request.threads is not None and request.threads > usable:
        raise UsageError(
            f"threads must be at most the {usable} cores this process may use, "
            f"but got {request.threads}"
        )
    return request.threads or usable


def _layers(request: BreakEvenRequest) -> tuple[LayerInfo, ...]:
    loaded = models.resolve(request.model)
    shape = request.input_shape or loaded.input_shape
    layers = graph.capture_layers(loaded.module, (torch.zeros(request.batch_size, *shape),))
    if not any(layer.shape is not None and not layer.why_dense for layer in layers):
        raise UsageError(
            f"a break-even map needs layers that may be sparse, but {request.model} has none: "
            f"{'; '.join(sorted({why for layer in layers for why in layer.why_dense}))}"
        )
    return layers


def _names(layers: Sequence[LayerInfo]) -> dict[str, tuple[str, ...]]:
    """Gives shape to the layers that have it, in the order they run; sparse ones alone."""
    found: dict[str, tuple[str, ...]] = {}
    for layer in layers:
        if layer.shape is not None and not layer.why_dense:
            found[layer.shape.key] = (*found.get(layer.shape.key, ()), layer.name)
    return found


def _in_order(cells: Sequence[BreakEven], layers: Sequence[LayerInfo]) -> tuple[BreakEven, ...]:
    order = list(_names(layers))
    known = [cell for cell in cells if cell.shape in order]
    return tuple(sorted(known, key=lambda cell: order.index(cell.shape)))


def _file(hardware_id: str, model: str, threads: int, dtype: str) -> Path:
    slug = re.sub(r"[^A-Za-z0-9_.-]+", "-", model).strip("-.")
    return paths.home() / "break-even" / f"{hardware_id}-{slug}-t{threads}-{dtype}.json"
