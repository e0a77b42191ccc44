"""torch.export to the operator graph: parameters by their qualified names, shapes fixed by the example.

Nothing here knows a model. What torch's functionalised graph calls, a converter turns into a node; what
has no converter becomes an `Op.UNSUPPORTED` node that names the operator and the module it came from.
"""

from __future__ import annotations

import operator
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind, OutputKind

# The converters enter the table when their files are imported.
from autosparse.errors import ModelError, UsageError
from autosparse.graph import (  # noqa: F401
    convert_layers,
    convert_pointwise,
    convert_pooling,
    convert_shapes,
)
from autosparse.graph.convert import CONVERTERS, Call, Constant, Unsupported, Value
from autosparse.graph.ir import Graph, Node, Op, Port, inside
from autosparse.graph.silence import without_partial_graphs


def trace(module: nn.Module, example_inputs: Sequence[torch.Tensor]) -> Graph:
    """Captures what a module computes in evaluation mode, with the shapes of the example.

    The graph's weights share memory with the module's; the module's training flags stay as they were.

    Args:
        module: any module that ``torch.export`` can take.
        example_inputs: positional arguments, all tensors; their sizes are final.

    Raises:
        UsageError: the inputs are not a non-empty sequence of tensors.
        ModelError: torch cannot export the module, or it writes to its own buffers.
    """
    return Exported(module, example_inputs).graph()


class Exported:
    """A module as torch captured it once, of which graphs can be made again as its weights change.

    Args:
        module: any module that ``torch.export`` can take.
        example_inputs: positional arguments, all tensors; their sizes are final.

    Raises:
        UsageError: the inputs are not a non-empty sequence of tensors.
        ModelError: torch cannot export the module.

    Attributes:
        module: the module.
        program: what torch captured.
    """

    def __init__(self, module: nn.Module, example_inputs: Sequence[torch.Tensor]) -> None:
        self.module = module
        self._inputs = _checked(module, example_inputs)
        self.program = _export(module, self._inputs)

    @property
    def examples(self) -> tuple[torch.Tensor, ...]:
        """The inputs that it was captured on."""
        return self._inputs

    def check(self, example_inputs: Sequence[torch.Tensor]) -> None:
        """Refuses inputs that are not like those it was captured on.

        Raises:
            UsageError: no tensors, or other shapes or types.
        """
        wanted, found = (
            [(tuple(value.shape), value.dtype) for value in values]
            for values in (self._inputs, _checked(self.module, example_inputs))
        )
        if wanted != found:
            raise UsageError(
                f"inputs must be like those that the model was captured on, {wanted}, but got {found}; "
                "capture it on these"
            )

    def unlifted(self) -> fx.GraphModule:
        """Gives torch's own graph as a module that holds the module's parameters; it may be changed.

        Raises:
            ModelError: the module writes to its own buffers.
        """
        for spec in self.program.graph_signature.output_specs:
            if spec.kind not in (OutputKind.USER_OUTPUT, OutputKind.USER_INPUT_MUTATION):
                raise ModelError(
                    f"a model must not change itself in evaluation mode, but it writes {spec.target!r}"
                )
        found = self.program.module(check_guards=False)
        assert isinstance(found, fx.GraphModule)
        return found

    def graph(self) -> Graph:
        """Gives the graph with the weights that the module holds now, changed in place since or not.

        Raises:
            ModelError: the module writes to its own buffers.
        """
        return _Walk(self.program).graph()


