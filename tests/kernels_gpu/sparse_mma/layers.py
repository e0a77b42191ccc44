"""Random layers of tiles with 2:4 inside, and what they compute in float64."""

from __future__ import annotations

from typing import Any

import numpy as np

from autosparse.kernels.bf16 import round_to_bf16
from autosparse.kernels.gpu.method import GivenLayer
from autosparse.patterns import family_of
from autosparse.patterns.families.tvw import tvw
from autosparse.patterns.tile_structure import TileStructure
from autosparse.patterns.tiles import to_columns
from autosparse.records import Activation, LayerShape


def rounded(values: np.ndarray, dtype: str) -> np.ndarray:
    """Gives the nearest values of a 16-bit type, as float32."""
    return round_to_bf16(values) if dtype == "bf16" else values.astype(np.float16).astype(np.float32)


def tvw_layer(
    shape: LayerShape,
    *,
    group_out: int = 64,
    unit_in: int = 8,
    sparsity: float = 0.75,
    split: str = "even",
    uniform: bool = False,
    bias: bool = True,
    dtype: str = "bf16",
    seed: int = 0,
) -> GivenLayer:
    """Gives a layer whose weights are small and follow a pattern of tiles with 2:4 inside."""
    random = np.random.default_rng(seed)
    weight = random.standard_normal(shape.weight_shape) * random.choice(
        [0.3, 1.0], (shape.out_channels, 1, 1, 1)
    )
    pattern = tvw(group_out, unit_in, uniform=uniform, split=split)
    kept = family_of(pattern).mask(weight, pattern, sparsity)
    pruned = rounded(np.where(kept, weight, 0.0), dtype)
    return GivenLayer(
        shape=shape,
        weight=pruned,
        bias=random.standard_normal(shape.out_channels).astype(np.float32) if bias else None,
        pattern=pattern,
        structure=TileStructure.from_weight(pruned, pattern),
    )


def linear(rows: int, inputs: int, outputs: int, **more: Any) -> LayerShape:
    return LayerShape(
        op="linear", batch_size=1, in_channels=inputs, out_channels=outputs, in_height=rows, **more
    )


def conv(batch: int, inputs: int, outputs: int, size: tuple[int, int], **more: Any) -> LayerShape:
    return LayerShape(
        op="conv2d", batch_size=batch, in_channels=inputs, out_channels=outputs,
        in_height=size[0], in_width=size[1], **more,
    )  # fmt: skip


def patches(x: np.ndarray, shape: LayerShape) -> np.ndarray:
    """Gives what every output pixel reads, ``[pixels, taps * inputs]``, of ``[batch, h, w, in]``."""
    (top, left), (down, right) = shape.padding, shape.dilation
    padded = np.pad(x, ((0, 0), (top, top), (left, left), (0, 0)))
    taps = []
    for row, column in np.ndindex(shape.kernel):
        rows = row * down + shape.stride[0] * np.arange(shape.out_height)
        columns = column * right + shape.stride[1] * np.arange(shape.out_width)
        taps.append(padded[:, rows[:, None], columns])
    return np.concatenate(taps, axis=-1).reshape(-1, shape.taps * shape.in_channels)


def activated(sums: np.ndarray, activation: Activation) -> np.ndarray:
    import torch  # its functions, in float64

    functions = {
        Activation.NONE: lambda x: x,
        Activation.RELU: torch.relu,
        Activation.RELU6: torch.nn.functional.relu6,
        Activation.SILU: torch.nn.functional.silu,
        Activation.HARD_SWISH: torch.nn.functional.hardswish,
        Activation.HARD_SIGMOID: torch.nn.functional.hardsigmoid,
        Activation.SIGMOID: torch.sigmoid,
        Activation.GELU: torch.nn.functional.gelu,
    }
    return functions[activation](torch.from_numpy(sums)).numpy()


def expected(layer: GivenLayer, x: np.ndarray, residual: np.ndarray | None = None) -> np.ndarray:
    """Computes a layer in float64: ``[pixels, outputs]``."""
    weight = to_columns(layer.weight).astype(np.float64)
    sums = patches(np.asarray(x, dtype=np.float64), layer.shape) @ weight.T
    sums += 0 if layer.bias is None else layer.bias
    sums += 0 if residual is None else residual.reshape(sums.shape)
    return activated(sums, layer.shape.activation)
