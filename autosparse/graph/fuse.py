"""Fusion: batch-norm, bias, activation and residual sum move into the convolution in front of them.

Every rule joins a tensor's producer with its only reader. The joined node stands where the reader
stood, so that whatever else the reader needs, the other summand of a sum, has been computed by then.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from autosparse.graph.ir import Activation, FloatArray, Graph, Node, Op, Window

_CONVOLUTIONS = (Op.CONV, Op.CONV_GROUPED)
_ACTIVATED = (*_CONVOLUTIONS, Op.ADD, Op.MUL, Op.AFFINE)


def fuse(graph: Graph) -> Graph:
    """Gives an equal graph of fewer operators.

    Folded: per-channel affine maps (batch-norm) into the convolution before, in float64; padding into
    the convolution behind; residual sums and activations into the convolution before; slices of slices.
    Pruned weights stay exactly zero: folding scales each output's weights by one factor.
    """
    kept = _alive(graph)
    uses = kept.uses()
    depth = _depths(kept)
    made: dict[str, Node] = {}
    for node in kept.nodes:
        made[node.name] = node
        for operand in sorted(set(node.inputs), key=lambda name: -depth.get(name, 0)):
            producer = made.get(operand)
            joined = _join(producer, node) if producer and uses[operand] == 1 else None
            if joined is not None:
                del made[operand]
                made[node.name] = joined
                break
    return replace(kept, nodes=tuple(_settle(made.values())))


def _alive(graph: Graph) -> Graph:
    """Drops operators whose results nobody reads."""
    needed = {port.tensor for port in graph.outputs}
    for node in reversed(graph.nodes):
        if node.name in needed:
            needed.update(node.reads)
    return replace(graph, nodes=tuple(node for node in graph.nodes if node.name in needed))


def _depths(graph: Graph) -> Mapping[str, int]:
    """Gives each tensor's distance from the inputs.

    Of two convolutions that could take a residual sum, the deeper ends the main branch and takes it:
    the layers of all blocks of a stage then have one shape, and the shortcut's convolution stays plain.
    """
    depth: dict[str, int] = {}
    for node in graph.nodes:
        depth[node.name] = 1 + max((depth.get(name, 0) for name in node.reads), default=0)
    return depth


def _join(producer: Node, reader: Node) -> Node | None:
    """Gives one node that does the work of both, None if there is none."""
    if reader.op is Op.AFFINE:
        return _join_affine(producer, reader)
    if reader.op is Op.ACTIVATION:
        return _join_activation(producer, reader)
    if reader.op is Op.ADD:
        return _join_residual(producer, reader)
    if reader.op in _CONVOLUTIONS and producer.op is Op.PAD:
        return _join_pad(producer, reader)
    if reader.op is Op.SUBSAMPLE_PAD and producer.op is Op.SUBSAMPLE_PAD:
        return _join_slices(producer, reader)
    return None


def _is_plain(node: Node) -> bool:
    return node.activation is Activation.NONE and node.residual is None


def _join_affine(producer: Node, affine: Node) -> Node | None:
    if producer.op not in (*_CONVOLUTIONS, Op.AFFINE) or not _is_plain(producer):
        return None
    assert producer.weight is not None and affine.weight is not None
    scale = affine.weight.astype(np.float64)
    bias = scale * _bias(producer) + _bias(affine)
    per_output = scale.reshape(-1, *[1] * (producer.weight.ndim - 1))
    weight: FloatArray = producer.weight.astype(np.float64) * per_output
    if producer.op in _CONVOLUTIONS:
        weight = weight.astype(np.float32)
    return replace(producer, name=affine.name, weight=weight, bias=bias)


def _bias(node: Node) -> FloatArray:
    if node.bias is None:
        return np.zeros(node.shape[1])
    return node.bias.astype(np.float64)


def _join_activation(producer: Node, activation: Node) -> Node | None:
    if producer.op not in _ACTIVATED or producer.activation is not Activation.NONE:
        return None
    return replace(producer, name=activation.name, activation=activation.activation)


def _join_residual(producer: Node, add: Node) -> Node | None:
    # Both operands the same tensor would be two uses, so the other one is another tensor.
    if producer.op is not Op.CONV or not _is_plain(producer):
        return None
    other = add.inputs[1] if add.inputs[0] == producer.name else add.inputs[0]
    return replace(producer, name=add.name, residual=other)


def _join_pad(pad: Node, conv: Node) -> Node:
    top, left, bottom, right = (
        a + b for a, b in zip(pad.window.padding, conv.window.padding, strict=True)
    )
    window = replace(conv.window, padding=(top, left, bottom, right))
    return replace(conv, inputs=pad.inputs, window=window)


def _join_slices(first: Node, second: Node) -> Node:
    """Slices of slices; channels added by the first lie behind those added by the second."""
    stride = tuple(a * b for a, b in zip(first.window.stride, second.window.stride, strict=True))
    return replace(
        second,
        inputs=first.inputs,
        window=Window(stride=(stride[0], stride[1])),
        channels_before=first.channels_before + second.channels_before,
    )


def _settle(nodes: Iterable[Node]) -> Iterable[Node]:
    """Rounds what was folded to float32, and refuses padding that no convolution took."""
    for node in nodes:
        if node.op is Op.PAD:
            reason = "padding must be followed by a convolution alone"
            yield replace(node, op=Op.UNSUPPORTED, reason=reason)
            continue
        yield replace(node, weight=_single(node.weight), bias=_single(node.bias))


def _single(values: FloatArray | None) -> FloatArray | None:
    return None if values is None else np.ascontiguousarray(values, dtype=np.float32)
