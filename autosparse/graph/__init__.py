"""From a torch module to a fused operator graph.

trace(module, example_inputs) -> Graph    what the module computes
fuse(graph) -> Graph                      the same in fewer operators
layers(graph) -> tuple[LayerInfo, ...]    its weight-bearing layers
Emulation(graph) -> torch.nn.Module       the same in torch, rounded as the executor rounds in bf16
channel_spaces(module, example_inputs)    which outputs of layers can be reordered, and what must follow
rearrange(module, example_inputs, layers) similar filters side by side, the module's function unchanged
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from autosparse.graph.channel_layout import Role, Space, Tie
from autosparse.graph.channels import channel_spaces
from autosparse.graph.emulate import Emulation, float_tail
from autosparse.graph.fuse import fuse
from autosparse.graph.ir import Activation, Graph, Node, Op, Port, Window
from autosparse.graph.layers import layer_nodes, layer_shape, layers
from autosparse.graph.rearrange import Move, Rearrangement, rearrange
from autosparse.graph.trace import Exported, evaluation_mode, trace
from autosparse.records import LayerInfo


def capture_layers(
    module: torch.nn.Module, example_inputs: Sequence[torch.Tensor]
) -> tuple[LayerInfo, ...]:
    """Gives a module's weight-bearing layers with their shapes, from its traced and fused graph.

    Raises:
        ModelError: torch cannot export the module.
    """
    return layers(fuse(trace(module, example_inputs)))


__all__ = [
    "Activation",
    "Emulation",
    "Exported",
    "Graph",
    "Move",
    "Node",
    "Op",
    "Port",
    "Rearrangement",
    "Role",
    "Space",
    "Tie",
    "Window",
    "capture_layers",
    "channel_spaces",
    "evaluation_mode",
    "float_tail",
    "fuse",
    "layer_nodes",
    "layer_shape",
    "layers",
    "rearrange",
    "trace",
]
