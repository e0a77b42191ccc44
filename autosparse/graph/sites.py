"""Layers with weights where torch's own graph has them: what a GPU replaces, and all else is torch's.

On a GPU torch runs whatever it runs, without copies in between. So nothing has to be understood but the
layers themselves: each convolution or matrix product with a known weight is a *site*, with what can be
computed in its epilogue: a batch-norm in front of all, one sum and one activation behind. The rules are
those of `fuse`, and so are the names and shapes of layers; a matrix product may have any number of
dimensions, its rows being all but the last.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import fx

from autosparse.graph.convert import Constant, pair
from autosparse.graph.convert_layers import COMPUTED_WEIGHT
from autosparse.graph.ir import Activation
from autosparse.graph.layers import GROUPED, USED
from autosparse.graph.trace import Exported, module_of
from autosparse.records import LayerInfo, LayerShape

_ACTIVATIONS: Mapping[str, Activation] = {
    "aten.relu.default": Activation.RELU,
    "aten.relu_.default": Activation.RELU,
    "aten.relu6.default": Activation.RELU6,
    "aten.silu.default": Activation.SILU,
    "aten.silu_.default": Activation.SILU,
    "aten.hardswish.default": Activation.HARD_SWISH,
    "aten.hardswish_.default": Activation.HARD_SWISH,
    "aten.hardsigmoid.default": Activation.HARD_SIGMOID,
    "aten.sigmoid.default": Activation.SIGMOID,
}
_CONV = ("aten.conv2d.default", "aten.conv2d.padding")
_LINEAR = "aten.linear.default"
_NORMS = ("aten.batch_norm.default", "aten._native_batch_norm_legit_no_training.default")
# What computes nothing in evaluation mode.
_SAME = ("aten.dropout.default", "aten.alias.default", "aten.detach.default")
_Shape = tuple[int, ...]
FloatArray = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Site:
    """A layer in torch's graph.

    Attributes:
        node: whose result it gives, the last of what it computes.
        x: what it reads.
        residual: what it adds before the activation; None without.
        name: of the layer, as `graph.layers` names it, without a count of calls.
        weight: OIHW, float32, folded.
        bias: one per output, float32; None without.
        shape: the layer; None where no record can say it.
        linear: whether it is a matrix product over the last dimension.
        why_dense: reasons that forbid to prune it.
    """

    node: fx.Node
    x: fx.Node
    residual: fx.Node | None = None
    name: str
    weight: FloatArray
    bias: FloatArray | None
    shape: LayerShape | None
    linear: bool
    why_dense: tuple[str, ...] = ()

    @property
    def is_plain(self) -> bool:
        """Whether nothing follows the product yet but a bias."""
        return self.residual is None and (
            self.shape is None or self.shape.activation is Activation.NONE
        )


@dataclass(frozen=True, slots=True, eq=False)
class Sited:
    """A model as torch's graph with its sites.

    Attributes:
        module: torch's graph over the module's own parameters; a copy of the structure alone.
        sites: in the order in which they run.
        layers: the same as the search knows them; of several calls of one weight, later ones as
            ``name@2``.
    """

    module: fx.GraphModule
    sites: tuple[Site, ...]
    layers: tuple[LayerInfo, ...]


def find_sites(exported: Exported) -> Sited:
    """Finds the layers of a captured module, with the weights that it holds now.

    Raises:
        ModelError: the module writes to its own buffers.
    """
    module = exported.unlifted()
    _drop_identities(module)
    found = _Finder(module)
    for node in list(module.graph.nodes):
        found.visit(node)
    sites = tuple(found.sites[node] for node in module.graph.nodes if node in found.sites)
    return Sited(module, *_named(sites))


def _named(sites: tuple[Site, ...]) -> tuple[tuple[Site, ...], tuple[LayerInfo, ...]]:
    """Says of weights that several calls use that they stay dense, and counts the calls."""
    total = Counter(site.name for site in sites)
    seen: Counter[str] = Counter()
    known, layers = [], []
    for site in sites:
        seen[site.name] += 1
        if total[site.name] > 1:
            why = USED.format(calls=total[site.name])
            site = replace(site, why_dense=(*site.why_dense, why))
        count = seen[site.name]
        name = f"{site.name}@{count}" if count > 1 else site.name
        known.append(site)
        layers.append(LayerInfo(name=name, shape=site.shape, why_dense=site.why_dense))
    return tuple(known), tuple(layers)


def _drop_identities(module: fx.GraphModule) -> None:
    """Takes out what passes values on: dropout that does nothing, and copies that nobody writes to."""
    for node in list(module.graph.nodes):
        if node.op == "call_function" and _passes_on(node):
            node.replace_all_uses_with(node.args[0])
            module.graph.erase_node(node)


def _passes_on(node: fx.Node) -> bool:
    name = str(node.target)
    if name == "aten.clone.default":
        return node.kwargs.get("memory_format") in (None, torch.preserve_format)
    return name in _SAME


@dataclass(slots=True)
class _Finder:
    """One pass over torch's graph, which joins what follows a layer with it."""

    module: fx.GraphModule
    sites: dict[fx.Node, Site] = field(default_factory=dict)
    _constants: dict[fx.Node, Constant] = field(default_factory=dict)
    _depths: dict[fx.Node, int] = field(default_factory=dict)

    def visit(self, node: fx.Node) -> None:
        """Looks at one node; those before it are known."""
        self._depths[node] = 1 + max((self._depths[read] for read in node.all_input_nodes), default=0)
        if node.op == "get_attr":
            self._constants[node] = Constant(
                _attribute(self.module, str(node.target)), str(node.target)
            )
        elif node.op == "call_function":
            if node.all_input_nodes and all(read in self._constants for read in node.all_input_nodes):
                self._evaluate(node)
                return
            self._join(node)

    def _evaluate(self, node: fx.Node) -> None:
        """Computes what depends on parameters alone, such as a weight times its mask."""
        if not isinstance(node.target, torch._ops.OpOverload):
            return
        if torch.Tag.nondeterministic_seeded in node.target.tags:
            return
        known = {read: constant.tensor for read, constant in self._constants.items()}
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda read: known[read])
        with torch.no_grad():
            result = node.target(*args, **kwargs)
        if isinstance(result, torch.Tensor):
            self._constants[node] = Constant(result)

    def _join(self, node: fx.Node) -> None:
        name = str(node.target)
        if name in _CONV or name == _LINEAR:
            site = self._conv(node) if name in _CONV else self._linear(node)
            if site is not None:
                self.sites[node] = site
        elif name in _NORMS:
            self._fold_norm(node)
        elif name == "aten.add.Tensor" or name == "aten.add_.Tensor":
            self._add(node)
        elif (activation := _activation_of(node)) is not None:
            self._activate(node, activation)

    # ------------------------------------------------------------------------------------- layers

    def _known(self, argument: Any) -> Constant | None:
        return self._constants.get(argument) if isinstance(argument, fx.Node) else None

    def _weights(
        self, arguments: Mapping[str, Any]
    ) -> tuple[Constant, FloatArray, FloatArray | None] | None:
        """Gives weight and bias, float32; None where the model computes them."""
        weight, bias = self._known(arguments["weight"]), arguments.get("bias")
        known = None if bias is None else self._known(bias)
        if weight is None or (bias is not None and known is None):
            return None
        if not weight.tensor.is_floating_point() or weight.tensor.dim() not in (2, 4):
            return None
        # Kernels may keep a bias as it is, and the module's may change.
        return weight, _array(weight.tensor), None if known is None else _array(known.tensor).copy()

    def _conv(self, node: fx.Node) -> Site | None:
        given = _arguments(node)
        held, x = self._weights(given), given["input"]
        if held is None or not isinstance(x, fx.Node) or len(_dims(x)) != 4:
            return None
        constant, weight, bias = held
        name, why = _layer(node, constant)
        groups = int(given["groups"])
        if groups > 1:
            why = (*why, GROUPED[bool(weight.shape[1] == 1)])
        return Site(
            node=node,
            x=x,
            name=name,
            weight=weight,
            bias=bias,
            shape=_conv_shape(given, _dims(x), weight, groups),
            linear=False,
            why_dense=why,
        )

    def _linear(self, node: fx.Node) -> Site | None:
        given = _arguments(node)
        held, x = self._weights(given), given["input"]
        if held is None or not isinstance(x, fx.Node):
            return None
        constant, weight, bias = held
        name, why = _layer(node, constant)
        dims = _dims(x)
        batch = dims[0] if len(dims) > 1 else 1
        shape = LayerShape(
            op="linear",
            batch_size=batch,
            in_channels=weight.shape[1],
            out_channels=weight.shape[0],
            in_height=math.prod(dims[:-1]) // batch,
        )
        return Site(
            node=node,
            x=x,
            name=name,
            weight=weight[:, :, None, None],
            bias=bias,
            shape=shape,
            linear=True,
            why_dense=why,
        )

    # ------------------------------------------------------------------------------------ epilogues

    def _only_reader(self, producer: Any) -> Site | None:
        """Gives the site whose result nobody else reads."""
        site = self.sites.get(producer) if isinstance(producer, fx.Node) else None
        return site if site is not None and len(site.node.users) == 1 else None

    def _move(self, site: Site, node: fx.Node, **changes: Any) -> None:
        del self.sites[site.node]
        self.sites[node] = replace(site, node=node, **changes)

    def _fold_norm(self, node: fx.Node) -> None:
        given = _arguments(node)
        site = self._only_reader(given["input"])
        if site is None or site.shape is None or not site.is_plain or site.linear:
            return
        if given.get("training"):
            return
        names = ("weight", "bias", "running_mean", "running_var")
        if given["running_mean"] is None or given["running_var"] is None:
            return
        held = {name: self._known(given[name]) for name in names if given[name] is not None}
        if any(constant is None for constant in held.values()):
            return
        result = _only_result(node)
        if result is None:
            return
        values = {name: c.tensor.detach().cpu().double().numpy() for name, c in held.items() if c}
        scale = values.get("weight", 1.0) / np.sqrt(values["running_var"] + given["eps"])
        shift = values.get("bias", 0.0) - scale * values["running_mean"]
        bias = 0.0 if site.bias is None else site.bias.astype(np.float64)
        weight = site.weight.astype(np.float64) * scale[:, None, None, None]
        self._move(
            site,
            result,
            weight=weight.astype(np.float32),
            bias=(scale * bias + shift).astype(np.float32),
        )

    def _add(self, node: fx.Node) -> None:
        if node.kwargs.get("alpha", 1) != 1 or len(node.args) != 2:
            return
        operands = [each for each in node.args if isinstance(each, fx.Node)]
        # Of two layers that could take the sum the deeper ends the main branch; as in `fuse`.
        for producer in sorted(set(operands), key=lambda each: -self._depths[each]):
            site = self._only_reader(producer)
            other = operands[1] if operands[0] is producer else operands[0]
            if site is None or site.shape is None or not site.is_plain or other is producer:
                continue
            if site.shape.groups > 1 or len(operands) < 2 or _dims(other) != _dims(node):
                continue
            self._move(site, node, residual=other, shape=replace(site.shape, residual=True))
            return

    def _activate(self, node: fx.Node, activation: Activation) -> None:
        site = self._only_reader(node.args[0])
        if site is None or site.shape is None or site.shape.activation is not Activation.NONE:
            return
        self._move(site, node, shape=replace(site.shape, activation=activation))


