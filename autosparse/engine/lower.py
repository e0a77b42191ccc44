"""The fused graph as a native program."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from autosparse.engine.select import Selection
from autosparse.errors import NoKernel, UsageError
from autosparse.graph import Activation, Graph, Node, Op, float_tail
from autosparse.graph.ir import FloatArray
from autosparse.kernels.binding import Activation as NativeActivation
from autosparse.kernels.binding import NativeOp, NativeProgram, OpKind
from autosparse.kernels.native_op import ANY_KERNEL, COMPACT_KERNEL

KINDS: Mapping[Op, OpKind] = {op: OpKind[op.name] for op in Op if op.name in OpKind.__members__}
ACTIVATIONS: Mapping[Activation, NativeActivation] = {
    activation: NativeActivation[activation.name] for activation in Activation
}
MAX_INPUTS = 8


class Refused(Exception):
    """The executor does not take an operator, for its sizes.

    Attributes:
        node: the operator.
        reason: what stands against it.
    """

    def __init__(self, node: Node, reason: str) -> None:
        super().__init__(reason)
        self.node = node
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Lowered:
    """A finished native program.

    Attributes:
        program: takes the graph's inputs and gives each distinct output tensor once.
        operators: name of the graph's node behind every operator of the program, in order.
        outputs: for every output of the graph the index of the program's output.
        replaced: name of a node to the reason why the executor refused its selected kernel and took
            another.
    """

    program: NativeProgram
    operators: tuple[str, ...]
    outputs: tuple[int, ...]
    replaced: Mapping[str, str]


def lower(
    graph: Graph,
    selections: Mapping[str, Selection],
    *,
    threads: int,
    pin: bool,
    dtype: str = "f32",
    compact_weights: bool = False,
    make: Callable[[int, bool], NativeProgram] = NativeProgram,
) -> Lowered:
    """Builds and finishes the native program of a fused graph without unsupported nodes.

    Args:
        graph: what to build.
        selections: node name to how it runs.
        threads: workers.
        pin: whether every worker stays on one processor while it runs, one that no other run of this
            process is pinned to; where too few are left, none is.
        dtype: arithmetic type.
        compact_weights: where no kernel is selected, takes none that expands weights.
        make: makes the empty program.

    Raises:
        Refused: the executor does not take an operator.
    """
    assert not graph.unsupported, "the caller runs such graphs another way"
    prepared = _prepare(graph)
    free = COMPACT_KERNEL if compact_weights else ANY_KERNEL
    program = make(threads, pin)
    replaced: dict[str, str] = {}
    try:
        wide = float_tail(prepared) if dtype == "bf16" else prepared.shapes.keys()
        ids = {
            name: program.tensor(shape, "f32" if name in wide else dtype)
            for name, shape in prepared.shapes.items()
        }
        for port in prepared.inputs:
            program.input(ids[port.tensor])
        for node in prepared.nodes:
            selection = selections.get(node.name, Selection())
            if refused := _add(program, node, ids, selection, free):
                replaced[node.name] = refused
        distinct = list(dict.fromkeys(port.tensor for port in prepared.outputs))
        for name in distinct:
            program.output(ids[name])
        program.share_weights()
        program.finish()
    except BaseException:
        program.close()
        raise
    return Lowered(
        program,
        tuple(node.name for node in prepared.nodes),
        tuple(distinct.index(port.tensor) for port in prepared.outputs),
        replaced,
    )


def _add(
    program: NativeProgram, node: Node, ids: Mapping[str, int], selection: Selection, free: int
) -> str:
    """Adds an operator; gives why it has another kernel than the selected one, or an empty text."""
    try:
        program.op(_native(node, ids, selection, free))
        return ""
    except (UsageError, NoKernel) as error:
        if selection.kernel is None:
            raise Refused(node, str(error)) from error
        refused = str(error)
    # What one kernel refuses, another may take; what none takes, this says.
    _add(program, node, ids, replace(selection, kernel=None), free)
    return refused


def _prepare(graph: Graph) -> Graph:
    """Splits concatenations of many parts, and copies inputs that are outputs too."""
    nodes = [part for node in graph.nodes for part in _split(node, graph)]
    inputs = {port.tensor for port in graph.inputs}
    outputs = []
    for port in graph.outputs:
        if port.tensor not in inputs:
            outputs.append(port)
            continue
        copy = Node(
            name=f"{port.tensor}_copy{len(outputs)}",
            op=Op.ACTIVATION,
            inputs=(port.tensor,),
            shape=graph.shapes[port.tensor],
        )
        nodes.append(copy)
        outputs.append(replace(port, tensor=copy.name))
    return replace(graph, nodes=tuple(nodes), outputs=tuple(outputs))


def _split(node: Node, graph: Graph) -> list[Node]:
    """Gives a concatenation as a tree of such with at most `MAX_INPUTS` parts each."""
    if node.op is not Op.CONCAT or len(node.inputs) <= MAX_INPUTS:
        return [node]
    shapes = graph.shapes
    made: list[Node] = []
    parts: list[tuple[str, int]] = [(name, shapes[name][1]) for name in node.inputs]
    while len(parts) > MAX_INPUTS:
        joined = []
        for start in range(0, len(parts), MAX_INPUTS):
            group = parts[start : start + MAX_INPUTS]
            if len(group) == 1:
                joined.append(group[0])
                continue
            channels = sum(count for _, count in group)
            part = replace(
                node,
                name=f"{node.name}_part{len(made)}",
                inputs=tuple(name for name, _ in group),
                shape=(node.shape[0], channels, *node.shape[2:]),
                activation=Activation.NONE,
            )
            made.append(part)
            joined.append((part.name, channels))
        parts = joined
    return [*made, replace(node, inputs=tuple(name for name, _ in parts))]


def _native(node: Node, ids: Mapping[str, int], selection: Selection, free: int) -> NativeOp:
    structure, window = selection.structure, node.window
    return NativeOp(
        kind=KINDS[node.op],
        inputs=tuple(ids[name] for name in node.inputs),
        output=ids[node.name],
        residual=-1 if node.residual is None else ids[node.residual],
        activation=ACTIVATIONS[node.activation],
        kernel=free if selection.kernel is None else selection.kernel.row,
        kernel_size=window.kernel,
        stride=window.stride,
        padding=window.padding,
        dilation=window.dilation,
        groups=node.groups,
        channels_before=node.channels_before,
        count_include_pad=node.count_include_pad,
        weight=_contiguous(node.weight),
        bias=_contiguous(node.bias),
        block_n=0 if structure is None else structure.block_n,
        group_start=None if structure is None else structure.group_start,
        kept=None if structure is None else structure.kept,
    )


def _contiguous(values: FloatArray | None) -> NDArray[np.float32] | None:
    return None if values is None else np.ascontiguousarray(values, dtype=np.float32)
