"""Which outputs of a module's layers can be put into another order, and what has to follow them.

Walked is torch's own graph, as in `trace`, and not the operator graph made of it: there, batch-norms
are anonymous affine maps, computed weights are constants, and what the executor lacks is opaque.
"""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from autosparse.graph.channel_layout import Axis, Computed, Fixed, Layout, Ledger, Space, Stored
from autosparse.graph.channel_rules import Step, follow
from autosparse.graph.trace import Exported


def channel_spaces(module: nn.Module, example_inputs: Sequence[torch.Tensor]) -> tuple[Space, ...]:
    """Finds the spaces of channels of a module, in evaluation mode.

    A space is pinned, with a reason, where anything depends on the order of its channels that is not
    understood: the module's results, grouped convolutions, channels that are picked, padded or mixed
    with other axes, weights used twice or computed from others, tensors that a state dict lacks. All
    are pinned if the module has parameters that evaluation does not use, as those of auxiliary heads:
    what they read in training is not seen.

    Args:
        module: any module that ``torch.export`` can take.
        example_inputs: positional arguments, all tensors.

    Returns:
        The spaces by their first layer; every convolution and linear layer with a stored weight that is
        run produces one, but for depthwise convolutions, which carry the channels that they read.

    Raises:
        UsageError: the inputs are not a non-empty sequence of tensors.
        ModelError: torch cannot export the module.
    """
    return _Walk(module, Exported(module, example_inputs).program).spaces()


class _Walk:
    """One pass over torch's graph, from torch's names to where channels lie in each tensor."""

    def __init__(self, module: nn.Module, program: ExportedProgram) -> None:
        self._nodes = list(program.graph_module.graph.nodes)
        self._ledger = Ledger()
        self._known: dict[str, Any] = {}
        self._specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
        self._kept = dict(module.state_dict(keep_vars=True))
        self._parameters = dict(module.named_parameters(remove_duplicate=False))
        self._uses = self._counted()

    def _counted(self) -> Counter[int]:
        """Counts the operators that use each storage, and further shapes in which it is kept."""
        uses: Counter[int] = Counter()
        for node in self._nodes:
            tensor = self._kept.get(self._target(node))
            if tensor is not None:
                uses[_storage(tensor)] += len(node.users)
        views = {
            (_storage(tensor), tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
            for tensor in self._kept.values()
            if tensor.numel()
        }
        shapes = Counter(storage for storage, *_ in views)
        for storage, count in shapes.items():
            uses[storage] += count - 1
        return uses

    def _target(self, node: fx.Node) -> str:
        """Names the parameter or buffer that an input of the graph is; empty for anything else."""
        return str(self._specs[node.name].target or "") if node.op == "placeholder" else ""

    def spaces(self) -> tuple[Space, ...]:
        """Visits every node in order."""
        for node in self._nodes:
            if node.op == "placeholder":
                self._known[node.name] = self._source(node)
            elif node.op == "call_function":
                self._known[node.name] = self._call(node)
            elif node.op == "output":
                self._pin(node, "the model returns it")
            else:
                self._pin(node, f"{node.op} is not followed")
        return _all_pinned(self._ledger.spaces(), self._unused())

    def _unused(self) -> str:
        """Says which parameter evaluation does not use; empty if it uses all."""
        for name, tensor in self._parameters.items():
            if tensor.numel() and not self._uses[_storage(tensor)]:
                return f"evaluation does not use {name}, and what reads it in training is not known"
        return ""

    def _source(self, node: fx.Node) -> Computed | Stored:
        shape, spec = _shape(node.meta.get("val")), self._specs[node.name]
        if spec.kind is InputKind.USER_INPUT:
            return Computed(shape, Fixed("it is the model's input"))
        name = self._target(node)
        tensor = self._kept.get(name)
        if tensor is None:
            return Stored(shape, reason=f"{name} is not in the module's state dict")
        if self._uses[_storage(tensor)] != 1:
            return Stored(shape, name, f"{name} is used more than once, or shares its memory")
        return Stored(shape, name)

    def _call(self, node: fx.Node) -> Any:
        if node.target is operator.getitem:
            return self._find(node.args[0])[node.args[1]]
        if "val" not in node.meta:
            return None  # an assertion about shapes, which are fixed here
        values = node.meta["val"]
        results = values if isinstance(values, tuple | list) else (values,)
        shapes = tuple(_shape(value) for value in results)
        found = self._followed(node, shapes)
        if isinstance(found, Stored):
            made: list[Any] = [Stored(shape, reason=found.reason) for shape in shapes]
        else:
            layouts = found if isinstance(found, list) else [found] * len(shapes)
            made = [
                Computed(shape, _fitting(layout, shape))
                for shape, layout in zip(shapes, layouts, strict=True)
            ]
        return made if isinstance(values, tuple | list) else made[0]

    def _followed(
        self, node: fx.Node, shapes: tuple[tuple[int, ...], ...]
    ) -> Layout | list[Layout] | Stored:
        """Gives where channels lie in an operator's results; a constant where it reads nothing else."""
        if not isinstance(node.target, torch._ops.OpOverload):
            self._pin(node, f"{node.target} is not followed")
            return Fixed(f"it is made by {node.target}")
        step = Step(str(node.target), self._arguments(node, node.target), shapes, self._ledger)
        if not step.computed:
            return Stored((), reason="a weight or constant is computed anew whenever the model runs")
        tags = node.target.tags
        is_pointwise = torch.Tag.pointwise in tags and torch.Tag.nondeterministic_seeded not in tags
        return follow(step, entry_by_entry=is_pointwise)

    def _arguments(self, node: fx.Node, target: torch._ops.OpOverload) -> dict[str, Any]:
        """Gives a call's arguments by name, defaults filled in."""
        schema = target._schema.arguments
        given = dict(zip((arg.name for arg in schema), node.args, strict=False)) | dict(node.kwargs)
        return {arg.name: self._find(given.get(arg.name, arg.default_value)) for arg in schema}

    def _find(self, argument: Any) -> Any:
        """Replaces torch's nodes by what is known of them, inside lists too."""
        if isinstance(argument, fx.Node):
            return self._known[argument.name]
        if isinstance(argument, tuple | list):
            return [self._find(item) for item in argument]
        return argument

    def _pin(self, node: fx.Node, reason: str) -> None:
        """Pins all that a node reads."""
        for argument in node.all_input_nodes:
            found = self._known.get(argument.name)
            for each in found if isinstance(found, list) else [found]:
                if isinstance(each, Computed) and isinstance(each.layout, Axis):
                    self._ledger.pin(each.layout.parts, reason)


def _fitting(layout: Layout, shape: tuple[int, ...]) -> Layout:
    """Gives a layout if a tensor can have it: some operators give other things beside their result."""
    if isinstance(layout, Fixed):
        return layout
    fits = layout.dim < len(shape) and shape[layout.dim] == layout.length
    return layout if fits else Fixed("it is a by-product of an operator")


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(getattr(value, "shape", ()))


def _storage(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _all_pinned(spaces: Sequence[Space], reason: str) -> tuple[Space, ...]:
    """Pins the spaces that are not yet, if there is a reason."""
    return tuple(
        Space(size=space.size, ties=space.ties, pinned=space.pinned or reason, summed=space.summed)
        for space in spaces
    )
