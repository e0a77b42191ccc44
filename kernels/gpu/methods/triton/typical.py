"""A launch as a layer of a pattern has it, whatever its weights: what resources depend on."""

from __future__ import annotations

import numpy as np
import torch

from autosparse.kernels.gpu.launch import Launch
from autosparse.kernels.gpu.method import GpuKernel
from autosparse.kernels.gpu.methods.triton.call import Call
from autosparse.kernels.gpu.methods.triton.geometry import of_layer
from autosparse.kernels.gpu.methods.triton.layer import DTYPES
from autosparse.kernels.gpu.methods.triton.packing import BLOCK_FIELDS, OUT_BYTES, Packing, run_of
from autosparse.kernels.gpu.methods.triton.product import TileProduct, check_launch
from autosparse.patterns.pattern import Pattern
from autosparse.records import LayerShape


def typical_call(kernel: GpuKernel, shape: LayerShape, pattern: Pattern, launch: Launch) -> Call:
    """Gives the launch of a layer's main kernel; nothing is packed, so it can be compiled alone.

    Args:
        kernel: the kernel.
        shape: the layer; it has a bias.
        pattern: its tiles: where outputs are pruned, they are taken to lie scattered.
        launch: launch parameters.
    """
    geometry, dtype = of_layer(shape), DTYPES[kernel.dtype]
    group_out = pattern.group_out or shape.out_channels
    check_launch(launch, min(group_out, shape.out_channels), dtype.itemsize)
    packing = _packing(shape, pattern, launch, dtype.itemsize)
    product = TileProduct(geometry, packing, launch, torch.device("cpu"))

    def empty(*extents: int, dtype: torch.dtype = dtype) -> torch.Tensor:
        return torch.empty(extents, dtype=dtype, device="meta")

    is_scaled = dtype.itemsize == 1
    out = empty(geometry.rows, shape.out_channels, dtype=torch.bfloat16 if is_scaled else dtype)
    return product.calls(
        empty(geometry.images, *geometry.input),
        empty(1, launch.bn, launch.bk),
        out,
        empty(*product.parts_shape, dtype=torch.float32) if launch.split_k > 1 else None,
        scale=empty(shape.out_channels, dtype=torch.float32) if is_scaled else None,
        bias=empty(shape.out_channels, dtype=torch.float32),
        residual=out if shape.residual else None,
        activation=str(shape.activation),
    )[0]


def _packing(shape: LayerShape, pattern: Pattern, launch: Launch, element_bytes: int) -> Packing:
    """Gives a packing of one empty block that has the layer's constants."""
    is_contiguous = pattern.is_dense or pattern.split == "inputs"
    unit_in = shape.in_channels if pattern.is_dense else pattern.unit_in
    aligned = (pattern.group_out,) if is_contiguous else ()
    run = run_of(unit_in, shape.in_channels, element_bytes=element_bytes, limit=launch.bk)
    lists = np.zeros((1, launch.bk // run), dtype=np.int32)
    return Packing(
        run=run,
        out_run=run_of(shape.out_channels, *aligned, element_bytes=OUT_BYTES, limit=launch.bn),
        is_contiguous=is_contiguous,
        blocks=np.zeros((1, BLOCK_FIELDS), dtype=np.int32),
        entries=lists,
        taps=lists,
        columns=np.zeros((1, launch.bn), dtype=np.int32),
        pruned=np.zeros(1, dtype=np.int32),
        pruned_count=0 if is_contiguous else 1,
        source=np.zeros((0, launch.bn, launch.bk), dtype=np.int32),
    )
