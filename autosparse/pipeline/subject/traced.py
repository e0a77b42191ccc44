"""What a kind of device makes of a model: the layers that it tunes, and what it cannot run natively."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from autosparse import graph
from autosparse.engine import held_zeros, why_not_native
from autosparse.graph import Exported, Graph
from autosparse.graph.sites import find_sites
from autosparse.records import LayerInfo, Pattern


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Traced:
    """A model as it was traced once.

    Attributes:
        layers: weight-bearing layers in the order they run.
        foreign: operators for which the whole model would run through torch, with reason and modules.
        held: layers whose weights hold blocks of zeros already, and how many of which.
        why_not: says why the model is not computed natively in a type; empty if it is.
    """

    layers: tuple[LayerInfo, ...]
    foreign: tuple[str, ...]
    held: Mapping[str, str]
    why_not: Callable[[str], str]


def trace(module: nn.Module, shape: tuple[int, ...], device: str) -> Traced:
    """Traces a module for inputs of a shape, batch included, as a kind of device takes it.

    Raises:
        ModelError: torch cannot export the module.
    """
    captured = Exported(module, (torch.zeros(shape),))
    return _by_sites(captured) if device == "cuda" else _by_operators(captured)


def _by_operators(captured: Exported) -> Traced:
    fused = graph.fuse(captured.graph())
    return Traced(
        layers=graph.layers(fused),
        foreign=why_not_native(fused),
        held={name: _label(way.pattern, way.sparsity) for name, way in held_zeros(fused).items()},
        why_not=lambda dtype: _why_not(fused, dtype),
    )


def _by_sites(captured: Exported) -> Traced:
    """On a GPU whatever is no layer is torch's, so nothing is foreign, and every type will do."""
    from autosparse.engine.gpu.select import found_tiles

    sited = find_sites(captured)
    held = {}
    for site, layer in zip(sited.sites, sited.layers, strict=True):
        for pattern in found_tiles(site.weight)[:1] if not layer.why_dense else ():
            zeros = 1.0 - np.count_nonzero(site.weight) / site.weight.size
            held[layer.name] = _label(pattern, zeros)
    return Traced(layers=sited.layers, foreign=(), held=held, why_not=lambda dtype: "")


def _why_not(fused: Graph, dtype: str) -> str:
    why = why_not_native(fused, dtype)
    return f"the executor does not run the whole model: {'; '.join(why)}" if why else ""


def _label(pattern: Pattern, sparsity: float) -> str:
    return f"{pattern.name}@{sparsity:.3g}"