# ------------------------------------------------------------------------------------- torch's nodes


def _arguments(node: fx.Node) -> dict[str, Any]:
    """Gives a call's arguments by name, defaults filled in."""
    assert isinstance(node.target, torch._ops.OpOverload)
    schema = node.target._schema.arguments
    found = {arg.name: arg.default_value for arg in schema if arg.has_default_value()}
    found |= {arg.name: value for arg, value in zip(schema, node.args, strict=False)}
    return found | dict(node.kwargs)


def _attribute(module: torch.nn.Module, target: str) -> torch.Tensor:
    owner, _, name = target.rpartition(".")
    found: torch.Tensor = getattr(module.get_submodule(owner), name)
    return found


def _dims(node: Any) -> _Shape:
    value = node.meta.get("val") if isinstance(node, fx.Node) else None
    return tuple(int(size) for size in value.shape) if isinstance(value, torch.Tensor) else ()


def _array(tensor: torch.Tensor) -> FloatArray:
    found: FloatArray = tensor.detach().cpu().float().contiguous().numpy()
    return found


def _layer(node: fx.Node, weight: Constant) -> tuple[str, tuple[str, ...]]:
    """Gives the layer's name, and what forbids to prune it; as the operator graph does."""
    if weight.name == "weight" or weight.name.endswith(".weight"):
        return weight.name.removesuffix("weight").removesuffix("."), ()
    if weight.name:
        return weight.name, (f"its weight {weight.name!r} is not named '<module>.weight'",)
    return module_of(node), (COMPUTED_WEIGHT,)


