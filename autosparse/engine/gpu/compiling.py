"""`compile` for a GPU: module in, callable out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from autosparse.database import TuningDatabase
from autosparse.deploy import LayerReport
from autosparse.devices.device import find
from autosparse.devices.kinds.cuda.device import Cuda
from autosparse.engine.border import Border
from autosparse.engine.compiled import CompiledModel
from autosparse.engine.gpu.layer import SiteLayer
from autosparse.engine.gpu.program import build
from autosparse.engine.gpu.runner import GpuRunner
from autosparse.engine.gpu.select import GpuSelection, select
from autosparse.engine.measured import MeasuredRows
from autosparse.errors import MissingDependency, NoKernel, UsageError
from autosparse.graph import Exported, Port
from autosparse.graph.sites import Site, Sited, find_sites
from autosparse.kernels.gpu.chips import Chip, chip_of
from autosparse.kernels.gpu.method import GivenLayer, method_of
from autosparse.plans.plan import Plan
from autosparse.records import LayerInfo
from autosparse.tuning.request import dense_weight_bytes

logger = logging.getLogger(__name__)

DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a model is compiled for.

    Attributes:
        device: as torch names it; ``cpu`` runs the same program without a GPU, for checking.
        chip: what its multiprocessors are.
        id: of the device, by which rows are kept; empty without rows.
        name: in the vendor's words.
    """

    device: torch.device
    chip: Chip
    id: str = ""
    name: str = ""


def place_of(named: str) -> Place:
    """Gives the GPU that a name means.

    Args:
        named: ``cuda``, or ``cuda:1`` and so on.

    Raises:
        MissingDependency: the host has none; says what is missing.
    """
    found = find(named)
    assert isinstance(found, Cuda)
    chip = chip_of(found.gpu.compute_capability)
    assert chip is not None, "`Cuda.of` gives no other"
    for number in range(torch.cuda.device_count()):
        uuid = str(torch.cuda.get_device_properties(number).uuid)
        if uuid in found.gpu.uuid or found.gpu.uuid.endswith(uuid):
            return Place(device=torch.device("cuda", number), chip=chip, id=found.id, name=found.name)
    raise MissingDependency(
        f"device {named} is {found.name} ({found.gpu.uuid}), but torch sees no GPU of that id; "
        "unset CUDA_VISIBLE_DEVICES"
    )


def compile_on(
    captured: Exported,
    place: Place,
    *,
    dtype: str = "bf16",
    plan: Plan | None = None,
    database: TuningDatabase | str | None = None,
    use_zeros: bool = True,
    compiler: Callable[[fx.GraphModule], Callable[..., Any]] | None = None,
) -> CompiledModel:
    """Compiles a captured module for a GPU; see `autosparse.compile`.

    Args:
        captured: the module.
        place: where it shall run.
        dtype: ``bf16`` or ``f16``.
        plan: names the kernel per layer.
        database: of rows; None takes the user's own if there is one.
        use_zeros: False runs dense what the plan does not make sparse.
        compiler: makes something faster of the program, such as `torch.compile`, which sees each of our
            layers as one operator; None runs it as it is.

    Raises:
        UsageError: another type.
        PlanError: the plan does not fit the model or its weights.
    """
    if dtype not in DTYPES:
        raise UsageError(
            f"dtype must be {' or '.join(DTYPES)} on a GPU, but got {dtype!r}; inputs and results may "
            "be float32 all the same"
        )
    sited = find_sites(captured)
    if plan is not None:
        plan.check(sited.layers)
    return _compiled(
        captured,
        sited,
        place,
        dtype,
        _chosen(sited, place, dtype, plan, database, use_zeros),
        compiler,
    )


def torch_alone(
    captured: Exported,
    place: Place,
    dtype: str,
    compiler: Callable[[fx.GraphModule], Callable[..., Any]] | None = None,
) -> CompiledModel:
    """Gives the same graph with torch's own operators for all layers, captured too.

    Args:
        captured: the module.
        place: where it shall run.
        dtype: ``bf16`` or ``f16``.
        compiler: as of `compile_on`.
    """
    sited = find_sites(captured)
    chosen = {site.node: GpuSelection(why="torch alone was asked for") for site in sited.sites}
    return _compiled(captured, sited, place, dtype, chosen, compiler)


