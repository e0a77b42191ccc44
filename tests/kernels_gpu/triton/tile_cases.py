"""Layers of tiles run in Triton's interpreter between guards, and what they should give in float64."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autosparse.kernels.gpu.launch import Launch
from autosparse.kernels.gpu.method import GivenLayer
from autosparse.kernels.gpu.methods.triton.layer import DTYPES, TileWiseLayer
from autosparse.patterns import family_of
from autosparse.patterns.pattern import Pattern
from autosparse.patterns.tile_structure import TileStructure
from autosparse.records import LayerShape

Array64 = NDArray[np.float64]
GUARD = 64  # elements; a multiple of 16 bytes, so that what lies between stays aligned
HALF_UNIT = {"bf16": 2.0**-8, "f16": 2.0**-11, "fp8": 2.0**-8}  # of outputs
SMALL = Launch(bm=16, bn=16, bk=32, warps=4, stages=2)


def activated(x: Array64, name: str) -> Array64:
    """Activation functions by their definitions."""
    sigmoid = 1 / (1 + np.exp(-x))
    hard = np.clip(x + 3, 0, 6) / 6
    return {
        "none": x,
        "relu": np.maximum(x, 0),
        "relu6": np.clip(x, 0, 6),
        "silu": x * sigmoid,
        "hard_swish": x * hard,
        "hard_sigmoid": hard,
        "sigmoid": sigmoid,
        "gelu": 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
    }[name]


def convolved(x: Array64, weight: Array64, shape: LayerShape) -> Array64:
    """One shifted product per kernel position; images and result have channels last."""
    (sy, sx), (py, px), (dy, dx) = shape.stride, shape.padding, shape.dilation
    padded = np.pad(x, ((0, 0), (py, py), (px, px), (0, 0)))
    out = np.zeros((shape.batch_size, shape.out_height, shape.out_width, shape.out_channels))
    for r, s in np.ndindex(*shape.kernel):
        rows = slice(r * dy, r * dy + (shape.out_height - 1) * sy + 1, sy)
        columns = slice(s * dx, s * dx + (shape.out_width - 1) * sx + 1, sx)
        out += padded[:, rows, columns] @ weight[:, :, r, s].T
    return out


def kept_of(structure: TileStructure) -> NDArray[np.bool_]:
    """Which weights tiles hold, OIHW, by the definition of units."""
    kept = np.zeros(structure.shape, dtype=bool)
    units, width = structure.units_per_position, structure.shape[3]
    for tile in structure.tiles:
        for unit in tile.units.tolist():
            tap, run = divmod(unit, units)
            first = run * structure.unit_in
            inputs = slice(first, first + structure.unit_in)
            kept[tile.outputs, inputs, tap // width, tap % width] = True
    return kept


class Guarded:
    """A tensor between guards, and whether these still are what they were."""

    def __init__(self, values: Any, guard: float = math.nan) -> None:
        flat = values.reshape(-1)
        self._whole = torch.full((flat.numel() + 2 * GUARD,), guard, dtype=values.dtype)
        self._guard = guard
        self.tensor = self._whole[GUARD:-GUARD].reshape(values.shape)
        self.tensor.copy_(values)

    def check(self) -> None:
        """Asserts that nothing was written beyond the edges."""
        around = torch.cat([self._whole[:GUARD], self._whole[-GUARD:]]).double()
        same = torch.isnan(around) if math.isnan(self._guard) else around == self._guard
        assert bool(same.all()), "written beyond the edge of a buffer"


@dataclass
class Case:
    """One layer with its data.

    Attributes:
        shape: the layer.
        structure: its tiles; None for dense.
        weight: OIHW, float32, as the type rounds it, zero where pruned.
        bias: one per output, or None.
        x: NHWC.
        residual: NHWC, or None.
        dtype: of activations; outputs of fp8 are bf16.
        pattern: of the tiles.
        input_scale: what x stands for is so many times as much.
    """

    shape: LayerShape
    structure: TileStructure | None
    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    x: Any
    residual: Any
    dtype: str
    pattern: Pattern
    input_scale: float = 1.0

    @property
    def out_dtype(self) -> Any:
        return torch.bfloat16 if self.dtype == "fp8" else DTYPES[self.dtype]

    @property
    def out_extents(self) -> tuple[int, int, int, int]:
        shape = self.shape
        return (shape.batch_size, shape.out_height, shape.out_width, shape.out_channels)

    def layer(self, launch: Launch) -> TileWiseLayer:
        """Prepares it for the interpreter."""
        given = GivenLayer(
            shape=self.shape, weight=self.weight, bias=self.bias, pattern=self.pattern,
            structure=self.structure, input_scale=self.input_scale,
        )  # fmt: skip
        return TileWiseLayer(given, DTYPES[self.dtype], launch, torch.device("cpu"))

    def run(self, launch: Launch) -> Any:
        """Computes it between guards; what it does not write is NaN."""
        layer = self.layer(launch)
        x = Guarded(self.x)
        residual = None if self.residual is None else Guarded(self.residual)
        out = Guarded(torch.full(self.out_extents, math.nan, dtype=self.out_dtype), guard=7.0)
        parts = None
        if launch.split_k > 1:
            parts = Guarded(torch.full(layer.product.parts_shape, math.nan), guard=5.0)
        for call in layer.calls(
            x.tensor,
            None if residual is None else residual.tensor,
            out.tensor,
            None if parts is None else parts.tensor,
        ):
            call.run()
        for each in (out, parts):
            if each is not None:
                each.check()
        return out.tensor

    def operands(self) -> tuple[Array64, Array64]:
        """x and weights as their types hold them, scales included."""
        x, weight = self.x.double().numpy() * self.input_scale, self.weight.astype(np.float64)
        if self.dtype == "fp8":
            scale = np.abs(weight).max(axis=(1, 2, 3), keepdims=True) / 448
            scale = np.where(scale > 0, scale, 1.0).astype(np.float32)
            held = torch.from_numpy(self.weight / scale).to(DTYPES["fp8"])
            weight = held.double().numpy() * scale.astype(np.float64)
        return x, weight

    def expected(self) -> Array64:
        """What it should be, in float64."""
        sums = convolved(*self.operands(), self.shape)
        sums += 0.0 if self.bias is None else self.bias
        sums += 0.0 if self.residual is None else self.residual.double().numpy()
        return activated(sums, self.shape.activation)

    def check(self, launch: Launch = SMALL) -> None:
        """Runs it, and asserts that it is right up to rounding.

        Sums are float32: their error grows with the square root of the number of terms, and activation
        functions are no steeper than 1.5. Then the result is rounded to its type, once.
        """
        got, expected = self.run(launch).double().numpy(), self.expected()
        x, weight = self.operands()
        magnitude = convolved(np.abs(x), np.abs(weight), self.shape).max()
        terms = self.shape.in_channels * math.prod(self.shape.kernel)
        limit = 1.5 * 2.0**-23 * (math.sqrt(terms) + 8) * (magnitude + 4)
        limits = limit + HALF_UNIT[self.dtype] * np.abs(expected) + 2.0**-24
        assert np.isfinite(got).all(), f"{np.count_nonzero(~np.isfinite(got))} outputs not written"
        worst = np.unravel_index(np.argmax(np.abs(got - expected) - limits), got.shape)
        error = abs(got[worst] - expected[worst])
        assert error <= limits[worst], f"off by {error:.3g} at {worst}, more than {limits[worst]:.3g}"


def make(
    shape: LayerShape,
    pattern: Pattern,
    sparsity: float = 0.5,
    dtype: str = "bf16",
    *,
    structure: TileStructure | None = None,
    bias: bool = True,
    seed: int = 0,
) -> Case:
    """Makes a layer with random data, and tiles kept at random unless they are given."""
    rng = np.random.default_rng(seed)
    extents = (shape.out_channels, shape.in_channels, *shape.kernel)
    weight = rng.standard_normal(extents) / math.sqrt(math.prod(extents[1:]))
    if structure is None and not pattern.is_dense:
        mask = family_of(pattern).random(pattern, extents, sparsity, rng)
        structure = TileStructure.from_weight(mask.astype(float), pattern)
    if structure is not None:
        weight *= kept_of(structure)

    def rounded(values: Array64, dtype: str = dtype) -> Any:
        return torch.from_numpy(values).to(DTYPES[dtype])

    wide = "bf16" if dtype == "fp8" else dtype
    out = (shape.batch_size, shape.out_height, shape.out_width, shape.out_channels)
    x = (shape.batch_size, shape.in_height, shape.in_width, shape.in_channels)
    return Case(
        shape=shape,
        structure=structure,
        weight=rounded(weight, wide).float().numpy(),
        bias=rng.standard_normal(shape.out_channels).astype(np.float32) if bias else None,
        x=rounded(rng.standard_normal(x)),
        residual=rounded(rng.standard_normal(out), wide) if shape.residual else None,
        dtype=dtype,
        pattern=pattern,
        input_scale=0.37 if dtype == "fp8" else 1.0,
    )
