"""The layers that GPU kernels are held to: linears of 4096 tokens, convolutions of 64 images."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from autosparse.records import LayerShape

TOKENS = 4096
IMAGES = 64


@dataclass(frozen=True)
class Case:
    """A layer, and how many of it a model has.

    Attributes:
        name: for tables.
        shape: the layer, its batch included.
        count: layers of that shape in the model, or in one block of it.
    """

    name: str
    shape: LayerShape
    count: int = 1


def linears() -> list[Case]:
    """BERT-base's layers, and those of a Llama of seven billion weights."""
    sizes = {
        "bert q/k/v/o": (768, 768, 4),
        "bert up": (768, 3072, 1),
        "bert down": (3072, 768, 1),
        "llama q/k/v/o": (4096, 4096, 4),
        "llama gate/up": (4096, 11008, 2),
        "llama down": (11008, 4096, 1),
    }
    return [
        Case(name, linear(TOKENS, inputs, outputs), count)
        for name, (inputs, outputs, count) in sizes.items()
    ]


def linear(rows: int, inputs: int, outputs: int) -> LayerShape:
    """A linear layer of so many rows."""
    return LayerShape(
        op="linear", batch_size=1, in_channels=inputs, out_channels=outputs, in_height=rows
    )


def convolutions() -> list[Case]:
    """ResNet-50's convolutions but the first, each shape once."""
    import torch

    from autosparse import graph, models

    module = models.resolve("resnet50").module
    found = graph.capture_layers(module, (torch.zeros(IMAGES, 3, 224, 224),))
    shapes = Counter(layer.shape for layer in found if layer.shape and layer.shape.op == "conv2d")
    return [
        Case(_named(shape), shape, count)
        for shape, count in shapes.items()
        if shape.in_channels > 3 and shape.groups == 1
    ]


def _named(shape: LayerShape) -> str:
    stride = "" if shape.stride == (1, 1) else f"/{shape.stride[0]}"
    return (
        f"{shape.kernel[0]}x{shape.kernel[1]}{stride} {shape.in_channels}>{shape.out_channels} "
        f"{shape.in_height}x{shape.in_width}"
    )