def _chosen(
    sited: Sited,
    place: Place,
    dtype: str,
    plan: Plan | None,
    database: TuningDatabase | str | None,
    use_zeros: bool,
) -> dict[fx.Node, GpuSelection]:
    measured = MeasuredRows.open(
        database,
        1,
        dtype,
        weight_bytes=dense_weight_bytes(sited.layers, dtype),
        hardware_id=place.id,
    )
    return {
        site.node: select(site, layer, plan, measured, dtype, place.chip, use_zeros=use_zeros)
        for site, layer in zip(sited.sites, sited.layers, strict=True)
    }


def _compiled(
    captured: Exported,
    sited: Sited,
    place: Place,
    dtype: str,
    chosen: Mapping[fx.Node, GpuSelection],
    compiler: Callable[[fx.GraphModule], Callable[..., Any]] | None,
) -> CompiledModel:
    layers = {
        site.node: _prepared(site, chosen[site.node], place)
        for site in sited.sites
        if chosen[site.node].kernel is not None
    }
    names = {
        layers[site.node].place: layer.name
        for site, layer in zip(sited.sites, sited.layers, strict=True)
        if site.node in layers
    }
    ports = _outputs(captured)
    program = build(sited, layers, DTYPES[dtype], place.device)
    for layer in layers.values():
        layer.opaque = compiler is not None
    runner = GpuRunner(
        program,
        captured.examples,
        dtype=DTYPES[dtype],
        device=place.device,
        results=[None if port is None else getattr(torch, port.dtype) for port in ports],
        engine="autosparse" if layers else "torch",
        run_graph=None if compiler is None else compiler(program),
    )
    why = (f"runs uncaptured: {runner.why_not_captured}",) if runner.why_not_captured else ()
    return CompiledModel(
        runner,
        _border(captured, ports, place),
        _reports(sited, chosen),
        threads=1,
        dtype=dtype,
        names=names,
        why=why,
    )


def _prepared(site: Site, chosen: GpuSelection, place: Place) -> SiteLayer:
    assert chosen.kernel is not None and site.shape is not None
    given = GivenLayer(
        shape=site.shape,
        weight=site.weight,
        bias=site.bias,
        pattern=chosen.pattern,
        structure=chosen.structure,
    )
    try:
        prepared = method_of(chosen.kernel).prepare(chosen.kernel, given, chosen.launch, place.device)
    except NoKernel as error:
        raise NoKernel(f"layer {site.name!r}: {error}", error.reasons) from error
    return SiteLayer(prepared, site.shape, linear=site.linear)


def _reports(sited: Sited, chosen: Mapping[fx.Node, GpuSelection]) -> tuple[LayerReport, ...]:
    return tuple(
        _report(layer, chosen[site.node]) for site, layer in zip(sited.sites, sited.layers, strict=True)
    )


def _report(layer: LayerInfo, chosen: GpuSelection) -> LayerReport:
    logger.debug("%s: %s, %s (%s)", layer.name, chosen.pattern.name, chosen.runs, chosen.why)
    return LayerReport(
        name=layer.name,
        shape=layer.shape,
        pattern=chosen.pattern.name,
        sparsity=chosen.sparsity,
        kernel=chosen.runs,
        why=chosen.why,
    )


def _outputs(captured: Exported) -> list[Port | None]:
    """Gives the tensors that the model returns, None for what is none."""
    found: list[Port | None] = []
    output = next(node for node in captured.program.graph.nodes if node.op == "output")
    for leaf in output.args[0]:
        value = leaf.meta.get("val") if isinstance(leaf, fx.Node) else None
        if not isinstance(value, torch.Tensor):
            found.append(None)
            continue
        found.append(Port(tensor=leaf.name, dims=tuple(value.shape), dtype=_name(value.dtype)))
    return found


def _border(captured: Exported, ports: Sequence[Port | None], place: Place) -> Border:
    inputs = tuple(
        Port(tensor=f"input_{index}", dims=tuple(value.shape), dtype=_name(value.dtype))
        for index, value in enumerate(captured.examples)
    )
    generator = torch.Generator().manual_seed(0)
    examples = tuple(
        torch.randn(value.shape, generator=generator).to(place.device, value.dtype)
        if value.is_floating_point()
        else value.detach().to(place.device, copy=True)
        for value in captured.examples
    )
    return Border(
        inputs=inputs,
        outputs=tuple(port for port in ports if port is not None),
        out_spec=captured.program.call_spec.out_spec,
        examples=examples,
        device=place.device.type,
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
