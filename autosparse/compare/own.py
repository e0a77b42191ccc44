"""Plans for our contestants: per layer the fastest measured kernel and pattern, or what rules pick."""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Sequence
from pathlib import Path

from autosparse.compare.records import OURS, Asked, Own, Zeros
from autosparse.database import TuningDatabase
from autosparse.devices.device import find
from autosparse.engine import why_not_native
from autosparse.errors import UsageError
from autosparse.graph import Graph
from autosparse.hosts.host import Host
from autosparse.kernels import spec
from autosparse.patterns.family import finest_first
from autosparse.plans.plan import Plan
from autosparse.progress import Progress
from autosparse.records import (
    HardwareProfile,
    LatencyOption,
    LayerChoice,
    LayerInfo,
    Pattern,
)
from autosparse.tuning.autotune import TuneRequest, TuneResult
from autosparse.tuning.narrowing import steps
from autosparse.tuning.request import dense_weight_bytes


def check_dtypes(dtypes: Sequence[str], device: str = "cpu") -> None:
    """Refuses types that no kernel computes in.

    Raises:
        UsageError: names the types that kernels of this build have.
        MissingDependency: the host has no such device.
    """
    if device != "cpu":
        for dtype in dtypes:
            if why := find(device).why_no_dtype(dtype):
                raise UsageError(f"dtype must be one that {device} computes in, but got {dtype}: {why}")
        return
    known = sorted({kernel.dtype for kernel in spec.all_kernels()})
    for dtype in dtypes:
        if dtype not in known:
            raise UsageError(
                f"dtype must be one that kernels of this build compute in ({', '.join(known)}), "
                f"but got {dtype}"
            )


def check_native(model: str, graph: Graph) -> None:
    """Refuses a model that would run through torch: its figures would not be ours.

    Raises:
        UsageError: names every operator that stands in the way, and its modules.
    """
    if foreign := why_not_native(graph):
        raise UsageError(
            f"a model to compare must run natively as a whole, but {model} would run through torch "
            f"because of {'; '.join(foreign)}; replace these operators"
        )


def sparse_layers(layers: Sequence[LayerInfo], exclude: Sequence[str]) -> tuple[LayerInfo, ...]:
    """Gives the layers that random masks prune: neither first nor last, nor excluded, nor refused.

    Raises:
        UsageError: there is none.
    """
    inner = layers[1:-1]
    found = tuple(
        layer
        for layer in inner
        if layer.shape is not None
        and not layer.why_dense
        and not any(fnmatch.fnmatchcase(layer.name, glob) for glob in exclude)
    )
    if not found:
        reasons = sorted({reason for layer in inner for reason in layer.why_dense})
        raise UsageError(
            f"a model to compare sparse must have layers between the first and the last that may be "
            f"sparse, but all {len(inner)} stay dense ({'; '.join(reasons) or 'by --exclude'}); "
            "write --sparsity none to compare it dense"
        )
    return found


def tune_layers(
    asked: Asked,
    layers: Sequence[LayerInfo],
    sparse: Sequence[LayerInfo],
    dtype: str,
    threads: int,
    hardware: HardwareProfile,
    host: Host,
    progress: Progress,
) -> TuneResult:
    """Measures what the tuning database does not know yet of the kernels that plans may name."""
    request = TuneRequest(
        layers=tuple(layers),
        sparse_layers=tuple(layer.name for layer in sparse),
        patterns=asked.patterns if sparse else (),
        sparsities=asked.sparsities if sparse else (),
        threads=threads,
        dtype=dtype,
        model_weight_bytes=dense_weight_bytes(layers, dtype),
        compact_weights=asked.compact_weights,
    )
    with TuningDatabase(asked.database) as database:
        return host.measure(request, find(asked.device, hardware), database, progress=progress)


