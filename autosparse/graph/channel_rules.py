"""What torch's operators do with the order of channels: the table of rules.

A rule is a function of one `Step`. It ties stored tensors to the channels that it meets, joins channels
that must stay in one order, pins what it cannot follow, and gives where channels lie in the results. An
operator without a rule that works on single entries is followed as such; any other pins all it reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from autosparse.graph.channel_layout import Axis, Computed, Fixed, Layout, Ledger, Part, Role, Stored


@dataclass(frozen=True, slots=True)
class Step:
    """One call of an operator of torch's graph.

    Attributes:
        aten: the operator.
        arguments: by the schema's names; tensors as `Computed` and `Stored`.
        shapes: of the results.
        ledger: what is known of spaces.
    """

    aten: str
    arguments: dict[str, Any]
    shapes: tuple[tuple[int, ...], ...]
    ledger: Ledger

    @property
    def computed(self) -> list[Computed]:
        """What it reads that depends on the model's inputs."""
        return [found for found in self._tensors() if isinstance(found, Computed)]

    @property
    def stored(self) -> list[Stored]:
        """What it reads that does not."""
        return [found for found in self._tensors() if isinstance(found, Stored)]

    @property
    def first(self) -> Any:
        """What it reads first: what most operators work on."""
        return next(iter(self.arguments.values()))

    def _tensors(self) -> Iterator[Any]:
        for value in self.arguments.values():
            yield from value if isinstance(value, list) else (value,)

    def refuse(self, reason: str) -> Fixed:
        """Pins all channels that it reads, and gives a result of which nothing is reordered."""
        for found in self.computed:
            if isinstance(found.layout, Axis):
                self.ledger.pin(found.layout.parts, reason)
        return Fixed(reason)

    def carry(self, names: Sequence[str], parts: Sequence[Part], axis: int = 0) -> None:
        """Ties those of the named arguments that are given; pins all if one cannot be tied."""
        for name in names:
            found = self.arguments.get(name)
            if isinstance(found, Stored):
                self.ledger.bind(found, axis, parts, Role.CARRIES)
            elif isinstance(found, Computed):
                self.ledger.pin(parts, self.refuse(f"{name} of {self.aten} is computed").reason)


Rule = Callable[[Step], Layout | list[Layout]]
RULES: dict[str, Rule] = {}


def _rules(*names: str) -> Callable[[Rule], Rule]:
    """Enters a rule for operators, whatever their overload."""

    def enter(rule: Rule) -> Rule:
        for name in names:
            assert name not in RULES, f"two rules for {name}"
            RULES[name] = rule
        return rule

    return enter


# ---------------------------------------------------------------------------------------- layers


def _read(step: Step, weight: Stored, dim: int) -> None:
    """Ties a weight's inputs to the channels along an axis of what the layer reads."""
    found = step.first
    if not isinstance(found, Computed) or not isinstance(found.layout, Axis):
        return
    if found.layout.dim == dim:
        step.ledger.bind(weight, 1, found.layout.parts, Role.READS)
    else:
        step.refuse(f"{step.aten} reads along another axis than that of the channels")


def _produce(step: Step, weight: Stored, dim: int) -> Axis:
    """Opens a space for a layer's outputs."""
    outputs = step.ledger.fresh(weight.shape[0])
    step.ledger.bind(weight, 0, (outputs,), Role.PRODUCES)
    step.carry(("bias",), (outputs,))
    return Axis(dim, (outputs,))


@_rules("linear")
def linear(step: Step) -> Layout:
    """Reads channels along the last axis, and makes others."""
    weight, dim = step.arguments["weight"], len(step.shapes[0]) - 1
    if not isinstance(weight, Stored) or len(weight.shape) != 2:
        return step.refuse("a linear layer's weight is a vector, or depends on the model's inputs")
    _read(step, weight, dim)
    return _produce(step, weight, dim)


