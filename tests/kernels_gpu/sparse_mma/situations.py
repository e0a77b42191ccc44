"""Layers that the kernels run on the emulated machine, with the variants that they need."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from autosparse.kernels.gpu.launch import Launch
from autosparse.kernels.gpu.method import GivenLayer
from autosparse.kernels.gpu.methods.sparse_mma.variants import Variant, variant_of
from autosparse.patterns.families.nm import nm
from autosparse.records import Activation, LayerShape
from tests.kernels_gpu.sparse_mma.layers import conv, linear, rounded, tvw_layer


@dataclass(frozen=True)
class Situation:
    """A layer, and how it is cut up."""

    shape: LayerShape
    launch: Launch
    dtype: str = "bf16"
    options: dict[str, Any] = field(default_factory=dict)
    grid: int = 3
    instruction: str = "mma"

    @property
    def variant(self) -> Variant:
        return variant_of(self.instruction, self.dtype, self.shape, self.launch)

    def layer(self) -> GivenLayer:
        return tvw_layer(self.shape, dtype=self.dtype, **self.options)

    def input(self, seed: int = 0) -> np.ndarray:
        shape = self.shape
        extents = (shape.batch_size, shape.in_height, shape.in_width, shape.in_channels)
        return rounded(np.random.default_rng(seed).standard_normal(extents), self.dtype)

    def residual(self, seed: int = 1) -> np.ndarray | None:
        shape = self.shape
        if not shape.residual:
            return None
        pixels = shape.batch_size * shape.out_height * shape.out_width
        return rounded(
            np.random.default_rng(seed).standard_normal((pixels, shape.out_channels)), self.dtype
        )


SMALL = Launch(bn=64, bm=64, warps=4, stages=3)
NARROW = Launch(bn=32, bm=128, warps=4, stages=2)
SQUARE = Launch(bn=128, bm=128, warps=8, stages=4)
MMA = {
    # Rows and outputs that no block size divides, outputs here and there.
    "linear": Situation(linear(200, 192, 100), SMALL, options={"group_out": 64}),
    "one row": Situation(linear(1, 64, 64), SMALL, options={"group_out": 32, "sparsity": 0.5}, grid=1),
    # All outputs side by side, cut into parts of one list, in f16.
    "one tile": Situation(
        linear(130, 72, 152, activation=Activation.GELU), SMALL, "f16",
        {"group_out": 256, "split": "inputs", "bias": False},
    ),
    "wide residual": Situation(
        linear(131, 128, 64, residual=True), NARROW,
        options={"group_out": 64, "split": "inputs"}, grid=2,
    ),
    "3x3": Situation(
        conv(
            2, 24, 72, (9, 8), kernel=(3, 3), padding=(1, 1), activation=Activation.RELU, residual=True
        ),
        SQUARE,
        options={"group_out": 32},
    ),
    "strided": Situation(
        conv(3, 16, 40, (11, 7), kernel=(3, 2), stride=(2, 3), padding=(2, 0), dilation=(2, 1)),
        NARROW,
        options={"group_out": 16, "unit_in": 16, "sparsity": 0.8}, grid=1,
    ),
    "1x1 strided": Situation(
        conv(2, 40, 64, (7, 7), stride=(2, 2)), NARROW, options={"sparsity": 0.5, "group_out": 32}
    ),
    "long tiles": Situation(
        linear(70, 1024, 96), SMALL, grid=2,
        options={"group_out": 32, "sparsity": 0.9, "uniform": False},
    ),
}  # fmt: skip
TALL = Launch(bn=256, bm=128, warps=12, stages=4)
FLAT = Launch(bn=64, bm=128, warps=12, stages=3)
WGMMA = {
    # Four matrix rows of 64 outputs each for two warpgroups, outputs here and there.
    "linear": Situation(
        linear(200, 192, 300), TALL, options={"group_out": 256}, instruction="wgmma", grid=2
    ),
    # Both warpgroups have the same outputs, and different pixels.
    "one tile": Situation(
        linear(130, 72, 152, activation=Activation.GELU), FLAT, "f16",
        {"group_out": 256, "split": "inputs", "bias": False}, instruction="wgmma",
    ),
    "3x3": Situation(
        conv(
            2, 24, 136, (9, 8), kernel=(3, 3), padding=(1, 1), activation=Activation.RELU, residual=True
        ),
        Launch(bn=128, bm=96, warps=12, stages=5),
        options={"group_out": 128}, instruction="wgmma",
    ),
    "strided": Situation(
        conv(3, 16, 40, (11, 7), kernel=(3, 2), stride=(2, 3), padding=(2, 0), dilation=(2, 1)),
        FLAT,
        options={"group_out": 16, "unit_in": 16, "sparsity": 0.8}, grid=1, instruction="wgmma",
    ),
    "long tiles": Situation(
        linear(70, 1024, 128), FLAT, grid=1,
        options={"group_out": 32, "sparsity": 0.9, "uniform": False}, instruction="wgmma",
    ),
}  # fmt: skip
VARIANTS = tuple({each.variant: None for each in (*MMA.values(), *WGMMA.values())})


def two_of_four(shape: LayerShape, dtype: str) -> GivenLayer:
    """Gives a layer that is 2:4 and nothing else."""
    weight = rounded(np.random.default_rng(3).standard_normal(shape.weight_shape), dtype)
    ranked = (
        np.abs(weight).reshape(shape.out_channels, -1, 4, shape.taps).argsort(axis=2).argsort(axis=2)
    )
    kept = np.where(ranked.reshape(weight.shape) < 2, 0, weight)
    return GivenLayer(shape=shape, weight=kept, bias=None, pattern=nm(2, 4))
