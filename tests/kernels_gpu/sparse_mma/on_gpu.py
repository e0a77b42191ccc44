"""A layer on the GPU that is here: every kernel and launch, alone and from a captured graph."""

from __future__ import annotations

import numpy as np
import torch

from autosparse.kernels.gpu import method as registry
from autosparse.kernels.gpu.chips import chip_of
from autosparse.kernels.gpu.method import GivenLayer
from tests.kernels_gpu.sparse_mma.layers import expected, rounded

DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16}


def check_layer(layer: GivenLayer) -> None:
    shape = layer.shape
    major, minor = torch.cuda.get_device_capability()
    chip = chip_of(f"{major}.{minor}")
    assert chip is not None
    for kernel in registry.kernels_for(shape, layer.pattern, "bf16", chip):
        if kernel.method != "sparse_mma":
            continue
        method = registry.method_of(kernel)
        for launch in method.launches(kernel, shape, layer.pattern, chip):
            prepared = method.prepare(kernel, layer, launch, torch.device("cuda"))
            compare(prepared, layer, kernel.dtype)


def compare(prepared: registry.Prepared, layer: GivenLayer, dtype: str) -> None:
    shape, random = layer.shape, np.random.default_rng(0)
    n, c, h, w = shape.input_shape
    x = rounded(random.standard_normal((n, h, w, c)), dtype)
    out_shape = (n, shape.out_height, shape.out_width, shape.out_channels)
    residual = rounded(random.standard_normal(out_shape), dtype) if shape.residual else None
    inputs = torch.from_numpy(x).to("cuda", DTYPES[dtype])
    added = None if residual is None else torch.from_numpy(residual).to("cuda", DTYPES[dtype])
    out = torch.full(out_shape, float("nan"), device="cuda", dtype=DTYPES[dtype])
    prepared(inputs, added, out)
    wanted = expected(layer, x, residual).reshape(out_shape)
    slack = 2e-2 * np.abs(wanted).max()
    np.testing.assert_allclose(out.float().cpu().numpy(), wanted, atol=slack, rtol=2e-2)
    graph = torch.cuda.CUDAGraph()
    again = torch.full_like(out, float("nan"))
    with torch.cuda.graph(graph):
        prepared(inputs, added, again)
    graph.replay()
    torch.testing.assert_close(again, out, rtol=0, atol=0)