@_rules("conv1d", "conv2d", "conv3d")
def convolution(step: Step) -> Layout:
    """Reads channels and makes others; a depthwise one keeps those it reads."""
    weight, groups = step.arguments["weight"], step.arguments["groups"]
    if not isinstance(weight, Stored) or not isinstance(step.first, Computed):
        return step.refuse("a convolution's weight depends on the model's inputs")
    dim = len(step.shapes[0]) - (len(weight.shape) - 1)
    if groups == 1:
        _read(step, weight, dim)
        return _produce(step, weight, dim)
    if weight.shape[1] == 1:
        return _depthwise(step, weight, dim)
    reason = f"a convolution reads or makes it in {groups} groups"
    step.refuse(reason)
    outputs = _produce(step, weight, dim)
    step.ledger.pin(outputs.parts, reason)
    return outputs


def _depthwise(step: Step, weight: Stored, dim: int) -> Layout:
    layout = step.first.layout
    if isinstance(layout, Fixed):
        return layout
    if layout.dim != dim:
        return step.refuse("a depthwise convolution reads along another axis than that of the channels")
    each = weight.shape[0] // layout.length  # outputs per channel
    parts = tuple(Part(part.space, part.size, part.run * each) for part in layout.parts)
    step.ledger.bind(weight, 0, parts, Role.CARRIES)
    step.carry(("bias",), parts)
    return Axis(dim, parts)


# ----------------------------------------------------------------------- one thing for each channel


_STATISTICS = ("weight", "bias", "running_mean", "running_var")


@_rules(
    *("_native_batch_norm_legit_no_training", "_native_batch_norm_legit"),
    *("batch_norm", "instance_norm"),
)
def norm_of_channels(step: Step) -> Layout:
    """Scales every channel by itself."""
    layout = _axis(step)
    if layout.dim != 1:
        return step.refuse(f"{step.aten} works along another axis than that of the channels")
    step.carry(_STATISTICS, layout.parts)
    return layout


@_rules("group_norm")
def group_norm(step: Step) -> Layout:
    """Scales groups of channels, which are followed if each is one channel, or one is all."""
    layout, groups = _axis(step), step.arguments["num_groups"]
    if layout.dim != 1 or groups not in (1, layout.length):
        return step.refuse(f"a group-norm takes its channels in {groups} groups")
    step.carry(_STATISTICS, layout.parts)
    return layout


@_rules("layer_norm")
def layer_norm(step: Step) -> Layout:
    """Scales samples by the spread of their last axes, whatever the order along those."""
    layout = _axis(step)
    inside = layout.dim - (len(step.shapes[0]) - len(step.arguments["normalized_shape"]))
    if inside >= 0:
        step.carry(_STATISTICS, layout.parts, inside)
    return layout


@_rules("prelu")
def prelu(step: Step) -> Layout:
    """Has one slope, or one for each channel along the second axis."""
    layout, slopes = _axis(step), step.arguments["weight"]
    if isinstance(slopes, Stored) and prod(slopes.shape) == 1:
        return layout
    if layout.dim != 1:
        return step.refuse("a PReLU has its slopes along another axis than that of the channels")
    step.carry(("weight",), layout.parts)
    return layout


@_rules(
    *("alias", "detach", "contiguous", "_to_copy", "to", "lift_fresh_copy", "hardswish"),
    *("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"),
    *("softmax", "_softmax", "log_softmax", "_log_softmax", "_assert_tensor_metadata"),
)
def same(step: Step) -> Layout:
    """Gives what it reads in the same order: a copy, or what treats all channels alike."""
    return _axis(step)


def pointwise(step: Step) -> Layout:
    """Computes entry by entry, smaller operands repeated along the axes that they lack."""
    dims = step.shapes[0]
    axes = [
        (found.layout.dim - len(found.shape), found.layout)
        for found in step.computed
        if isinstance(found.layout, Axis)
        and found.layout.length == dims[found.layout.dim - len(found.shape)]
    ]
    if not axes:  # single channels, each repeated to the width of what is fixed
        return step.refuse("its one channel is repeated")
    place, first = axes[0]
    if any(other != place for other, _ in axes):
        return step.refuse("channels along different axes are computed with each other")
    is_sum = step.aten.split(".")[1] in ("add", "sub")
    for _, other in axes[1:]:
        step.ledger.join(first.parts, other.parts, summed=is_sum and other.parts != first.parts)
    operands: list[Computed | Stored] = [*step.computed, *step.stored]
    for found in operands:
        if len(found.shape) < -place or found.shape[place] == 1:
            continue
        if isinstance(found, Stored):
            step.ledger.bind(found, len(found.shape) + place, first.parts, Role.CARRIES)
        elif isinstance(found.layout, Fixed):
            step.ledger.pin(first.parts, f"it meets a tensor of fixed order: {found.layout.reason}")
    return Axis(len(dims) + place, first.parts)


