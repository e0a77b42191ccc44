"""Torch's graph with our layers in place of its own, in one type and on one device.

What is left is torch's: it computes in the type too, so every float32 that the graph names (a mask that
is made, a tensor that is converted) becomes that type, and every device the one that it runs on.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn

from autosparse.engine.gpu.layer import SiteLayer
from autosparse.graph.sites import Site, Sited

_WIDE = (torch.float32, torch.float64)


def build(
    sited: Sited, layers: Mapping[fx.Node, SiteLayer], dtype: torch.dtype, device: torch.device
) -> fx.GraphModule:
    """Makes the program; the module that was captured, and its parameters, stay as they are.

    Args:
        sited: the model.
        layers: node of a site to what computes it; other sites stay torch's.
        dtype: of floating-point values.
        device: where it runs.
    """
    root, graph = nn.Module(), fx.Graph()
    now: dict[fx.Node, fx.Node] = {}
    graph.output(graph.graph_copy(sited.module.graph, now))
    for site in sited.sites:
        if site.node in layers:
            layer = layers[site.node]
            root.add_module(layer.place, layer)
            _replace(graph, site, layer, now)
    _drop_unused(graph)
    _convert_calls(graph, dtype, device)
    _bring_constants(graph, sited.module, root, dtype, device)
    program = fx.GraphModule(root, graph)
    program.graph.lint()
    return program.eval()


def _replace(graph: fx.Graph, site: Site, layer: SiteLayer, now: dict[fx.Node, fx.Node]) -> None:
    """Puts a layer where its site ends; `now` says what has become of the captured graph's nodes."""
    end = now[site.node]
    reads = [site.x] if site.residual is None else [site.x, site.residual]
    with graph.inserting_after(end):
        call = graph.create_node("call_module", layer.place, tuple(now[read] for read in reads))
    call.meta = dict(end.meta)
    end.replace_all_uses_with(call, delete_user_cb=lambda user: user is not call)
    now[site.node] = call


def _drop_unused(graph: fx.Graph) -> None:
    """Takes out what nobody reads any more: weights of ours, folded norms, checks of shapes."""
    for node in reversed(graph.nodes):
        if node.op in ("get_attr", "call_function") and not node.users:
            graph.erase_node(node)


def _convert_calls(graph: fx.Graph, dtype: torch.dtype, device: torch.device) -> None:
    def converted(value: Any) -> Any:
        if isinstance(value, torch.dtype) and value in _WIDE:
            return dtype
        return device if isinstance(value, torch.device) else value

    for node in graph.nodes:
        if node.op == "call_function":
            if node.target is torch.ops.aten.view.default:
                # A view of memory in the order that was captured; here channels may lie last.
                node.target = torch.ops.aten.reshape.default
            node.args = fx.node.map_aggregate(node.args, converted)
            node.kwargs = fx.node.map_aggregate(node.kwargs, converted)


def _bring_constants(
    graph: fx.Graph,
    source: nn.Module,
    root: nn.Module,
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    """Copies what the graph still reads of the module's own tensors, as its device needs it."""
    names: dict[str, str] = {}
    for node in graph.nodes:
        if node.op != "get_attr":
            continue
        target = str(node.target)
        if target not in names:
            names[target] = f"constant_{len(names)}"
            root.register_buffer(names[target], _converted(_find(source, target), dtype, device))
        node.target = names[target]


def _find(module: nn.Module, target: str) -> torch.Tensor:
    owner, _, name = target.rpartition(".")
    found: torch.Tensor = getattr(module.get_submodule(owner), name)
    return found


def _converted(tensor: torch.Tensor, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    kind = dtype if tensor.is_floating_point() else tensor.dtype
    layout = torch.channels_last if tensor.dim() == 4 else torch.contiguous_format
    return tensor.detach().to(device, kind, copy=True).contiguous(memory_format=layout)


def weight_bytes(program: nn.Module) -> int:
    """Gives the bytes of all weights: those of our layers, and of what torch computes."""
    ours = sum(
        layer.prepared.weight_bytes for layer in program.modules() if isinstance(layer, SiteLayer)
    )
    torchs = itertools.chain(program.buffers(), program.parameters())
    return ours + sum(tensor.numel() * tensor.element_size() for tensor in torchs)
