"""What a kind of device makes of a model: the layers that it tunes, and what it cannot run natively."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from autosparse import graph
from autosparse.engine import held_zeros, why_not_native
from autosparse.graph import Graph
from autosparse.records import LayerInfo


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Traced:
    """A model as it was traced once.

    Attributes:
        layers: weight-bearing layers in the order they run.
        foreign: operators for which the whole model would run through torch, with reason and modules.
        held: layers whose weights hold blocks of zeros already, and how many of which.
        graph: the fused graph.
    """

    layers: tuple[LayerInfo, ...]
    foreign: tuple[str, ...]
    held: Mapping[str, str]
    graph: Graph

    def why_not(self, dtype: str) -> str:
        """Says why the executor does not compute the model in a type; empty if it does."""
        why = why_not_native(self.graph, dtype)
        return f"the executor does not run the whole model: {'; '.join(why)}" if why else ""


def trace(module: nn.Module, shape: tuple[int, ...], device: str) -> Traced:
    """Traces a module for inputs of a shape, batch included, as a kind of device takes it.

    Raises:
        ModelError: torch cannot export the module.
    """
    fused = graph.fuse(graph.trace(module, (torch.zeros(shape),)))
    return Traced(
        layers=graph.layers(fused),
        foreign=why_not_native(fused),
        held={
            name: f"{way.pattern.name}@{way.sparsity:.3g}" for name, way in held_zeros(fused).items()
        },
        graph=fused,
    )
