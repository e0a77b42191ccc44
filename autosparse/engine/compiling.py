"""`compile`: module in, callable out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from autosparse import hardware
from autosparse.database import TuningDatabase
from autosparse.deploy import LayerReport
from autosparse.deploy.recorded import RecordedProgram
from autosparse.deploy.runner import NativeRunner
from autosparse.devices import AUTO
from autosparse.engine.border import Border
from autosparse.engine.compiled import CompiledModel
from autosparse.engine.lower import Lowered, Refused, lower
from autosparse.engine.measured import MeasuredRows
from autosparse.engine.runners import TorchRunner
from autosparse.engine.saving import Saveable
from autosparse.engine.select import Selection, select
from autosparse.engine.tuned import Rows, compile_tuned
from autosparse.errors import UsageError
from autosparse.graph import Exported, Graph, Node, Op, fuse, layer_nodes, layers
from autosparse.kernels.binding import NativeProgram
from autosparse.kernels.compact import check_compact
from autosparse.plans.plan import Plan
from autosparse.progress import Progress
from autosparse.tuning.request import dense_weight_bytes
from autosparse.units import parse_duration_us

logger = logging.getLogger(__name__)

DTYPES = ("f32", "bf16")

KNOWN = "known"
"""As a time to tune for: rows that are known are compared whole, and no others are taken."""


def compile(
    model: nn.Module | Exported,
    example_inputs: Sequence[torch.Tensor],
    *,
    dtype: str | None = None,
    threads: int | None = None,
    plan: Plan | None = None,
    database: TuningDatabase | str | None = None,
    pin: bool = True,
    exportable: bool = False,
    compact_weights: bool = False,
    use_zeros: bool = True,
    tune: str | None = None,
    device: str = AUTO,
    progress: Progress | None = None,
) -> CompiledModel:
    """Compiles a module for inference on this host, with inputs of the example's shapes.

    The 1xN structure of every layer is found in the weight's own zeros, whoever pruned it; batch-norm,
    bias, activation and residual sums are folded into the layers. The result holds its own copy of the
    weights and computes what the module computes in evaluation mode.

    A model with an operator that the executor lacks runs through torch as a whole: the result's
    `engine` is then ``torch``, and `why` and `layers` name the operator.

    On a GPU it runs as one CUDA graph on the caller's stream, in bf16 or f16 inside: convolutions and
    matrix products on our kernels or a library's, whichever rows say is faster, all else as torch has
    it. Tiles (TW, TVW) are what zeros are used as there.

    Args:
        model: the module, masked or not; it is not changed. Or what torch captured of it, on inputs of
            the example's shapes: several weights of one model are then captured once.
        example_inputs: positional inputs, float32 tensors; their shapes are final, batch included.
        dtype: ``f32``, or ``bf16``: weights and activations are bf16, sums float32, and what follows
            the last layer stays float32. None takes the plan's, without a plan ``f32``.
        threads: worker threads, the calling one included; None takes every usable core.
        plan: names the kernel per layer; it must fit the model, whose weights must hold its zeros. A
            kernel that cannot run here is replaced, and `layers` says why. A layer that it names as
            dense runs dense; one that it does not name runs as its zeros allow.
        database: tuning database, or its URL; None takes the user's own if there is one.
        pin: whether every worker stays on one processor while it runs, one that no other run of this
            process is pinned to; where too few are left, none is.
        exportable: keeps a copy of the kept weights, so that the result can be saved.
        compact_weights: leaves out kernels that keep transformed weights, which are fast and take 1.8
            to 4 times the memory: the weights of an f32 model with 75 % zeros then take about 30 % of
            the dense ones. bf16 has no such kernels.
        use_zeros: False runs every layer dense that the plan does not make sparse, although its weight
            holds blocks of zeros: how a dense model is timed whose weights were pruned before.
        tune: a duration such as ``30s``: so long the kernels of this model's own layers are timed, the
            costliest layers first. Rows go into `database`, and are used unless the model, run whole in
            turn with what is compiled without them, is slower: `tuning` says which it was. ``known``
            times no more, and holds the rows that are there to that. On a GPU there is ``known`` alone:
            our layers in torch's graph as it is, the same graph compiled by torch, and torch's own
            layers compiled by it run in turn, and the fastest stays.
        device: where it runs: ``auto`` and ``cpu`` are the processor; ``cuda``, or ``cuda:1`` and so
            on, a GPU.
        progress: told of the tuning, and asked whether to stop.

    Returns:
        A callable that takes and gives torch tensors or numpy arrays.

    Raises:
        UsageError: a bad argument.
        ModelError: torch cannot export the model.
        PlanError: the plan does not fit the model, its weights, or `compact_weights`.
        DatabaseError: the named database cannot be read.
        MissingDependency: the host has no such device; says what is missing.
    """
    if device not in (AUTO, "cpu"):
        asked: dict[str, object] = {"threads": threads, "exportable": exportable or None}
        if tune != KNOWN:
            asked["tune"] = tune
        turns = (progress or Progress()) if tune == KNOWN else None
        return _on_gpu(model, example_inputs, device, dtype, plan, database, use_zeros, asked, turns)
    count = hardware.checked_threads(threads)
    budget_us = None if tune in (None, KNOWN) else parse_duration_us(tune, what="tune", example='"30s"')
    dtype = _checked_dtype(dtype, plan)
    if compact_weights and plan is not None:
        check_compact(plan)
    captured = model if isinstance(model, Exported) else Exported(model, example_inputs)
    captured.check(example_inputs)
    graph = fuse(captured.graph())
    if plan is not None:
        plan.check(layers(graph))
    if graph.unsupported:
        return _through_torch(captured.module, graph, graph.unsupported, example_inputs, count)

    def make(measured: MeasuredRows) -> CompiledModel:
        selections = select(
            graph,
            plan,
            measured,
            dtype,
            use_zeros=use_zeros,
            compact_weights=compact_weights,
        )
        lowered = lower(
            graph,
            selections,
            threads=count,
            pin=pin,
            dtype=dtype,
            compact_weights=compact_weights,
            make=RecordedProgram if exportable else NativeProgram,
        )
        return CompiledModel(
            NativeRunner(lowered.program, lowered.operators, lowered.outputs),
            _border(graph, example_inputs),
            _reports(graph, selections, lowered),
            threads=count,
            dtype=dtype,
            names={node.name: layer.name for node, layer in layer_nodes(graph)},
            saveable=_saveable(graph, lowered),
        )

    try:
        if tune is None:
            measured = MeasuredRows.open(
                database,
                count,
                dtype,
                compact_weights=compact_weights,
                weight_bytes=dense_weight_bytes(layers(graph), dtype),
            )
            return make(measured)
        rows = Rows(database=database, threads=count, dtype=dtype, compact_weights=compact_weights)
        compiled, verdict = compile_tuned(graph, make, rows, budget_us, progress or Progress())
        compiled.tuning = verdict.describe()
        return compiled
    except Refused as refusal:
        refused = (replace(refusal.node, op=Op.UNSUPPORTED, reason=refusal.reason),)
        return _through_torch(captured.module, graph, refused, example_inputs, count)


def _on_gpu(
    model: nn.Module | Exported,
    example_inputs: Sequence[torch.Tensor],
    device: str,
    dtype: str | None,
    plan: Plan | None,
    database: TuningDatabase | str | None,
    use_zeros: bool,
    asked: Mapping[str, object],
    turns: Progress | None,
) -> CompiledModel:
    from autosparse.engine.gpu.compiling import compile_on, place_of  # loads what GPUs need
    from autosparse.engine.gpu.contest import compile_fastest

    place = place_of(device)
    for name, value in asked.items():
        if value is not None:
            raise UsageError(f"{name} is of models on processors, but got {value!r} with {device}")
    captured = model if isinstance(model, Exported) else Exported(model, example_inputs)
    captured.check(example_inputs)
    planned = plan.dtype if plan is not None and plan.layers else None
    dtype = dtype or planned or "bf16"
    if turns is not None:
        return compile_fastest(
            captured, place, turns, dtype=dtype, plan=plan, database=database, use_zeros=use_zeros
        )
    return compile_on(captured, place, dtype=dtype, plan=plan, database=database, use_zeros=use_zeros)


def why_not_native(graph: Graph, dtype: str = "f32") -> tuple[str, ...]:
    """Says what keeps a model from running natively as a whole in a dtype; empty if nothing does.

    Args:
        graph: the model, fused.
        dtype: arithmetic type.

    Returns:
        Every operator that stands in the way, with the reason and all modules that it is in.
    """
    if graph.unsupported:
        return _grouped(graph.unsupported)
    try:
        lower(graph, {}, threads=1, pin=False, dtype=dtype).program.close()
    except Refused as refusal:
        return _grouped((replace(refusal.node, op=Op.UNSUPPORTED, reason=refusal.reason),))
    return ()


def _grouped(nodes: Sequence[Node]) -> tuple[str, ...]:
    modules: dict[tuple[str, str], dict[str, None]] = {}
    for node in nodes:
        modules.setdefault((node.aten or node.name, node.reason), {})[node.module] = None
    return tuple(
        f"{aten} in {', '.join(module or 'the model itself' for module in found)} ({reason})"
        for (aten, reason), found in modules.items()
    )


def _described(nodes: Sequence[Node]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(node.describe() for node in nodes))


def _checked_dtype(dtype: str | None, plan: Plan | None) -> str:
    planned = plan.dtype if plan is not None and plan.layers else None
    wanted = dtype or planned or "f32"
    if wanted not in DTYPES:
        raise UsageError(f"dtype must be one of {', '.join(DTYPES)}, but got {wanted!r}")
    if planned is not None and wanted != planned:
        raise UsageError(f"dtype must be that of the plan, {planned}, but got {wanted!r}; leave it out")
    return wanted


def _border(graph: Graph, examples: Sequence[torch.Tensor]) -> Border:
    """Keeps what calls are checked against; floating-point examples become random numbers.

    A model timed on the zeros of a careless example would look faster than it is.
    """
    generator = torch.Generator().manual_seed(0)
    values = [
        torch.randn(value.shape, generator=generator, dtype=value.dtype)
        if value.is_floating_point()
        else value.detach().clone()
        for value in examples
    ]
    return Border(
        inputs=graph.inputs, outputs=graph.outputs, out_spec=graph.out_spec, examples=tuple(values)
    )


def _reports(
    graph: Graph, selections: Mapping[str, Selection], lowered: Lowered
) -> tuple[LayerReport, ...]:
    kernels = dict(zip(lowered.operators, lowered.program.op_kernels(), strict=True))
    reports = []
    for node, layer in layer_nodes(graph):
        choice = selections[node.name]
        refused = lowered.replaced.get(node.name, "")
        report = LayerReport(
            name=layer.name,
            shape=layer.shape,
            pattern=choice.pattern.name,
            sparsity=choice.sparsity,
            kernel=kernels[node.name] or "builtin",
            why=f"{choice.why}, but refused: {refused}; the executor's default"
            if refused
            else choice.why,
        )
        if refused:
            logger.warning("%s: another kernel than %s: %s", report.name, choice.why, refused)
        logger.debug("%s: %s, %s (%s)", report.name, report.pattern, report.kernel, report.why)
        reports.append(report)
    return tuple(reports)


def _saveable(graph: Graph, lowered: Lowered) -> Saveable | None:
    if not isinstance(lowered.program, RecordedProgram):
        return None
    places = {name: index for index, name in enumerate(lowered.operators)}
    return Saveable(
        program=lowered.program,
        operators=lowered.operators,
        sources=lowered.outputs,
        layer_operators=tuple(places[node.name] for node, _ in layer_nodes(graph)),
    )


def _through_torch(
    model: nn.Module,
    graph: Graph,
    refused: Sequence[Node],
    examples: Sequence[torch.Tensor],
    threads: int,
) -> CompiledModel:
    why = _described(refused)
    more = f" (and {len(why) - 1} more)" if len(why) > 1 else ""
    logger.warning("the whole model runs through torch: %s%s", why[0], more)
    reports = tuple(
        LayerReport(
            name=layer.name,
            shape=layer.shape,
            pattern="dense",
            sparsity=0.0,
            kernel="torch",
            why=f"the whole model runs through torch: {why[0]}{more}",
        )
        for layer in layers(graph)
    )
    runner = TorchRunner(model, threads)
    return CompiledModel(runner, _border(graph, examples), reports, threads=threads, names={}, why=why)
