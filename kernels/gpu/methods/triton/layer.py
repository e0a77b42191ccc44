"""A layer of tiles on a device, ready to be called."""

from __future__ import annotations

import math

import numpy as np
import torch

from autosparse.errors import UsageError
from autosparse.kernels.gpu.launch import Launch
from autosparse.kernels.gpu.method import FloatArray, GivenLayer
from autosparse.kernels.gpu.methods.triton.call import Call
from autosparse.kernels.gpu.methods.triton.geometry import of_layer
from autosparse.kernels.gpu.methods.triton.packing import pack, run_of, tile_columns
from autosparse.kernels.gpu.methods.triton.product import TileProduct, as_tensor, check_launch
from autosparse.patterns.tile_structure import TileStructure
from autosparse.records import LayerShape

DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "fp8": torch.float8_e4m3fn}
_LARGEST_FP8 = 448.0


class TileWiseLayer:
    """A layer whose condensed weights lie on a device.

    Of 8-bit floats (e4m3), the weights of every output have a scale of their own, so that the largest
    is the largest that there is; sums are multiplied with that and the scale of inputs.

    Attributes:
        product: its lists and launches.
        dtype: of weights and inputs.
        out_dtype: of outputs and what is added to them.
    """

    def __init__(
        self, given: GivenLayer, dtype: torch.dtype, launch: Launch, device: torch.device
    ) -> None:
        self.dtype, self.out_dtype = dtype, torch.bfloat16 if dtype.itemsize == 1 else dtype
        self._activation = str(given.shape.activation)
        self.product = forward_product(
            structure_of(given), given.shape, launch, device, element_bytes=dtype.itemsize
        )
        weight, self._scale = given.weight, None
        if dtype.itemsize == 1:
            scale = output_scales(weight)
            weight = weight / scale[:, None, None, None]
            self._scale = as_tensor(scale * given.input_scale, device, torch.float32)
        self._weight = as_tensor(self.product.packing.values(weight), device, dtype)
        self._bias = None if given.bias is None else as_tensor(given.bias, device, torch.float32)
        if device.type == "cuda":
            self._load(given.shape.residual)

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights and lists on the device."""
        tensors = (self._weight, self._bias, self._scale)
        return self.product.list_bytes + sum(each.nbytes for each in tensors if each is not None)

    def __call__(self, x: torch.Tensor, residual: torch.Tensor | None, out: torch.Tensor) -> None:
        """Computes the layer on the current stream, see `autosparse.kernels.gpu.method.Prepared`."""
        self.product.run(
            x, self._weight, out, scale=self._scale, bias=self._bias, residual=residual,
            activation=self._activation,
        )  # fmt: skip

    def calls(
        self,
        x: torch.Tensor,
        residual: torch.Tensor | None,
        out: torch.Tensor,
        parts: torch.Tensor | None,
    ) -> tuple[Call, ...]:
        """Gives the launches of a call; `parts` is of `TileProduct.parts_shape`, None with one part."""
        return self.product.calls(
            x, self._weight, out, parts,
            scale=self._scale, bias=self._bias, residual=residual, activation=self._activation,
        )  # fmt: skip

    def _load(self, adds: bool) -> None:
        """Compiles and loads its kernels, which cannot be done while a graph is captured.

        They run once, without rows, so that they neither read nor write.
        """
        x = torch.zeros(16, device=self.product.device).to(self.dtype)
        out = torch.zeros(16, dtype=self.out_dtype, device=self.product.device)
        parts = None if self.product.launch.split_k == 1 else out.to(torch.float32)
        for call in self.product.calls(
            x, self._weight, out, parts,
            scale=self._scale, bias=self._bias, residual=out if adds else None,
            activation=self._activation, is_checked=False,
        ):  # fmt: skip
            call.without_rows().run()


def structure_of(given: GivenLayer) -> TileStructure:
    """Gives the tiles of a layer; a dense one is a single tile that keeps everything."""
    if given.structure is not None:
        return given.structure
    return TileStructure.dense(given.weight.shape, given.weight.shape[0], given.weight.shape[1])


def output_scales(weight: FloatArray) -> FloatArray:
    """Gives what to divide the weights of every output by, so that 8-bit floats hold them best."""
    largest = np.abs(weight).reshape(len(weight), -1).max(axis=1)
    return np.where(largest > 0, largest / _LARGEST_FP8, 1.0).astype(np.float32)


def forward_product(
    structure: TileStructure,
    shape: LayerShape,
    launch: Launch,
    device: torch.device,
    *,
    element_bytes: int = 2,
) -> TileProduct:
    """Packs a layer's lists and puts them on a device.

    Raises:
        NoKernel: the launch parameters or extents are not what kernels are made for.
        UsageError: the tiles are of another weight.
    """
    extents = (shape.out_channels, shape.in_channels, math.prod(shape.kernel))
    if (*structure.shape[:2], structure.taps) != extents:
        raise UsageError(f"tiles must be of {shape.key}, but got those of {structure.shape}")
    check_launch(launch, min(structure.group_out, structure.shape[0]), element_bytes)
    geometry = of_layer(shape)
    together = structure.unit_in, shape.in_channels
    run = run_of(*together, element_bytes=element_bytes, limit=launch.bk)
    packing = pack(tile_columns(structure, shape), geometry, bn=launch.bn, bk=launch.bk, run=run)
    return TileProduct(geometry, packing, launch, device)