def _checked(module: nn.Module, example_inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
    if not isinstance(module, nn.Module):
        raise UsageError(f"a model must be a torch.nn.Module, but got {type(module).__name__}")
    if isinstance(example_inputs, torch.Tensor) or not isinstance(example_inputs, Sequence):
        kind = type(example_inputs).__name__
        raise UsageError(f"example_inputs must be a tuple of tensors, but got {kind}; write (x,)")
    for index, value in enumerate(example_inputs):
        if not isinstance(value, torch.Tensor):
            kind = type(value).__name__
            raise UsageError(f"example_inputs must be tensors, but number {index} is {kind}")
    if not example_inputs:
        raise UsageError("example_inputs must hold at least one tensor, but got none")
    return tuple(example_inputs)


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Sets every part of a module to evaluation mode and afterwards back to what it was."""
    training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in training:
            part.training = True


def _export(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> ExportedProgram:
    with evaluation_mode(module), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with without_partial_graphs():
                program: ExportedProgram = torch.export.export(module, inputs)
            # Without a table of decompositions this only removes mutation: composite operators such as
            # conv2d, linear and hardswish stay whole.
            functional: ExportedProgram = program.run_decompositions({})
            return functional
        except Exception as error:  # torch.export lets whatever the module raises pass through
            first = str(error).strip().splitlines() or [type(error).__name__]
            raise ModelError(
                f"a model must be exportable by torch.export on inputs of shape "
                f"{[list(value.shape) for value in inputs]}, but got {type(error).__name__}: {first[0]}"
            ) from error


class _Walk:
    """One pass over torch's graph, filling the environment from torch's names to values."""

    def __init__(self, program: ExportedProgram) -> None:
        self._program = program
        self._known: dict[str, Any] = {}
        self._inputs: list[Port] = []
        self._nodes: list[Node] = []

    def graph(self) -> Graph:
        """Visits every node in order."""
        outputs: tuple[Port, ...] = ()
        sources = {spec.arg.name: spec for spec in self._program.graph_signature.input_specs}
        for node in self._program.graph_module.graph.nodes:
            if node.op == "placeholder":
                self._known[node.name] = self._source(node, sources[node.name])
            elif node.op == "output":
                outputs = tuple(self._outputs(node.args[0]))
            elif node.op == "call_function":
                self._known[node.name] = self._call(node)
        return Graph(
            inputs=tuple(self._inputs),
            nodes=tuple(self._nodes),
            outputs=outputs,
            out_spec=self._program.call_spec.out_spec,
        )

    def _source(self, node: fx.Node, spec: Any) -> Value | Constant:
        if spec.kind is not InputKind.USER_INPUT:
            stored = self._program.state_dict.get(spec.target)
            if stored is None:
                stored = self._program.constants.get(spec.target)
            if not isinstance(stored, torch.Tensor):
                raise ModelError(
                    f"a model must be made of tensors, but got {spec.kind.name} {spec.target!r}"
                )
            return Constant(stored, spec.target)
        dims, dtype = tuple(node.meta["val"].shape), _dtype(node.meta["val"])
        self._inputs.append(Port(tensor=node.name, dims=dims, dtype=dtype))
        if dtype != "float32" or inside(dims) is None:
            reason = f"inputs must be float32 of 2 to 4 dimensions, but got {dtype} {list(dims)}"
            self._refuse(node, reason)
            return Value(f"{node.name}_refused", dims)
        return Value(node.name, dims)

    def _refuse(self, node: fx.Node, reason: str, layer: str | None = None) -> Any:
        """Adds an unsupported node; gives as many values as torch's node has."""
        results = node.meta.get("val")
        if not isinstance(results, tuple | list):
            results = (results,)
        dims = [tuple(getattr(result, "shape", ())) for result in results]
        name = node.name if node.op == "call_function" else f"{node.name}_refused"
        reads = [found.tensor for found in map(self._find, node.all_input_nodes) if _is_value(found)]
        self._nodes.append(
            Node(
                name=name,
                op=Op.UNSUPPORTED,
                inputs=tuple(reads),
                shape=inside(dims[0]) or dims[0],
                aten=str(node.target) if node.op == "call_function" else node.op,
                module=module_of(node),
                layer=layer if layer is not None else self._layer(node),
                reason=reason,
            )
        )
        values = tuple(Value(name, found) for found in dims)
        return values if isinstance(node.meta.get("val"), tuple | list) else values[0]

    def _layer(self, node: fx.Node) -> str | None:
        """Names the module whose weight matrix an unsupported operator reads, if it reads one."""
        for found in map(self._find, node.all_input_nodes):
            if (
                isinstance(found, Constant)
                and found.name.endswith(".weight")
                and found.tensor.dim() >= 2
            ):
                return found.name.removesuffix(".weight")
        return None

    def _find(self, argument: Any) -> Any:
        """Replaces torch's nodes by what is known of them, inside lists too."""
        if isinstance(argument, fx.Node):
            return self._known[argument.name]
        if isinstance(argument, tuple | list):
            return [self._find(item) for item in argument]
        return argument

    def _call(self, node: fx.Node) -> Any:
        if node.target is operator.getitem:
            return self._find(node.args[0])[node.args[1]]
        if not isinstance(node.target, torch._ops.OpOverload):
            return self._refuse(node, "no converter knows this operator")
        if "val" not in node.meta:
            return None  # an assertion about shapes, which are fixed here
        arguments = self._arguments(node, node.target)
        tensors = [found for found in _leaves(arguments) if isinstance(found, Value | Constant)]
        if not any(_is_value(found) for found in tensors):
            return self._evaluate(node, node.target)
        return self._convert(node, arguments)

    def _arguments(self, node: fx.Node, target: torch._ops.OpOverload) -> dict[str, Any]:
        """Gives a call's arguments by name, defaults filled in."""
        schema = target._schema.arguments
        found = {arg.name: arg.default_value for arg in schema if arg.has_default_value()}
        found |= {arg.name: self._find(value) for arg, value in zip(schema, node.args, strict=False)}
        return found | {name: self._find(value) for name, value in node.kwargs.items()}

    def _convert(self, node: fx.Node, arguments: dict[str, Any]) -> Any:
        aten, before = str(node.target), len(self._nodes)
        result = node.meta["val"]
        first = result[0] if isinstance(result, tuple | list) else result
        call = Call(node.name, aten, module_of(node), tuple(first.shape), arguments, self._nodes)
        try:
            if aten not in CONVERTERS:
                raise Unsupported("no converter knows this operator")
            if _dtype(first) != "float32":
                raise Unsupported(f"tensors must be float32, but got {_dtype(first)}")
            return CONVERTERS[aten](call)
        except Unsupported as refusal:
            del self._nodes[before:]
            return self._refuse(node, refusal.reason, refusal.layer)

    def _evaluate(self, node: fx.Node, target: torch._ops.OpOverload) -> Any:
        """Computes what depends on parameters alone, such as a weight times its mask."""
        if torch.Tag.nondeterministic_seeded in target.tags:
            return self._refuse(node, "its result is random")
        args = _tensors(self._find(node.args))
        kwargs = {name: _tensors(self._find(value)) for name, value in node.kwargs.items()}
        with torch.no_grad():
            result = target(*args, **kwargs)
        if isinstance(result, tuple | list):
            return tuple(Constant(item) for item in result)
        return Constant(result)

    def _outputs(self, leaves: Sequence[Any]) -> Iterator[Port]:
        for leaf, spec in zip(leaves, self._program.graph_signature.output_specs, strict=True):
            if spec.kind is OutputKind.USER_INPUT_MUTATION:
                continue  # the caller's inputs are never written
            if spec.kind is not OutputKind.USER_OUTPUT:
                raise ModelError(
                    f"a model must not change itself in evaluation mode, but it writes {spec.target!r}"
                )
            yield self._output(leaf)

    def _output(self, leaf: Any) -> Port:
        found = self._find(leaf)
        if isinstance(found, Value):
            return Port(tensor=found.tensor, dims=found.dims, dtype=_dtype(leaf.meta["val"]))
        name = f"result_{len(self._nodes)}"
        reason = "a result must depend on the model's inputs"
        self._nodes.append(Node(name=name, op=Op.UNSUPPORTED, inputs=(), shape=(), reason=reason))
        return Port(tensor=name, dims=())


def _is_value(found: Any) -> bool:
    return isinstance(found, Value)


def _leaves(arguments: dict[str, Any]) -> Iterator[Any]:
    for value in arguments.values():
        yield from value if isinstance(value, list) else (value,)


def _tensors(found: Any) -> Any:
    if isinstance(found, Constant):
        return found.tensor
    if isinstance(found, list):
        return [_tensors(item) for item in found]
    return found


def _dtype(value: Any) -> str:
    return str(getattr(value, "dtype", type(value).__name__)).removeprefix("torch.")


def module_of(node: fx.Node) -> str:
    """Gives the path of the innermost module that makes the call, without torch's count of calls."""
    stack: dict[str, tuple[str, Any]] = node.meta.get("nn_module_stack") or {}
    path = list(stack.values())[-1][0] if stack else ""
    return re.sub(r"@\d+", "", path)