# ------------------------------------------------------------------------------ pixels and shapes


def _axis(step: Step) -> Axis:
    """Gives where channels lie in what an operator works on; `follow` asks no rule without any."""
    layout = step.first.layout
    assert isinstance(layout, Axis)
    return layout


def _spatial(step: Step, axes: int) -> Layout:
    layout = _axis(step)
    if layout.dim >= len(step.first.shape) - axes:
        return step.refuse(f"{step.aten} works across its channels")
    return layout


@_rules("max_pool1d", "avg_pool1d", "adaptive_avg_pool1d", "upsample_nearest1d", "upsample_linear1d")
def along_lines(step: Step) -> Layout:
    """Works on each channel's entries along the last axis."""
    return _spatial(step, 1)


@_rules(
    *("max_pool2d", "max_pool2d_with_indices", "avg_pool2d"),
    *("adaptive_avg_pool2d", "_adaptive_avg_pool2d", "adaptive_max_pool2d"),
    *("upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d"),
)
def on_images(step: Step) -> Layout:
    """Works on each channel's pixels."""
    return _spatial(step, 2)


@_rules("pad", "constant_pad_nd", "reflection_pad2d", "replication_pad2d")
def pad(step: Step) -> Layout:
    """Adds entries around the last axes."""
    layout, given = _axis(step), step.arguments.get("pad", step.arguments.get("padding"))
    assert given is not None
    behind = len(step.shapes[0]) - 1 - layout.dim
    if any(given[2 * behind : 2 * behind + 2]):
        return step.refuse("channels are added to it by padding")
    return layout


@_rules("mean", "sum", "amax", "amin")
def reduce(step: Step) -> Layout:
    """Does away with axes, or leaves one entry along them."""
    layout, shape = _axis(step), step.first.shape
    given = step.arguments.get("dim")
    dims = range(len(shape)) if given is None or given == [] else given
    gone = {dim % len(shape) for dim in ([dims] if isinstance(dims, int) else dims)}
    if layout.dim in gone:
        return step.refuse(f"{step.aten} works across its channels")
    kept = step.arguments.get("keepdim", False)
    return Axis(layout.dim - (0 if kept else sum(dim < layout.dim for dim in gone)), layout.parts)


