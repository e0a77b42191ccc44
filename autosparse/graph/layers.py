"""The weight-bearing layers of a fused graph, as the search and the tuner see them."""

from __future__ import annotations

from collections import Counter

from autosparse.graph.ir import Graph, Node, Op
from autosparse.records import LayerInfo, LayerShape

GROUPED = {
    True: "depthwise convolution: no sparse kernel",
    False: "grouped convolution: no sparse kernel",
}
"""Why convolutions in groups stay dense, by whether each group has one input."""
USED = "its weight is used by {calls} calls"


def layers(graph: Graph) -> tuple[LayerInfo, ...]:
    """Gives every layer with a weight matrix, in execution order.

    A module whose weight is used by several calls appears once per call, later ones as ``name@2``.

    Args:
        graph: a fused graph; the epilogues in the shapes are what fusion found.
    """
    return tuple(layer for _, layer in layer_nodes(graph))


def layer_nodes(graph: Graph) -> tuple[tuple[Node, LayerInfo], ...]:
    """Gives the same layers, each with the node that it is."""
    calls = [node for node in graph.nodes if node.layer is not None]
    total = Counter(node.layer for node in calls)
    seen: Counter[str | None] = Counter()
    foreign = _foreign(graph)
    found = []
    for node in calls:
        seen[node.layer] += 1
        count = seen[node.layer]
        layer = LayerInfo(
            name=f"{node.layer}@{count}" if count > 1 else str(node.layer),
            shape=layer_shape(node, graph),
            why_dense=(*_why_dense(node, total[node.layer]), *foreign),
        )
        found.append((node, layer))
    return tuple(found)


def layer_shape(node: Node, graph: Graph) -> LayerShape | None:
    """Gives a node's shape as a record; None where the record cannot say it."""
    if node.op not in (Op.CONV, Op.CONV_GROUPED) or not node.window.is_symmetric:
        return None
    batch_size, in_channels, in_height, in_width = graph.shapes[node.inputs[0]]
    return LayerShape(
        op="linear" if node.linear else "conv2d",
        batch_size=batch_size,
        in_channels=in_channels,
        out_channels=node.shape[1],
        in_height=in_height,
        in_width=in_width,
        kernel=node.window.kernel,
        stride=node.window.stride,
        padding=node.window.padding[:2],
        dilation=node.window.dilation,
        groups=node.groups,
        activation=node.activation,
        residual=node.residual is not None,
    )


def _foreign(graph: Graph) -> tuple[str, ...]:
    """A model with one foreign operator runs through torch as a whole, where zeros save nothing."""
    if not graph.unsupported:
        return ()
    first = graph.unsupported[0]
    return (f"the model runs through torch because of {first.describe()}",)


def _why_dense(node: Node, calls: int) -> tuple[str, ...]:
    reasons = list(node.why_dense)
    if node.op is Op.UNSUPPORTED:
        reasons.append(f"{node.aten}: {node.reason}")
    elif node.op is Op.CONV_GROUPED:
        reasons.append(GROUPED[node.weight is not None and node.weight.shape[1] == 1])
    elif not node.window.is_symmetric:
        reasons.append(f"padding {node.window.padding} differs between opposite borders")
    if calls > 1:
        reasons.append(USED.format(calls=calls))
    return tuple(reasons)