def contestants(
    asked: Asked,
    layers: Sequence[LayerInfo],
    sparse: Sequence[LayerInfo],
    dtype: str,
    tuned: TuneResult,
) -> tuple[Own, ...]:
    """Gives our contestants of one type that the tuner decides, the dense one first."""
    prefix = _prefix(dtype)
    found = []
    if asked.dense:
        plan = make_plan(asked, layers, (), 0.0, dtype, tuned)
        found.append(Own(name=f"{prefix} dense", dtype=dtype, plan=plan))
    for sparsity in asked.sparsities:
        plan = make_plan(asked, layers, sparse, sparsity, dtype, tuned)
        label = f"{100 * sparsity:g} %"
        zeros = Zeros(name=label, plan=plan, random=True)
        found.append(Own(name=f"{prefix} {label}", dtype=dtype, plan=plan, zeros=zeros))
    return tuple(found)


def untuned_contestants(
    asked: Asked, layers: Sequence[LayerInfo], sparse: Sequence[LayerInfo], dtype: str
) -> tuple[Own, ...]:
    """Gives our contestants of one type whose plans name no kernel, the dense one first."""
    prefix, model = _prefix(dtype), asked.subject.model

    def plan(names: Sequence[LayerInfo], choice: LayerChoice) -> Plan:
        dense = {layer.name: LayerChoice(dtype=choice.dtype) for layer in layers}
        return Plan(model=model, layers=dense | {layer.name: choice for layer in names})

    found = []
    if asked.dense:
        choice = LayerChoice(dtype=dtype)  # type: ignore[arg-type]
        found.append(Own(name=f"{prefix} dense", dtype=dtype, plan=plan((), choice)))
    for sparsity, pattern in itertools.product(asked.sparsities, asked.patterns):
        choice = LayerChoice(pattern=pattern, sparsity=sparsity, dtype=dtype)  # type: ignore[arg-type]
        label = f"{100 * sparsity:g} % {pattern.name}"
        zeros = Zeros(name=label, plan=plan(sparse, choice), random=True)
        found.append(Own(name=f"{prefix} {label}", dtype=dtype, plan=zeros.plan, zeros=zeros))
    return tuple(found)


def named_contestants(asked: Asked) -> tuple[Own, ...]:
    """Gives our contestants that a file decides: a plan, in the type that it says, and an export."""
    found = []
    if asked.plan is not None:
        plan = Plan.load(asked.plan)
        zeros = Zeros(name=Path(asked.plan).stem, plan=plan, random=False)
        name = f"{_prefix(plan.dtype)} {zeros.name}"
        found.append(Own(name=name, dtype=plan.dtype, plan=plan, zeros=zeros))
    if asked.artifact is not None:
        name = f"{OURS} {Path(asked.artifact).name}"
        found.append(Own(name=name, dtype=asked.dtypes[0], artifact=asked.artifact))
    return tuple(found)


def _prefix(dtype: str) -> str:
    return OURS if dtype == "f32" else f"{OURS} {dtype}"


def make_plan(
    asked: Asked,
    layers: Sequence[LayerInfo],
    sparse: Sequence[LayerInfo],
    sparsity: float,
    dtype: str,
    tuned: TuneResult,
) -> Plan:
    """Gives every layer its fastest measured kernel and, if it is sparse, pattern.

    A layer whose dense kernel is faster than every sparse one keeps its zeros and runs dense.
    """
    pruned = {layer.name for layer in sparse}
    chosen = {}
    for layer in layers:
        options = tuned.options.get(layer.name, ())
        if layer.shape is not None and layer.name in pruned:
            if any(step.prunes for p in asked.patterns for step in steps(layer.shape, p, (sparsity,))):
                chosen[layer.name] = sparse_choice(options, sparsity, asked.patterns, dtype)
                continue
        if options:
            chosen[layer.name] = options[0].choice
    return Plan(model=asked.subject.model, layers=chosen)


def sparse_choice(
    options: Sequence[LatencyOption], sparsity: float, patterns: Sequence[Pattern], dtype: str
) -> LayerChoice:
    """Gives the fastest way to run a layer with zeros of that sparsity."""
    able = [o for o in options if o.choice.pattern.is_dense or o.choice.sparsity == sparsity]
    best = min(able, key=lambda option: option.median_us).choice if able else None
    if best is not None and not best.pattern.is_dense:
        return best
    return LayerChoice(
        pattern=finest_first(patterns)[-1],
        sparsity=sparsity,
        dtype=dtype,  # type: ignore[arg-type]
        kernel=best.kernel if best else None,
    )
