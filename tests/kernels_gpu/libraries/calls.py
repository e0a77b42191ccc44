"""Calls a prepared layer on numpy arrays."""

from __future__ import annotations

import numpy as np
import torch

from autosparse.kernels.gpu import method as registry
from autosparse.kernels.gpu.finishing import DTYPES
from autosparse.kernels.gpu.method import GivenLayer
from autosparse.patterns.pattern import Pattern
from autosparse.records import LayerShape
from tests.kernels_gpu.sparse_mma.layers import expected, rounded


def dense_layer(shape: LayerShape, dtype: str, *, bias: bool = True, seed: int = 0) -> GivenLayer:
    random = np.random.default_rng(seed)
    weight = rounded(random.standard_normal(shape.weight_shape), dtype)
    values = rounded(random.standard_normal(shape.out_channels), dtype) if bias else None
    return GivenLayer(shape=shape, weight=weight, bias=values, pattern=Pattern())


def inputs_of(shape: LayerShape, dtype: str) -> tuple[np.ndarray, np.ndarray | None]:
    random = np.random.default_rng(7)
    n, c, h, w = shape.input_shape
    x = rounded(random.standard_normal((n, h, w, c)), dtype)
    n, c, h, w = shape.output_shape
    return x, rounded(random.standard_normal((n, h, w, c)), dtype) if shape.residual else None


def check(prepared: registry.Prepared, layer: GivenLayer, dtype: str, device: str = "cpu") -> None:
    """Compares a call with float64; libraries round sums before the rest of the epilogue."""
    x, residual = inputs_of(layer.shape, dtype)
    wanted = expected_of(layer, x, residual)
    tensors = [
        None if array is None else torch.from_numpy(array).to(device, DTYPES[dtype])
        for array in (x, residual, np.full(wanted.shape, np.nan, np.float32))
    ]
    prepared(*tensors)  # type: ignore[arg-type]
    got = tensors[2].float().cpu().numpy()  # type: ignore[union-attr]
    slack = 4 * 2.0 ** -(8 if dtype == "bf16" else 11)
    np.testing.assert_allclose(got, wanted, rtol=slack, atol=slack * np.abs(wanted).max())


def expected_of(layer: GivenLayer, x: np.ndarray, residual: np.ndarray | None) -> np.ndarray:
    shape = layer.shape
    if shape.groups == 1:
        sums = expected(layer, x, residual)
    else:
        from tests.kernels_gpu.sparse_mma.layers import activated

        image, weight = (torch.from_numpy(a).double() for a in (x.transpose(0, 3, 1, 2), layer.weight))
        bias = None if layer.bias is None else torch.from_numpy(layer.bias).double()
        exact = torch.nn.functional.conv2d(
            image, weight, bias, shape.stride, shape.padding, shape.dilation, shape.groups
        )
        flat = exact.permute(0, 2, 3, 1).numpy()
        sums = activated(flat + (0 if residual is None else residual), shape.activation)
    n, c, h, w = shape.output_shape
    return sums.reshape(n, h, w, c)