def _conv_shape(
    given: Mapping[str, Any], dims: _Shape, weight: FloatArray, groups: int
) -> LayerShape | None:
    kernel, dilation = (weight.shape[2], weight.shape[3]), pair(given["dilation"])
    padding = given["padding"]
    if padding == "valid":
        padding = (0, 0)
    elif padding == "same":
        total = [dilation[axis] * (kernel[axis] - 1) for axis in (0, 1)]
        if any(each % 2 for each in total):
            return None  # opposite borders differ
        padding = (total[0] // 2, total[1] // 2)
    return LayerShape(
        op="conv2d",
        batch_size=dims[0],
        in_channels=dims[1],
        out_channels=weight.shape[0],
        in_height=dims[2],
        in_width=dims[3],
        kernel=kernel,
        stride=pair(given["stride"]),
        padding=pair(padding),
        dilation=dilation,
        groups=groups,
    )


def _activation_of(node: fx.Node) -> Activation | None:
    name, given = str(node.target), node.args
    if name == "aten.gelu.default":
        return Activation.GELU if node.kwargs.get("approximate", "none") == "none" else None
    if name in ("aten.hardtanh.default", "aten.hardtanh_.default"):
        return Activation.RELU6 if tuple(given[1:]) == (0.0, 6.0) else None
    return _ACTIVATIONS.get(name)


def _only_result(node: fx.Node) -> fx.Node | None:
    """Gives what holds a node's tensor: itself, or the item of a tuple of which nobody reads others."""
    if isinstance(node.meta.get("val"), torch.Tensor):
        return node
    users: Sequence[fx.Node] = list(node.users)
    return users[0] if len(users) == 1 and users[0].args[1:] == (0,) else None
