"""Converters of operators that move or select data, and of those that do nothing at run time."""

from __future__ import annotations

from autosparse.graph.convert import Call, Unsupported, Value, converts, window
from autosparse.graph.ir import Op, Window, elements, inside


@converts(
    "aten.alias.default",
    "aten.clone.default",
    "aten.detach.default",
    "aten.contiguous.default",
    "aten.lift_fresh_copy.default",
    "aten._to_copy.default",
    "aten.to.dtype",
)
def identity(call: Call) -> Value:
    """Copies and no-ops; a change of type shows in the result and is refused there."""
    return call.alias(call.value("self"))


@converts("aten.dropout.default", "aten.feature_dropout.default")
def dropout(call: Call) -> Value:
    """Nothing, in evaluation mode."""
    if call["train"]:
        raise Unsupported("dropout must be in evaluation mode")
    return call.alias(call.value("input"))


@converts(
    "aten.view.default",
    "aten._unsafe_view.default",
    "aten.reshape.default",
    "aten.flatten.using_ints",
    "aten.unflatten.int",
    "aten.squeeze.default",
    "aten.squeeze.dim",
    "aten.squeeze.dims",
    "aten.unsqueeze.default",
    "aten.expand.default",
)
def reshape(call: Call) -> Value:
    """Changes of shape: none inside the graph, or a flattening of images."""
    value = call.value("self" if "self" in call.arguments else "input")
    before, after = value.shape, inside(call.dims)
    if before == after:
        return call.alias(value)
    flat = (before[0], elements(before[1:]), 1, 1)
    if after == flat:
        return call.emit(Op.FLATTEN, value)
    raise Unsupported(f"a reshape must flatten images, but got {list(value.dims)} to {list(call.dims)}")


@converts("aten.slice.Tensor")
def strided_slice(call: Call) -> Value:
    """Every n-th row or column from the first one."""
    value = call.image("self")
    axis, step = call["dim"] % 4, call["step"]
    start = call["start"] or 0
    size = value.dims[axis]
    end = size if call["end"] is None else call["end"]
    if start not in (0, -size) or end < size:
        raise Unsupported(f"a slice must span its whole dimension, but got {start}:{end} of {size}")
    if step == 1:
        return call.alias(value)
    if axis < 2:
        raise Unsupported(f"a strided slice must run along height or width, but got dimension {axis}")
    stride = (step, 1) if axis == 2 else (1, step)
    return call.emit(Op.SUBSAMPLE_PAD, value, window=Window(stride=stride))


@converts("aten.pad.default", "aten.constant_pad_nd.default")
def pad(call: Call) -> Value:
    """Zeros around the image (for the convolution behind it) or before and after its channels."""
    if call.get("mode", "constant") != "constant" or (call["value"] or 0.0) != 0.0:
        raise Unsupported(f"padding must be with zeros, but got {call.get('mode')!r}, {call['value']}")
    value = call.image("self")
    given = [*call["pad"], *[0] * (8 - len(call["pad"]))]
    left, right, top, bottom, before, _, *batch = given
    if min(given) < 0 or any(batch):
        raise Unsupported(f"padding must add pixels or channels, but got {call['pad']}")
    channels = value.dims[1] != call.dims[1]
    if channels and any((left, right, top, bottom)):
        raise Unsupported(f"padding must be of pixels or of channels, not both, but got {call['pad']}")
    if channels:
        return call.emit(Op.SUBSAMPLE_PAD, value, channels_before=before)
    if value.dims == call.dims:
        return call.alias(value)
    return call.emit(Op.PAD, value, window=window((1, 1), (1, 1), (top, left, bottom, right)))


@converts("aten.cat.default", "aten.concat.default")
def concat(call: Call) -> Value:
    """Joins tensors along channels."""
    parts = call["tensors"]
    if any(not isinstance(part, Value) for part in parts):
        raise Unsupported("all parts must be computed by the model")
    if call["dim"] % len(call.dims) != 1:
        raise Unsupported(f"parts must be joined along channels, dimension 1, but got {call['dim']}")
    if len(parts) == 1:
        return call.alias(parts[0])
    shapes = [part.shape for part in parts]
    assert sum(shape[1] for shape in shapes) == call.dims[1], "torch checked the sizes"
    return call.emit(Op.CONCAT, *parts)