@_rules("view", "_unsafe_view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze")
def reshape(step: Step) -> Layout:
    """Follows channels that each stay a run of entries: images flattened or made, axes of one entry."""
    layout, before, after = _axis(step), step.first.shape, step.shapes[0]
    in_front, behind = prod(before[: layout.dim]), prod(before[layout.dim + 1 :])
    for dim, extent in enumerate(after):
        if prod(after[:dim]) != in_front:
            continue
        joined, rest = divmod(extent, layout.length)
        if extent and not rest and behind % joined == 0:
            return Axis(dim, tuple(Part(p.space, p.size, p.run * joined) for p in layout.parts))
        split, rest = divmod(layout.length, extent or 1)
        if not rest and all(part.run % split == 0 for part in layout.parts):
            return Axis(dim, tuple(Part(p.space, p.size, p.run // split) for p in layout.parts))
    return step.refuse(f"a reshape from {list(before)} to {list(after)} mixes its channels")


@_rules("expand")
def expand(step: Step) -> Layout:
    """Repeats entries along axes of one."""
    layout = _axis(step)
    dim = layout.dim + len(step.shapes[0]) - len(step.first.shape)
    if step.shapes[0][dim] != layout.length:
        return step.refuse("its one channel is repeated")
    return Axis(dim, layout.parts)


@_rules("permute", "transpose", "t")
def permute(step: Step) -> Layout:
    """Puts axes into another order."""
    layout, rank = _axis(step), len(step.shapes[0])
    order = list(range(rank))
    if "dims" in step.arguments:
        order = [dim % rank for dim in step.arguments["dims"]]
    elif rank > 1:
        one, other = step.arguments.get("dim0", 0) % rank, step.arguments.get("dim1", 1) % rank
        order[one], order[other] = other, one
    return Axis(order.index(layout.dim), layout.parts)


# ---------------------------------------------------------------------------- joining and cutting


@_rules("cat", "concat")
def concat(step: Step) -> Layout:
    """Puts parts behind one another, or tensors of the same channels beside each other."""
    tensors = step.arguments["tensors"]
    layouts = [found.layout if isinstance(found, Computed) else None for found in tensors]
    axes = [layout for layout in layouts if isinstance(layout, Axis)]
    if len(axes) < len(layouts):
        return step.refuse("it is joined with a tensor of fixed order")
    if len({axis.dim for axis in axes}) > 1:
        return step.refuse("tensors with channels along different axes are joined")
    if axes[0].dim == step.arguments["dim"] % len(step.shapes[0]):
        return Axis(axes[0].dim, tuple(part for axis in axes for part in axis.parts))
    for other in axes[1:]:
        step.ledger.join(axes[0].parts, other.parts, summed=False)
    return axes[0]


@_rules("slice")
def strided_slice(step: Step) -> Layout:
    """Takes some entries along an axis: along that of channels, whole parts alone."""
    layout, given = _axis(step), step.arguments
    if given["dim"] % len(step.shapes[0]) != layout.dim:
        return layout
    taken = range(*slice(given["start"], given["end"], given["step"]).indices(layout.length))
    if taken.step != 1:
        return step.refuse("some of its channels are picked")
    return _cut(step, layout, taken.start, len(taken))


@_rules("split", "split_with_sizes", "chunk")
def split(step: Step) -> list[Layout]:
    """Cuts along an axis: along that of channels, between parts alone."""
    layout, start = _axis(step), 0
    if step.arguments["dim"] % len(step.first.shape) != layout.dim:
        return [layout for _ in step.shapes]
    pieces = []
    for shape in step.shapes:
        pieces.append(_cut(step, layout, start, shape[layout.dim]))
        start += shape[layout.dim]
    return pieces


def _cut(step: Step, layout: Axis, start: int, length: int) -> Layout:
    """Gives the parts of a stretch of an axis; pins them all if it ends inside of one."""
    inside, at = [], 0
    for part in layout.parts:
        if start <= at and at + part.length <= start + length:
            inside.append(part)
        at += part.length
    if sum(part.length for part in inside) != length:
        return step.refuse("some of its channels are picked")
    return Axis(layout.dim, tuple(inside))


@_rules("select", "unbind")
def select(step: Step) -> Layout:
    """Takes one entry along an axis, or each by itself."""
    layout = _axis(step)
    dim = step.arguments["dim"] % len(step.first.shape)
    if dim == layout.dim:
        return step.refuse("some of its channels are picked")
    return Axis(layout.dim - (dim < layout.dim), layout.parts)


# ---------------------------------------------------------------------------------------- any call


_READ_FIXED: tuple[Rule, ...] = (linear, convolution)
_READ_SEVERAL: tuple[Rule, ...] = (pointwise, concat)


def follow(step: Step, *, entry_by_entry: bool) -> Layout | list[Layout]:
    """Gives where channels lie in the results of a call, of all or one by one.

    Args:
        step: the call; at least one of its arguments depends on the model's inputs.
        entry_by_entry: whether the operator works so, should there be no rule of its own.
    """
    rule = RULES.get(step.aten.split(".")[1], pointwise if entry_by_entry else None)
    if rule is None:
        return step.refuse(f"{step.aten} is not known to keep channels apart")
    if rule in _READ_FIXED:
        return rule(step)
    layouts = [found.layout for found in step.computed]
    if all(isinstance(layout, Fixed) for layout in layouts):
        return layouts[0]
    if rule in _READ_SEVERAL:
        return rule(step)
    if not isinstance(step.first, Computed) or isinstance(step.first.layout, Fixed):
        return step.refuse(f"it is an option of {step.aten}")
    return rule(step)
